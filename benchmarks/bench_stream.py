"""What does `percodec run --stream` save, and is it exact? The commands themselves, on a video, per bundle.

bytes a frame with and without --stream; replay of both logs; the stream's log cut at random bytes: does what decodes equal the run's?

python benchmarks/bench_stream.py --video PATH [--bundles road,...] [--frames N] [--record]
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import record

from percodec.runtime.run.logged import LoggedLatents
from percodec.runtime.session import default_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import LogError
from percodec.sdk.machine import machine_info

HERE = Path(__file__).parent
TIERS = ("road", "road-edge", "fast-0.330", "fast-0.635", "balanced-0.330", "balanced-0.635")
PERCODEC = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]
CUTS = 20


def percodec(*words: object) -> str:
    done = subprocess.run([*PERCODEC, *map(str, words)], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"percodec {words[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def cuts(log: Path, lines: list[dict[str, Any]], bundle: Bundle, scratch: Path) -> dict[str, Any]:
    """The log cut at random bytes: every complete frame must decode to what the live run had."""
    wanted = {line["frame_id"]: line["latent_crc"] for line in lines}
    whole = log.read_bytes()
    out: dict[str, Any] = {"cuts": CUTS, "frames_decoded": [], "differ": 0, "lost": 0, "no_log": 0}
    for at in np.sort(np.random.default_rng(1).integers(1, len(whole), CUTS)):
        scratch.write_bytes(whole[: int(at)])
        try:
            latents = LoggedLatents(scratch, bundle)
        except LogError:  # cut before the log says what it is
            out["no_log"] += 1
            continue
        found = {r.frame_id: f"{zlib.crc32(s.data):08x}" for r, s in latents}
        out["frames_decoded"].append(len(found))
        out["lost"] += len(latents.lost)
        out["differ"] += sum(wanted[k] != crc for k, crc in found.items())
    return out


def measure(name: str, video: Path, frames: int | None) -> dict[str, Any]:
    folder = default_bundle() if name == "road" else HERE / "bundles" / name
    some = () if frames is None else ("--max-frames", frames)
    result: dict[str, Any] = {"bundle": name}
    with tempfile.TemporaryDirectory() as place:
        for kind in ("alone", "stream"):
            out = Path(place) / kind
            words = ("--stream",) if kind == "stream" else ()
            percodec("run", video, "--bundle", folder, "--out", out, "--no-overlay", "--no-sheet", *some, *words)
            report = json.loads((out / "report.json").read_text())
            replayed = json.loads(percodec("replay", out / "packets.mcap", "--bundle", folder, "--json"))
            lines = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
            sizes = [line["packet_bytes"] for line in lines]
            result[kind] = {
                "bytes_per_frame": round(float(np.mean(sizes)), 1),
                "second_half": round(float(np.mean(sizes[len(sizes) // 2 :])), 1),
                "frames": len(sizes),
                "code_ms_p50": report["stages_ms"]["code"]["p50"],
                "replay": {"compared": replayed["compared"], "equal": replayed["equal"]},
            }
        result["digest"] = report["bundle"]["digest"]
        for part in ("bytes_per_frame", "second_half"):
            result[f"saved_{part}"] = round(1 - result["stream"][part] / result["alone"][part], 4)
        result["cut"] = cuts(out / "packets.mcap", lines, Bundle.open(folder), Path(place) / "cut.mcap")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, help="a drive; the tables of the bundles here saw its first half")
    parser.add_argument("--bundles", default=",".join(TIERS), help=f"which bundles (default {','.join(TIERS)})")
    parser.add_argument("--frames", type=int, help="the first N frames only")
    record.add_arguments(parser)
    args = parser.parse_args()
    rows = []
    for name in args.bundles.split(","):
        row = measure(name, args.video, args.frames)
        rows.append(row)
        print(
            f"{name:<16} {row['alone']['second_half']:>9.0f} -> {row['stream']['second_half']:>9.0f} bytes a frame, second half "
            f"(-{row['saved_second_half']:.1%})   replay {'equal' if row['stream']['replay']['equal'] else 'DIFFERS'}, "
            f"{row['cut']['differ']} of {sum(row['cut']['frames_decoded'])} frames of {CUTS} cut logs differ",
            flush=True,
        )
    result = {
        "benchmark": "bench_stream",
        "command": "python benchmarks/bench_stream.py --video PATH",
        "date": datetime.date.today().isoformat(),
        "machine": machine_info(),
        "video": args.video.name,
        "frames": args.frames,
        "bundles": rows,
    }
    record.write_result(args, "bench_stream", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
