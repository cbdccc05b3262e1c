"""`percodec evaluate rd|segmentation|classification|storage|compute`: a table on the terminal, JSON, plots and one HTML page in --out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import require
from percodec.sdk.errors import DataError, UsageError

KINDS = ("rd", "segmentation", "classification", "storage", "compute")


def configure_evaluate(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec evaluate`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec evaluate rd --images kodak/ --bundle B1 --bundle B2 --out reports/kodak\n"
        "  percodec evaluate segmentation --bundle B1 --data camvid:DIR:val\n"
        "  percodec evaluate segmentation --checkpoint runs/rgb/best.pt --bundle B1 --data camvid:DIR:val   (rivals at B1's bytes)\n"
        "  percodec evaluate segmentation --protocol leave-one-drive-out --data camvid:DIR:train --bundle B1 \\\n"
        "    --checkpoint runs/latent-A/best.pt --checkpoint runs/rgb-A/best.pt ...   (each run judged on the drive it was not shown)\n"
        "  percodec evaluate storage --images fleet/ --bundle B1 --total-gb 144\n"
        "  percodec evaluate compute --width 0.25"
    )
    parser.add_argument("kind", choices=KINDS, help="what to evaluate")
    parser.add_argument("--bundle", type=Path, action="append", default=[], metavar="DIR", help="bundle; repeatable")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], metavar="FILE", help="best.pt of a head's run; repeatable")
    parser.add_argument("--images", type=Path, default=None, metavar="DIR", help="rd, storage: folder of pictures")
    parser.add_argument("--data", default=None, metavar="SPEC", help="segmentation, classification: camvid:DIR:val, voc:DIR:val, ...")
    parser.add_argument(
        "--protocol",
        choices=("leave-one-drive-out",),
        default=None,
        help="segmentation: judge each --checkpoint on the drive of CamVid that its training left out (camvid:DIR:train/not-DRIVE)",
    )
    parser.add_argument("--codecs", default="jpeg,jpeg2000,webp,avif,hevc", metavar="A,B", help="rd: codecs to compare with")
    parser.add_argument("--rivals", default="jpeg,resize", metavar="A,B", help="what a network on originals is shown at equal bytes")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="the first N pictures only")
    parser.add_argument("--total-gb", type=float, default=None, metavar="X", help="storage: what X gigabytes would shrink to")
    parser.add_argument("--fps", type=float, default=10.0, help="storage: frames per second of a camera")
    parser.add_argument("--camera", default="1920x1080", metavar="WxH", help="storage: its frame size")
    parser.add_argument("--width", type=float, default=1.0, help="compute: width factor of the residual networks")
    parser.add_argument("--no-timing", action="store_true", help="compute: count only")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="write JSON, plots and HTML here")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def evaluate(args: argparse.Namespace) -> int:
    """Print one kind of table; JSON, plots and HTML where `args.out` says."""
    require("export", "torch", "onnx", "onnxruntime", "PIL", "rich", "jinja2")
    from percodec.export.evaluate.plots import plot
    from percodec.export.evaluate.report import render_table, report, write_report

    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit must be at least 1, got {args.limit}")
    if args.protocol and args.kind != "segmentation":
        raise UsageError(f"--protocol {args.protocol} is of percodec evaluate segmentation, not of {args.kind}")
    makers: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], list[dict[str, Any]], list[str]]]] = {
        "rd": _rd,
        "segmentation": _left_out if args.protocol else _perception,
        "classification": _perception,
        "storage": _storage,
        "compute": _compute,
    }
    data, rows, notes = makers[args.kind](args)
    result = report(args.kind, _command(args), data, rows, notes)
    written: list[Path] = []
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        figure = args.out / f"{args.kind}.png"
        plot(args.kind, rows, figure, f"{data['name']}, {data['pictures']} pictures" if "pictures" in data else data["name"])
        written = [*write_report(result, args.out, [figure]), figure]
    if args.json:
        print(json.dumps(result))
    else:
        print(render_table(rows), end="")
        for note in notes:
            print(note)
        if written:
            print("written: " + "  ".join(str(p) for p in written))
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command without this machine's paths."""
    words = ["percodec", "evaluate", args.kind]
    words += [w for b in args.bundle for w in ("--bundle", b.name)]
    words += [w for c in args.checkpoint for w in ("--checkpoint", f"{c.parent.name}/{c.name}")]
    if args.data:
        kind, _, rest = args.data.partition(":")
        words += ["--data", f"{kind}:PATH:{rest.rpartition(':')[2]}"]
    if args.images:
        words += ["--images", args.images.resolve().name]
    configure_evaluate(usual := argparse.ArgumentParser())
    for key in ("protocol", "codecs", "rivals", "limit", "total_gb", "fps", "camera", "width", "no_timing"):
        value = getattr(args, key)
        if value != usual.get_default(key):
            words += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    return " ".join(words)


def _bundles(args: argparse.Namespace) -> list[Bundle]:
    return [Bundle.open(path) for path in args.bundle]


def _pictures(args: argparse.Namespace) -> tuple[str, list[Any]]:
    from percodec.export.data.small_sets import load_folder
    from percodec.export.evaluate.any_size import crop8

    if args.images is None:
        raise UsageError(f"percodec evaluate {args.kind} needs --images DIR")
    data = load_folder(args.images, longest=1 << 16)
    return args.images.resolve().name, [crop8(p) for p in data.images[: args.limit]]


