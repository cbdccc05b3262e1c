"""`percodec encode` and `percodec decode`: arguments and printing; the work is `run.coding`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from percodec.runtime.commands.arguments import (
    add_allow_damaged,
    add_common,
    add_log,
    add_rate,
    add_stream,
    bundle_of,
    key_every_of,
    limit_of,
    log_key_of,
    log_segment_of,
    rate_of,
    stream_id_of,
    whole,
)
from percodec.sdk.errors import UsageError
from percodec.sdk.text import printable


def configure_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="image, video file, folder or synthetic://road")
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="NAME.pcpk for an image, NAME.mcap for a sequence; with --log-segment a folder"
    )
    parser.add_argument("--max-frames", metavar="N", help="stop after N frames")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_stream(parser)
    add_rate(parser)
    add_log(parser)
    add_common(parser)


def configure_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="packet (.pcpk), log (.mcap) or folder of its segments")
    parser.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where pictures go")
    parser.add_argument("--segment", action="store_true", help="also predict classes from the latent")
    parser.add_argument("--labels", action="store_true", help="also write the predicted class ids, as PNG in FOLDER/labels, a file a frame")
    parser.add_argument("--reference", metavar="SOURCE", help="the original, to measure PSNR against")
    parser.add_argument(
        "--prefer", metavar="WHAT", help="psnr or ms-ssim: the decoder that is nearer to the original in this (default: the bundle's first)"
    )
    parser.add_argument("--max-frames", metavar="N", help="stop after N frames")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier pictures in FOLDER")
    add_allow_damaged(parser)
    add_common(parser)


def encode(args: argparse.Namespace) -> int:
    from percodec.runtime.run.coding import encode_source

    out = Path(args.out)
    if out.exists() and not out.is_file():
        raise UsageError(f"{out}: is no file; choose another -o")
    if os.path.lexists(out) and not args.overwrite:
        raise UsageError(f"{out}: exists; choose another -o or add --overwrite")
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder")
    bundle, threads, limit = bundle_of(args), whole(args.threads, "--threads", 1, 64), limit_of(args)
    every, segment, stream_id = key_every_of(args), log_segment_of(args), stream_id_of(args)
    target_kbps, max_packet = rate_of(args)
    begin = time.monotonic()
    result = encode_source(
        args.input, out, bundle, backend=args.backend, threads=threads, max_frames=limit, stream=args.stream, key_every=every,
        log_segment=segment, log_key=log_key_of(args), stream_id=stream_id, overwrite=args.overwrite,
        target_kbps=target_kbps, max_packet=max_packet,
    )  # fmt: skip
    _print_coding(args, result.as_dict(bundle), time.monotonic() - begin)
    return 0


def decode(args: argparse.Namespace) -> int:
    from percodec.runtime.run.coding import decode_file, segmentation_head
    from percodec.runtime.run.labels import LabelMaps
    from percodec.sdk.folder_lock import FolderLock

    out, path = Path(args.out), Path(args.input)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; -o must name a folder")
    bundle, threads, limit = bundle_of(args), whole(args.threads, "--threads", 1, 64), limit_of(args)
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{out}: cannot be created ({error.strerror})") from error
        stack.callback(FolderLock(out).close)
        names = [f"{name}{suffix}" for name in ("reconstruction", "segmentation") for suffix in (".png", ".mp4", ".avi")]
        there = [name for name in names if os.path.lexists(out / name)]
        if there and not args.overwrite:
            raise UsageError(f"{out}: already holds {', '.join(there)}; choose another -o or add --overwrite")
        maps = None
        if args.labels:
            maps = LabelMaps(out / "labels", (segmentation_head(bundle).name,), overwrite=args.overwrite)
            stack.callback(maps.close)
        for name in there:
            (out / name).unlink()
        begin = time.monotonic()
        result = decode_file(
            path, out, bundle, backend=args.backend, threads=threads, segment=args.segment, labels=maps, reference=args.reference,
            max_frames=limit, allow_damaged=args.allow_damaged, prefer=args.prefer,
        )  # fmt: skip
        _print_coding(args, result.as_dict(bundle), time.monotonic() - begin)
    return 0


def _print_coding(args: argparse.Namespace, result: dict[str, Any], seconds: float) -> None:
    if args.json:
        print(json.dumps(result, indent=2))
        return
    fps = result["frames"] / seconds if seconds > 0 else 0.0
    text = f"{result['frames']} frame{'s' * (result['frames'] != 1)}, {result['packet_bytes']} bytes"
    text += f", {result['bpp']:.4f} bpp" if result["bpp"] is not None else ""
    text += f", {result['psnr_db']:.2f} dB PSNR" if result["psnr_db"] is not None else ""
    print(f"{text}  ({fps:.1f} fps)")
    for note in result["notes"]:
        print(printable(f"note     {note}"))
    for name in result["files"]:
        print(printable(f"wrote    {name}"))


__all__ = ["configure_decode", "configure_encode", "decode", "encode"]
