"""`percodec restore compress|train|apply`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from percodec.export.restore import FORMS
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError

CONFIGS = ("restore-gan", "restore-l1", "restore-task", "restore-corrector", "restore-latent")


def configure_restore(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec restore`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec restore compress camvid twins/jpeg-0.1 --codec jpeg:0.1\n"
        "  percodec restore train --clean camvid/train --compressed twins/jpeg-0.1/train --network runs/rgb/best.pt --out runs/restorer\n"
        "  percodec restore apply fleet restored --restorer runs/restorer/restorer.onnx --workers 8\n"
        "  percodec train segmentation --data camvid=restored ...\n"
        "Any of them, interrupted, continues where it stopped when the same command is given again."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="compress|train|apply")
    compress = verbs.add_parser("compress", help="a data set as it comes back from a codec at a rate: what to learn from")
    compress.add_argument("source", type=Path, help="folder; label maps and other files in it are copied")
    compress.add_argument("out", type=Path, help="folder to make; the same names, pictures as PNG")
    compress.add_argument("--codec", required=True, metavar="SPEC", help=FORMS)
    compress.add_argument("--packets", action="store_true", help="store packets (NAME.pcpk) of a bundle's codec instead of pictures")
    _common(compress)
    apply = verbs.add_parser("apply", help="restore a compressed data set")
    apply.add_argument("source", type=Path, help="folder of pictures or packets; label maps and other files in it are copied")
    apply.add_argument("out", type=Path, help="folder to make; the same names, pictures as PNG")
    apply.add_argument("--restorer", type=Path, required=True, metavar="FILE", help="restorer.onnx of `percodec restore train`")
    apply.add_argument("--bundle", type=Path, default=None, metavar="DIR", help="the bundle packets were coded with")
    apply.add_argument(
        "--bpp",
        type=float,
        default=None,
        metavar="X",
        help="bits per pixel, where neither the set's record nor the file says",
    )
    _common(apply)
    train = verbs.add_parser("train", help="learn to restore from clean pictures and their compressed twins")
    train.add_argument("--clean", type=Path, required=True, metavar="DIR", help="clean pictures, any, without labels")
    train.add_argument("--compressed", type=Path, action="append", default=[], metavar="DIR", help="the same after a codec; repeatable")
    train.add_argument("--bundle", type=Path, default=None, metavar="DIR", help="restore-latent: the bundle whose decoder is replaced")
    train.add_argument("--network", type=Path, default=None, metavar="CHECKPOINT", help="frozen network whose features or outputs count")
    train.add_argument("--config", default="restore-gan", help=f"{', '.join(CONFIGS)}, or a path.yaml")
    train.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="override one key; repeatable")
    train.add_argument("--start", type=Path, default=None, metavar="CHECKPOINT", help="start from another restorer's run")
    train.add_argument("--out", type=Path, required=True, help="run folder: restorer.onnx, checkpoints, curves, configuration")
    train.add_argument("--restart", action="store_true", help="forget what is in --out")
    train.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    train.add_argument("--json", action="store_true", help="print the last record as JSON")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", default="1", metavar="N|ray|ray:N", help="processes here, or workers of a Ray cluster (default 1)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def restore(args: argparse.Namespace) -> int:
    """Compress, train or apply, as `args.verb` says."""
    require("export", "onnx", "onnxruntime", "PIL", "rich", *(["torch"] if args.verb == "train" else []))
    return {"compress": _compress, "train": _train, "apply": _apply}[args.verb](args)


def _compress(args: argparse.Namespace) -> int:
    from percodec.export.data.files import is_hidden, read_rgb
    from percodec.export.restore.lossy import LOOKED_AT, AtQuality, OfBundle, open_lossy
    from percodec.export.restore.mirror import SUFFIXES, is_picture
    from percodec.export.restore.transforms import Compress, fixed_spec
    from percodec.runtime.images import is_picture_file
    from percodec.sdk.files import read_file

    names = sorted(p for p in args.source.rglob("*") if p.suffix.lower() in SUFFIXES and not is_hidden(p) and is_picture_file(p))
    few = names[:: max(1, len(names) // (2 * LOOKED_AT))]  # half of a set's files may be label maps
    codec = open_lossy(args.codec, [read_rgb(p) for p in few if is_picture(p.name, read_file(p))])
    if args.packets and not isinstance(codec, OfBundle):
        raise UsageError(f"--packets stores packets of a bundle's codec, percodec:BUNDLE; {args.codec} has none")
    if isinstance(codec, AtQuality) and not args.json:
        print(f"{args.codec}: {codec.name}", file=sys.stderr)
    return _mirror(args, Compress(fixed_spec(args.codec, codec), args.packets))


def _apply(args: argparse.Namespace) -> int:
    from percodec.export.restore.transforms import Restore

    if args.bpp is not None and not 0 < args.bpp <= 24:
        raise UsageError(f"--bpp must be above 0 and at most 24, got {args.bpp:g}")
    work = Restore(args.restorer, args.source, args.bundle, args.bpp)
    work.open()  # what does not fit is said before the first file
    return _mirror(args, work)


def _mirror(args: argparse.Namespace, work: Any) -> int:
    from percodec.export.restore.mirror import mirror

    with bar(args.verb, args.json) as progress:
        summary = mirror(args.source, args.out, work, args.workers, progress)
    if args.json:
        print(json.dumps(summary))
    else:
        rate = f", {summary['bpp']:.4f} bpp" if summary["bpp"] is not None else ""
        print(f"{args.out}: {summary['pictures']} pictures{rate}, {summary['source']['files'] - summary['pictures']} other files copied")
    return 0


def _train(args: argparse.Namespace) -> int:
    import torch

    from percodec.export.restore.train import train_restorer
    from percodec.export.train.config import load_config
    from percodec.export.train.curves import plot_curves, reporter
    from percodec.sdk.bundle import Bundle

    config = load_config(args.config, args.overrides)
    if config["task"] != "restore":
        raise UsageError(f"configuration {args.config!r} is for `percodec train {config['task']}`, not for a restorer")
    if args.threads:
        torch.set_num_threads(args.threads)
    bundle = None if args.bundle is None else Bundle.open(args.bundle)
    with reporter(config["schedule"]["steps"], args.json) as progress:
        record = train_restorer(
            config, args.out, args.clean, args.compressed, bundle, args.network, args.start, restart=args.restart, progress=progress
        )
    plot_curves(args.out)
    if args.json:
        print(json.dumps(record))
    else:
        print(f"pictures kept aside: PSNR {record['psnr']:.2f} dB, MS-SSIM {record['ms_ssim']:.4f}")
        print(f"restorer: {args.out / 'restorer.onnx'}")
        print(f"next: percodec restore apply SOURCE OUT --restorer {args.out / 'restorer.onnx'}")
    return 0


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, a line per tenth elsewhere, nothing when `quiet`."""
    from rich.console import Console
    from rich.progress import Progress

    if quiet or not sys.stderr.isatty():

        def line(done: int, of: int) -> None:
            if not quiet and (done * 10 // of) != ((done - 1) * 10 // of):
                print(f"{name}: {done}/{of}", file=sys.stderr, flush=True)

        yield line
        return
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)


__all__ = ["CONFIGS", "bar", "configure_restore", "restore"]