@contextmanager
def _bar(args: argparse.Namespace, name: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=args.json or not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


def _rd(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    from percodec.export.evaluate.codecs import codec_of
    from percodec.export.evaluate.rd import at_rate, bundle_point, curve

    codecs = [codec_of(name) for name in args.codecs.split(",") if name]
    bundles = _bundles(args)
    name, pictures = _pictures(args)
    rows: list[dict[str, Any]] = []
    for bundle in bundles:
        with _bar(args, bundle.name, len(pictures)) as advance:
            rows.append(bundle_point(bundle, pictures, advance))
    for codec in codecs:
        with _bar(args, codec.name, len(codec.qualities)) as advance:
            rows += curve(codec, pictures, advance=advance)
    notes = []
    for ours in [r for r in rows if "bundle" in r]:
        for key in ("psnr_db", "ms_ssim"):
            others = {c.name: at_rate([r for r in rows if r["codec"] == c.name], ours["bpp"], key) for c in codecs}
            said = ", ".join(f"{k} {v:.4g}" if v is not None else f"{k} does not reach this rate" for k, v in others.items())
            notes.append(f"{ours['codec']} at {ours['bpp']:.4f} bpp, {key}: {ours[key]:.4g}; at the same rate {said}")
    return {"name": name, "pictures": len(pictures)}, rows, notes


def _perception(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    from dataclasses import replace

    from percodec.export.data.sets import load
    from percodec.export.evaluate.perception import rows_of_bundle, rows_of_checkpoint, what_arrives

    if args.data is None:
        raise UsageError(f"percodec evaluate {args.kind} needs --data SPEC, for example camvid:DIR:val")
    if not args.bundle and not args.checkpoint:
        raise UsageError(f"percodec evaluate {args.kind} needs --bundle DIR or --checkpoint FILE")
    bundles = _bundles(args)
    data = load(args.data)
    if args.limit:
        data = replace(data, images=data.images[: args.limit], labels=data.labels[: args.limit], targets=data.targets[: args.limit])
    if not data.labels and not (args.kind == "classification" and data.targets):
        raise DataError(f"data set {data.name} has no labels: {args.kind} cannot be judged on it")
    rows: list[dict[str, Any]] = []

    def say(text: str) -> None:
        if not args.json:
            print(text, file=sys.stderr, flush=True)

    for bundle in bundles:
        if not args.checkpoint or any(g.startswith(f"head_{args.kind}") for g in bundle.manifest["graphs"]):
            rows += rows_of_bundle(bundle, data, args.kind, say)
    rivals = tuple(r for r in args.rivals.split(",") if r)
    shown = cache(lambda: what_arrives(data, bundles, rivals))  # the same for every checkpoint, and slow
    for path in args.checkpoint:
        rows += rows_of_checkpoint(path, data, args.kind, shown, say)
    return {"name": data.name, "pictures": len(data), "sha256": data.digest}, rows, []


def _left_out(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    from percodec.export.data.sets import load
    from percodec.export.evaluate.left_out import BLOCK, DRAWS, left_out_rows

    if args.data is None or not args.data.startswith("camvid:") or not args.checkpoint:
        raise UsageError(f"--protocol {args.protocol} needs --data camvid:DIR:train and a --checkpoint for each drive left out")
    if args.limit:
        raise UsageError(f"--protocol {args.protocol} judges whole drives: no --limit")
    seen: list[Any] = []

    def drive(name: str) -> Any:
        seen.append(load(f"{args.data}/{name}"))
        return seen[-1]

    def say(text: str) -> None:
        if not args.json:
            print(text, file=sys.stderr, flush=True)

    rows = left_out_rows(args.checkpoint, drive, _bundles(args), tuple(r for r in args.rivals.split(",") if r), say)
    notes = [
        "miou: mean over the drives, each judged by networks that did not train on it, over the classes that it shows",
        f"intervals: 95 %, {DRAWS} draws of blocks of {BLOCK} neighbouring frames; of these drives, and of one training",
        "codec and entropy tables may have seen the drives: their provenance says so",
    ]
    sets = {data.name: data.digest for data in seen}
    return {"name": "CamVid, one drive left out", "pictures": sum(map(len, seen)), "sha256": sets}, rows, notes


def _storage(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    from percodec.export.evaluate.storage import measure_storage

    if args.images is None or not args.bundle:
        raise UsageError("percodec evaluate storage needs --images DIR and --bundle DIR")
    try:
        width, height = (int(v) for v in args.camera.lower().split("x"))
        if width < 1 or height < 1:
            raise ValueError
    except ValueError:
        raise UsageError(f"--camera {args.camera!r}: write it as WIDTHxHEIGHT, for example 1920x1080") from None
    with _bar(args, "pictures", 0) as advance:
        rows = measure_storage(
            args.images, _bundles(args), args.total_gb, args.fps, (width, height), args.limit, lambda done, of: advance()
        )
    notes = [f"kbit_per_s and mb_per_minute: one camera of {width}x{height} at {args.fps:g} frames/s, at this set's bits per pixel"]
    if args.total_gb is not None:
        notes.append(f"gb_of_total: what {args.total_gb:g} GB of such files would shrink to")
    return {"name": args.images.resolve().name, "pictures": rows[0]["pictures"]}, rows, notes


def _compute(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    from percodec.export.evaluate.compute import compute_table, networks

    if not 0 < args.width <= 4:
        raise UsageError(f"--width must be above 0 and at most 4, got {args.width}")
    with _bar(args, "networks", len(networks(width=args.width))) as advance:
        rows = compute_table(not args.no_timing, args.width, lambda done, of: advance())
    notes = ["multiply-accumulates of convolutions and matrix products at 224x224 pixels, latent 28x28x32; FP32 on this CPU"]
    return {"name": "224x224, C = 32", "width": args.width}, rows, notes


__all__ = ["KINDS", "configure_evaluate", "evaluate"]
