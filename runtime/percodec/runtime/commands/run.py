"""`percodec run` and `percodec demo`: arguments and printing; the work is `run.live`."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from pathlib import Path

from percodec.runtime.commands.arguments import (
    add_common,
    add_heads,
    add_log,
    add_rate,
    add_stream,
    bundle_path,
    demand_of,
    heads_of,
    key_every_of,
    log_key_of,
    log_segment_of,
    positive,
    rate_of,
    size_text,
    stream_id_of,
    transfer,
    whole,
)
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import UsageError
from percodec.sdk.text import printable

RESULTS = {
    "overlay": "segmentation over the camera picture, as video",
    "contact_sheet": "camera | segmentation | reconstruction",
    "log": "every packet, one MCAP record per frame",
    "lines": "one JSON line per frame",
    "labels": "class ids, one PNG per frame",
}


def _configure_live(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    add_heads(parser)
    add_stream(parser)
    add_rate(parser)
    add_log(parser)
    parser.add_argument("--provider", metavar="NAME", help="CUDA through cuda-python or pycuda (default: the first that is installed)")
    parser.add_argument(
        "--transfer", default="auto", metavar="HOW", help="pictures to the GPU: copy, mapped, managed (default: mapped on Jetson)"
    )
    parser.add_argument("--workers", default="1", metavar="N", help="frames predicted at the same time (default 1)")
    parser.add_argument("--policy", metavar="NAME", help="latest: newest frame wins; block: every frame (default: latest for cameras)")
    parser.add_argument("--realtime", action="store_true", help="play a file at its own frame rate, like a camera")
    parser.add_argument(
        "--allow-unfamiliar", action="store_true", help="predictions of scenes unlike those that the bundle was made for stay valid"
    )
    parser.add_argument("--max-age-ms", metavar="MS", help="mark predictions older than this as not valid (default 500 for cameras)")
    parser.add_argument(
        "--isolate", action=argparse.BooleanOptionalAction,
        help="engines in a process of their own, replaced when it fails or hangs (default: for a bundle that no trusted key signed)",
    )  # fmt: skip
    parser.add_argument("--fallback", metavar="NAMES", help="backends that take over when the first keeps failing, for example ort")
    parser.add_argument("--no-overlay", action="store_true", help="no overlay video")
    parser.add_argument("--no-sheet", action="store_true", help="no contact sheet")
    parser.add_argument("--no-log", action="store_true", help="no packet log (packets are still made and measured)")
    parser.add_argument("--no-selftest", action="store_true", help="skip the bundle's self-test vectors at start")


def configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="video file, image, folder, /dev/video0, v4l2://0, gstreamer://..., synthetic://road?frames=300&seed=1"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where results go (default: percodec-out/NAME)")
    parser.add_argument("--max-frames", metavar="N", help="stop after N frames")
    parser.add_argument("--timeout", default="3", metavar="S", help="longest wait for a camera's next frame, seconds (default 3)")
    parser.add_argument("--camera", metavar="FORMAT", help="a camera's own pictures, as nv12:1920x1080 (also yuyv, bgr, rgb)")
    parser.add_argument("--reconnect", metavar="S", help="open a lost camera again, for up to S seconds (default: the run ends)")
    parser.add_argument(
        "--save-labels", metavar="FOLDER", help="class ids as PNG, frame_NUMBER_tNANOSECONDS.png; of several heads, a folder each"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run, and earlier label maps, in the same folder")
    _configure_live(parser)


def configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="percodec-demo", metavar="FOLDER", help="where results go (default: percodec-demo)")
    parser.add_argument("--frames", default="300", metavar="N", help="length of the drive in frames at 25 fps (default 300)")
    parser.add_argument("--seed", default="1", metavar="N", help="another road (default 1)")
    _configure_live(parser)


def run(args: argparse.Namespace) -> int:
    out = Path(args.out) if args.out else Path("percodec-out") / run_name(args.source)
    return _live(args, args.source, out, overwrite=args.overwrite, realtime=args.realtime)


def demo(args: argparse.Namespace) -> int:
    frames, seed = whole(args.frames, "--frames", 1, 1_000_000), whole(args.seed, "--seed", 0, 2**31 - 1)
    args.max_frames, args.timeout, args.reconnect, args.camera, args.save_labels = None, "3", None, None, None
    code = _live(args, f"synthetic://road?frames={frames}&seed={seed}", Path(args.out), overwrite=True, realtime=args.realtime)
    if code == 0 and not args.json:
        print("\nnext:  percodec run my_video.mp4            your own drive")
        print("       percodec run /dev/video0             a camera; Ctrl-C ends it cleanly")
        print(f"       percodec replay {Path(args.out) / 'packets.mcap'}    the same predictions from the log alone")
    return code


def _live(args: argparse.Namespace, source: str, out: Path, *, overwrite: bool, realtime: bool) -> int:
    from percodec.runtime.pipeline.options import POLICIES
    from percodec.runtime.run.live import run_live, terminal_progress
    from percodec.runtime.run.report import render_table
    from percodec.runtime.run.settings import RunSettings
    from percodec.runtime.supervise.health import READY, Status

    if args.policy is not None and args.policy not in POLICIES:
        raise UsageError(f"--policy {args.policy}: unknown; use {' or '.join(POLICIES)}")
    if args.no_log and (args.log_key or args.log_segment):
        raise UsageError("--log-key and --log-segment are of the log, and --no-log writes none: leave one of them out")
    target_kbps, max_packet = rate_of(args)
    settings = RunSettings(
        source=source,
        out=out,
        bundle=bundle_path(args),
        demand=demand_of(args),
        backend=args.backend,
        provider=args.provider,
        transfer=transfer(args.transfer),
        camera=CameraFormat.from_text(args.camera) if args.camera else None,
        policy=args.policy,
        realtime=realtime,
        threads=whole(args.threads, "--threads", 1, 64),
        workers=whole(args.workers, "--workers", 1, 64),
        max_frames=None if args.max_frames is None else whole(args.max_frames, "--max-frames", 1, 2**40),
        allow_unfamiliar=args.allow_unfamiliar,
        max_age_ms=None if args.max_age_ms is None else positive(args.max_age_ms, "--max-age-ms", 3_600_000),
        timeout_s=positive(args.timeout, "--timeout", 600),
        reconnect_s=0.0 if args.reconnect is None else positive(args.reconnect, "--reconnect", 1e9),
        heads=heads_of(args),
        stream=args.stream,
        key_every=key_every_of(args),
        target_kbps=target_kbps,
        max_packet=max_packet,
        isolate=True if args.fallback is not None else args.isolate,
        fallback=tuple(args.fallback.split(",")) if args.fallback else (),
        overlay=not args.no_overlay,
        sheet=not args.no_sheet,
        log=not args.no_log,
        log_segment=log_segment_of(args),
        log_key=log_key_of(args),
        stream_id=stream_id_of(args),
        save_labels=Path(args.save_labels) if args.save_labels else None,
        selftest=not args.no_selftest,
        overwrite=overwrite,
    )
    progress = terminal_progress()

    def tell(status: Status) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            if progress is not None:
                sys.stderr.write("\r" + " " * 60 + "\r")
            sys.stderr.write(f"percodec: {status if status.state != READY else 'READY again'}\n")

    result = run_live(settings, progress, tell)
    if progress is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write("\r" + " " * 60 + "\r")
    if args.json:
        print(json.dumps(result.report, indent=2))
    else:
        print(printable(render_table(result.report)))
        for name, entry in result.report["files"].items():
            print(printable(f"wrote    {out / entry['file']}  ({size_text(entry['bytes'])})  {RESULTS[name]}"))
        print(printable(f"wrote    {out / 'report.json'}"))
    sys.stdout.flush()
    if result.error is not None:
        raise result.error
    return 0


def run_name(source: str) -> str:
    """A folder name for the results of `source`: `drive.mp4` -> `drive`, `synthetic://road?seed=2` -> `road-seed-2`."""
    scheme, separator, rest = source.partition("://")
    name = (rest if scheme == "synthetic" else f"{scheme}-{rest}") if separator else Path(source).stem or Path(source).absolute().name
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name)[:60].strip("-.") or "run"


__all__ = ["configure_demo", "configure_run", "demo", "run", "run_name"]
