"""The vehicle's commands: run, demo, encode, decode, replay, profile, doctor. Argument checks and printing only; the work is elsewhere."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from percodec.runtime.profile_cli import command as profile_command
from percodec.sdk.bundle import Bundle
from percodec.sdk.camera import CameraFormat
from percodec.sdk.cli import Command
from percodec.sdk.errors import LogError, UsageError

RESULTS = {
    "overlay": "segmentation over the camera picture, as video",
    "contact_sheet": "camera | segmentation | reconstruction",
    "log": "every packet, one MCAP record per frame",
    "lines": "one JSON line per frame",
}


def commands() -> list[Command]:
    """What this part adds to `percodec`."""
    return [
        Command("run", "predict and log from a video, folder, camera or synthetic road", _configure_run, _run),
        Command("demo", "a synthetic drive through the whole path, with pictures", _configure_demo, _demo),
        Command("encode", "image -> packet, video or folder -> log", _configure_encode, _encode),
        Command("decode", "packet or log -> RGB pictures, and segmentation with --segment", _configure_decode, _decode),
        Command("replay", "predict again from logged packets and compare with the live run", _configure_replay, _replay),
        profile_command(),
        Command("doctor", "what this machine can run, and what is missing", _configure_doctor, _doctor),
    ]


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to use (default: the built-in road-edge)")
    parser.add_argument("--backend", default="ort", metavar="NAME", help="ort (default), ort:fp32, ort:int8, tensorrt, tensorrt_rtx")
    parser.add_argument("--threads", default="1", metavar="N", help="threads inside each network (default 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def _configure_live(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--provider", metavar="NAME", help="CUDA through cuda-python or pycuda (default: the first that is installed)")
    parser.add_argument(
        "--transfer", default="auto", metavar="HOW", help="pictures to the GPU: copy, mapped, managed (default: mapped on Jetson)"
    )
    parser.add_argument("--workers", default="1", metavar="N", help="frames predicted at the same time (default 1)")
    parser.add_argument("--policy", metavar="NAME", help="latest: newest frame wins; block: every frame (default: latest for cameras)")
    parser.add_argument("--realtime", action="store_true", help="play a file at its own frame rate, like a camera")
    parser.add_argument("--max-age-ms", metavar="MS", help="mark predictions older than this as not valid (default 500 for cameras)")
    parser.add_argument("--isolate", action="store_true", help="engines in a process of their own, replaced when it fails or hangs")
    parser.add_argument("--fallback", metavar="NAMES", help="backends that take over when the first keeps failing, for example ort")
    parser.add_argument("--no-overlay", action="store_true", help="no overlay video")
    parser.add_argument("--no-sheet", action="store_true", help="no contact sheet")
    parser.add_argument("--no-log", action="store_true", help="no packet log (packets are still made and measured)")
    parser.add_argument("--no-selftest", action="store_true", help="skip the bundle's self-test vectors at start")


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="video file, image, folder, /dev/video0, v4l2://0, gstreamer://..., synthetic://road?frames=300&seed=1"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where results go (default: percodec-out/NAME)")
    parser.add_argument("--max-frames", metavar="N", help="stop after N frames")
    parser.add_argument("--timeout", default="3", metavar="S", help="longest wait for a camera's next frame, seconds (default 3)")
    parser.add_argument("--camera", metavar="FORMAT", help="a camera's own pictures, as nv12:1920x1080 (also yuyv, bgr, rgb)")
    parser.add_argument("--reconnect", metavar="S", help="open a lost camera again, for up to S seconds (default: the run ends)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the same folder")
    _configure_live(parser)


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="percodec-demo", metavar="FOLDER", help="where results go (default: percodec-demo)")
    parser.add_argument("--frames", default="300", metavar="N", help="length of the drive in frames at 25 fps (default 300)")
    parser.add_argument("--seed", default="1", metavar="N", help="another road (default 1)")
    _configure_live(parser)


def _configure_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="image, video file, folder or synthetic://road")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="NAME.pcpk for an image, NAME.mcap for a sequence")
    parser.add_argument("--max-frames", metavar="N", help="stop after N frames")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    _common(parser)


def _configure_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="packet (.pcpk) or log (.mcap)")
    parser.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where pictures go")
    parser.add_argument("--segment", action="store_true", help="also predict classes from the latent")
    parser.add_argument("--reference", metavar="SOURCE", help="the original, to measure PSNR against")
    parser.add_argument("--max-frames", metavar="N", help="stop after N frames")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier pictures in FOLDER")
    _common(parser)


def _configure_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", help="packets.mcap of a run")
    parser.add_argument("--against", metavar="FILE", help="frames.jsonl of the live run (default: the one beside the log, if any)")
    _common(parser)


def _configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to check (default: the built-in road-edge)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _run(args: argparse.Namespace) -> int:
    out = Path(args.out) if args.out else Path("percodec-out") / run_name(args.source)
    return _live(args, args.source, out, overwrite=args.overwrite, realtime=args.realtime)


def _demo(args: argparse.Namespace) -> int:
    frames, seed = whole(args.frames, "--frames", 1, 1_000_000), whole(args.seed, "--seed", 0, 2**31 - 1)
    args.max_frames, args.timeout, args.reconnect, args.camera = None, "3", None, None
    code = _live(args, f"synthetic://road?frames={frames}&seed={seed}", Path(args.out), overwrite=True, realtime=args.realtime)
    if code == 0 and not args.json:
        print("\nnext:  percodec run my_video.mp4            your own drive")
        print("       percodec run /dev/video0             a camera; Ctrl-C ends it cleanly")
        print(f"       percodec replay {Path(args.out) / 'packets.mcap'}    the same predictions from the log alone")
    return code


def _live(args: argparse.Namespace, source: str, out: Path, *, overwrite: bool, realtime: bool) -> int:
    from percodec.runtime.health import READY, Status
    from percodec.runtime.live import run_live, terminal_progress
    from percodec.runtime.options import POLICIES
    from percodec.runtime.outputs import DEFAULT_BUNDLE, RunSettings
    from percodec.runtime.report import render_table

    if args.policy is not None and args.policy not in POLICIES:
        raise UsageError(f"--policy {args.policy}: unknown; use {' or '.join(POLICIES)}")
    settings = RunSettings(
        source=source,
        out=out,
        bundle=Path(args.bundle) if args.bundle else DEFAULT_BUNDLE,
        backend=args.backend,
        provider=args.provider,
        transfer=transfer(args.transfer),
        camera=CameraFormat.from_text(args.camera) if args.camera else None,
        policy=args.policy,
        realtime=realtime,
        threads=whole(args.threads, "--threads", 1, 64),
        workers=whole(args.workers, "--workers", 1, 64),
        max_frames=None if args.max_frames is None else whole(args.max_frames, "--max-frames", 1, 2**40),
        max_age_ms=None if args.max_age_ms is None else positive(args.max_age_ms, "--max-age-ms", 3_600_000),
        timeout_s=positive(args.timeout, "--timeout", 600),
        reconnect_s=0.0 if args.reconnect is None else positive(args.reconnect, "--reconnect", 1e9),
        isolate=args.isolate or args.fallback is not None,
        fallback=tuple(args.fallback.split(",")) if args.fallback else (),
        overlay=not args.no_overlay,
        sheet=not args.no_sheet,
        log=not args.no_log,
        selftest=not args.no_selftest,
        overwrite=overwrite,
    )
    progress = terminal_progress()

    def tell(status: Status) -> None:
        if progress is not None:
            sys.stderr.write("\r" + " " * 60 + "\r")
        sys.stderr.write(f"percodec: {status if status.state != READY else 'READY again'}\n")

    result = run_live(settings, progress, tell)
    if progress is not None:
        sys.stderr.write("\r" + " " * 60 + "\r")
    if args.json:
        print(json.dumps(result.report, indent=2))
    else:
        print(render_table(result.report))
        for name, entry in result.report["files"].items():
            print(f"wrote    {out / entry['file']}  ({_size(entry['bytes'])})  {RESULTS[name]}")
        print(f"wrote    {out / 'report.json'}")
    sys.stdout.flush()
    if result.error is not None:
        raise result.error
    return 0


def _encode(args: argparse.Namespace) -> int:
    from percodec.runtime.coding import encode_source

    out = Path(args.out)
    if out.exists() and not (args.overwrite and out.is_file()):
        raise UsageError(f"{out}: exists; choose another -o or add --overwrite")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder")
    bundle, threads, limit = _bundle(args), whole(args.threads, "--threads", 1, 64), _limit(args)
    out.unlink(missing_ok=True)
    begin = time.monotonic()
    result = encode_source(args.input, out, bundle, backend=args.backend, threads=threads, max_frames=limit)
    _print_coding(args, result.as_dict(bundle), time.monotonic() - begin)
    return 0


def _decode(args: argparse.Namespace) -> int:
    from percodec.runtime.coding import decode_file

    out, path = Path(args.out), Path(args.input)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; -o must name a folder")
    names = [f"{name}{suffix}" for name in ("reconstruction", "segmentation") for suffix in (".png", ".mp4", ".avi")]
    there = [name for name in names if (out / name).exists()]
    if there and not args.overwrite:
        raise UsageError(f"{out}: already holds {', '.join(there)}; choose another -o or add --overwrite")
    bundle, threads, limit = _bundle(args), whole(args.threads, "--threads", 1, 64), _limit(args)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be created ({error.strerror})") from error
    for name in there:
        (out / name).unlink()
    begin = time.monotonic()
    result = decode_file(
        path, out, bundle, backend=args.backend, threads=threads, segment=args.segment, reference=args.reference, max_frames=limit
    )
    _print_coding(args, result.as_dict(bundle), time.monotonic() - begin)
    return 0


def _replay(args: argparse.Namespace) -> int:
    from percodec.runtime.replay import replay_log

    path = Path(args.log)
    beside = path.with_name("frames.jsonl")
    against = Path(args.against) if args.against else beside if beside.is_file() else None
    bundle, threads = _bundle(args), whole(args.threads, "--threads", 1, 64)
    result = replay_log(path, bundle, against=against, backend=args.backend, threads=threads)
    if args.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        print(f"replayed {result.frames} frames of {path} with {bundle.name} {bundle.digest[:12]}")
        if against is not None:
            print(
                f"against  {against}: {result.compared} compared, {len(result.latents_differ)} latents differ, "
                f"{len(result.labels_differ)} predictions differ, {len(result.missing)} acknowledged frames missing"
            )
        shares = sorted(result.class_shares.items(), key=lambda item: -item[1])
        print("classes  " + ", ".join(f"{name} {share:.1%}" for name, share in shares))
    sys.stdout.flush()
    if not result.equal:
        worst = (result.missing or result.latents_differ or result.labels_differ)[0]
        kind = "is missing from the log" if result.missing else "has another latent" if result.latents_differ else "has other predictions"
        total = len(result.missing) + len(result.latents_differ) + len(result.labels_differ)
        raise LogError(f"{path}: the replay differs from {against} in {total} places; first, frame {worst} {kind}")
    if result.truncated and result.compared == 0:
        raise LogError(f"{path}: the log is cut off or was never closed; its {result.frames} complete frames were replayed")
    if result.truncated and not args.json:
        print("note     the log was never closed (a killed run); every acknowledged frame is in it")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from percodec.runtime.doctor import examine, render
    from percodec.runtime.outputs import DEFAULT_BUNDLE

    checks = examine(Path(args.bundle) if args.bundle else DEFAULT_BUNDLE)
    print(json.dumps([check.as_dict() for check in checks], indent=2) if args.json else render(checks))
    return 1 if any(check.status == "fail" for check in checks) else 0


def run_name(source: str) -> str:
    """A folder name for the results of `source`: `drive.mp4` -> `drive`, `synthetic://road?seed=2` -> `road-seed-2`."""
    scheme, separator, rest = source.partition("://")
    name = (rest if scheme == "synthetic" else f"{scheme}-{rest}") if separator else Path(source).stem or Path(source).absolute().name
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name)[:60].strip("-.") or "run"


def _bundle(args: argparse.Namespace) -> Bundle:
    from percodec.runtime.outputs import DEFAULT_BUNDLE, open_bundle

    return open_bundle(Path(args.bundle) if args.bundle else DEFAULT_BUNDLE)


def _limit(args: argparse.Namespace) -> int | None:
    return None if args.max_frames is None else whole(args.max_frames, "--max-frames", 1, 2**40)


def whole(text: str, name: str, low: int, high: int) -> int:
    """A whole number from the command line. Raises UsageError naming the option."""
    if not re.fullmatch(r"[+-]?\d{1,15}", str(text)) or not low <= int(text) <= high:
        raise UsageError(f"{name} {text}: must be a whole number from {low} to {high}")
    return int(text)


def transfer(text: str) -> str:
    """How pictures get to the GPU, from the command line. Raises UsageError naming the option."""
    if text not in ("auto", "copy", "mapped", "managed"):
        raise UsageError(f"--transfer {text}: unknown; use copy, mapped or managed")
    return text


def positive(text: str, name: str, high: float) -> float:
    """A number above 0 from the command line. Raises UsageError naming the option."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= high:
        raise UsageError(f"{name} {text}: must be a number above 0, at most {high:g}")
    return value


def _print_coding(args: argparse.Namespace, result: dict[str, Any], seconds: float) -> None:
    if args.json:
        print(json.dumps(result, indent=2))
        return
    fps = result["frames"] / seconds if seconds > 0 else 0.0
    text = f"{result['frames']} frame{'s' * (result['frames'] != 1)}, {result['packet_bytes']} bytes"
    text += f", {result['bpp']:.4f} bpp" if result["bpp"] is not None else ""
    text += f", {result['psnr_db']:.2f} dB PSNR" if result["psnr_db"] is not None else ""
    print(f"{text}  ({fps:.1f} fps)")
    for name in result["files"]:
        print(f"wrote    {name}")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.1f} kB"


__all__ = ["commands", "positive", "run_name", "transfer", "whole"]
