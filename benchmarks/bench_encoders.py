"""What does an encoder cost on a 1080p picture, and what does it give for that?

    python benchmarks/bench_encoders.py --camvid PATH --kodak PATH [--bundle DIR ...] [--rounds 15]

Each bundle's encoder in INT8 as `percodec build --target host --precision int8` makes it, calibrated on CamVid's training frames.
Cost: from the uint8 picture to the packet at 1920x1080 (CamVid val frames enlarged; 1088 rows, whole cells), one thread, next to
libjpeg-turbo at quality 80 (OpenCV), in turn within each round of one process; process CPU time, medians, ratios of paired rounds.
Gain: bits of whole packets, PSNR and MS-SSIM of CamVid val and Kodak through that same INT8 encoder; the other codecs' curves are those of
lab_rd_*.json, interpolated at the bundle's rate.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from bench_rans import cpu_name, slug_of

from percodec.export.data.sets import load
from percodec.export.engines import Calibration, explicit_graph, plan_for, session
from percodec.export.evaluate.codecs import Picture
from percodec.export.evaluate.compute import count_macs
from percodec.export.evaluate.rd import at_rate, bundle_point, crop8
from percodec.export.evaluate.resized import resized
from percodec.export.models import AUTOENCODERS
from percodec.export.onnx import run_ort
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.targets import target

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DEFAULT = ("fast-0.330", "fast-0.635", "lab-0.330", "lab-0.635")
ROAD = HERE.parent / "runtime" / "percodec" / "runtime" / "bundles" / "road-edge"
OTHERS = ("jpeg", "webp", "avif")
SETS = {"camvid_val": "lab_rd_camvid_val", "kodak": "lab_rd_kodak"}
SIZE = (1088, 1920)


def kmac_per_pixel(name: str, channels: int) -> float:
    """Of the encoder."""
    return count_macs(AUTOENCODERS[name](channels, 6, 1.0).eval().g_a, torch.zeros(1, 3, 224, 224)) / 224**2 / 1000


def cpu_ms(call: Callable[[Picture], object], picture: Picture) -> float:
    start = time.process_time_ns()
    call(picture)
    return (time.process_time_ns() - start) / 1e6


def cost(encoders: dict[str, tuple[Bundle, bytes]], pictures: list[Picture], rounds: int) -> dict[str, dict[str, float]]:
    cv2.setNumThreads(1)
    sizes = [cv2.resize(p, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for p in pictures]
    runs: dict[str, Callable[[Picture], object]] = {"jpeg": lambda p: cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 80])}
    for name, (bundle, graph) in encoders.items():
        encode, coder = session(resized(graph, *SIZE)), PacketCodec(bundle.entropy_model, SIZE[0] // 8, SIZE[1] // 8)
        runs[name] = lambda p, e=encode, c=coder: c.encode(e(p[None])[0][0], 0, 0)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(-2, rounds):
        picture = sizes[k % len(sizes)]
        for name, run in runs.items():
            spent = cpu_ms(run, picture)
            if k >= 0:
                times[name].append(spent)
    return {
        name: {
            "cpu_ms": statistics.median(values),
            "times_jpeg": statistics.median(a / b for a, b in zip(values, times["jpeg"], strict=True)),
        }
        for name, values in times.items()
    }


def rival_points(name: str) -> dict[str, list[dict[str, Any]]]:
    (path,) = RESULTS.glob(f"{SETS[name]}-*.json")
    rows = json.loads(path.read_text())["rows"]
    return {codec: [r for r in rows if r["codec"] == codec] for codec in OTHERS}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """MS-SSIM at the cost, one panel per set; each encoder filled, JPEG, WebP and AVIF at its rate open above and below."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SETS), figsize=(11, 4.4), sharey=True)
    for axis, name in zip(axes, SETS, strict=True):
        for k, row in enumerate(rows):
            found, colour = row["sets"][name], f"C{k}"
            axis.plot(row["times_jpeg"], found["ms_ssim"], "o", color=colour, label=f"{row['bundle']}, {found['bpp']:.2f} bpp")
            for mark, other in zip("vs^", OTHERS, strict=True):
                at = found["others"][other]["ms_ssim"]
                if at is not None:
                    axis.plot(row["times_jpeg"], at, mark, color=colour, markerfacecolor="none", markersize=5)
        axis.set(xscale="log", xlabel="CPU time of 1080p picture -> packet, times libjpeg-turbo q80", title=name.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, title="filled: ours; open: JPEG v, WebP s, AVIF ^ at that rate", title_fontsize=7, loc="lower right")
    axes[0].set(ylabel="MS-SSIM", ylim=(min(r["sets"][s]["ms_ssim"] for r in rows for s in SETS) - 0.06, 0.99))  # room for the legend
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--bundle", type=Path, action="append", help=f"repeatable (default: road-edge and {', '.join(DEFAULT)})")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--machine", help="name in the result's file name (default: the processor's)")
    args = parser.parse_args()
    train, val = load(f"camvid:{args.camvid}:train"), load(f"camvid:{args.camvid}:val")
    frames = [train.images[k * len(train) // 64] for k in range(64)]
    pictures = {"camvid_val": [crop8(p) for p in val.images], "kodak": [crop8(p) for p in load(f"folder:{args.kodak}").images]}

    encoders: dict[str, tuple[Bundle, bytes]] = {}
    for path in args.bundle or [ROAD, *(HERE / "bundles" / name for name in DEFAULT)]:
        bundle = Bundle.open(path)
        made = explicit_graph(bundle, "encoder", plan_for(target("host"), "int8"), Calibration(bundle, frames))
        encoders[bundle.name] = (bundle, made.data)
        print(f"{bundle.name}: {made.report['convolutions']}", flush=True)
    spent = cost(encoders, val.images[:8], args.rounds)
    rows = []
    for name, (bundle, graph) in encoders.items():
        codec = bundle.manifest["provenance"]["config"]["codec"]
        row: dict[str, Any] = {"bundle": name, "digest": bundle.digest, "encoder": codec["name"], "channels": codec["channels"]}
        row |= {"kmac_per_pixel": kmac_per_pixel(codec["name"], codec["channels"]), **spent[name], "sets": {}}
        plain, integer = run_ort(bundle.graph("encoder")), run_ort(graph)
        differ = [(plain(f[None]) != integer(f[None])).mean() for f in val.images[:4]]
        row["symbols_differ_from_fp32"] = float(np.mean(differ))
        for key, some in pictures.items():
            point = bundle_point(bundle, some, encoder=graph)
            others = {c: {m: at_rate(p, point["bpp"], m) for m in ("ms_ssim", "psnr_db")} for c, p in rival_points(key).items()}
            row["sets"][key] = {k: point[k] for k in ("bpp", "psnr_db", "ms_ssim")} | {"others": others}
        rows.append(row)
        print(json.dumps(row), flush=True)
    result = {
        "benchmark": "bench_encoders",
        "command": "python benchmarks/bench_encoders.py --camvid PATH --kodak PATH",
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu_name()},
        "jpeg_q80_cpu_ms": spent["jpeg"]["cpu_ms"],
        "rounds": args.rounds,
        "rows": rows,
    }
    path = RESULTS / f"bench_encoders-{slug_of(args.machine)}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows, RESULTS / "bench_encoders.png")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
