"""`percodec train`: arguments and printing; torch is imported when it runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from percodec.export.commands.arguments import places_from_arguments, print_record
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError
from percodec.sdk.text import shown


def configure_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec train`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec train codec --config edge --data camvid=../shared/data/camvid --data imagenet=DIR --out runs/edge\n"
        "  percodec train joint --config road-edge --data camvid=DIR --codec runs/edge/best.pt --out runs/road-edge\n"
        "  percodec train segmentation --data camvid=DIR --codec runs/edge/best.pt --out runs/seg\n"
        "  percodec train segmentation --data packets=DIR --codec bundles/road --out runs/seg     packets of that bundle, DIR/labels\n"
        "  torchrun --nproc-per-node 4 -m percodec.sdk.cli train codec --config theis3-0.330 --data images=DIR --data val=DIR --out r\n"
        "An interrupted run continues where it stopped when the same command is given again. CHECKPOINT is a run's best.pt or last.pt, or\n"
        "the folder of a bundle, for the run it was exported from."
    )
    parser.add_argument("task", choices=("codec", "classification", "segmentation", "joint"), help="what to train")
    parser.add_argument(
        "--config", default=None, help="packaged name or path.yaml; default: edge, lab-classification, lab-segmentation, road-edge"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="override one key; repeatable")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", help="where {NAME} of the configuration is; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="run folder: checkpoints, curves, configuration")
    parser.add_argument("--codec", type=Path, default=None, metavar="CHECKPOINT", help="start the codec from this")
    parser.add_argument("--trunk", type=Path, default=None, metavar="CHECKPOINT", help="start from another operating point of this codec")
    parser.add_argument("--head", type=Path, default=None, metavar="CHECKPOINT", help="start the head from this")
    parser.add_argument(
        "--init",
        choices=("klt",),
        default=None,
        help="klt: start a linear codec (block, refined) in closed form from training data, at the rate loss.bpp; takes seconds",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        default=None,
        metavar="CHECKPOINT",
        help="distil from this: a head on pictures or on what this one reads; for a codec, one with the same decoder",
    )
    parser.add_argument(
        "--views", type=Path, default=None, metavar="FOLDER", help="where pictures encoded beforehand are kept (default: beside --out)"
    )
    parser.add_argument("--restart", action="store_true", help="forget what is in --out")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--json", action="store_true", help="print the best validation record as JSON")


def train(args: argparse.Namespace) -> int:
    """Train as `args` says; every rank of a `torchrun` calls this."""
    require("export", "torch", "PIL", "rich")
    import torch

    from percodec.export.train import distributed
    from percodec.export.train.config import load_config
    from percodec.export.train.curves import plot_curves, reporter
    from percodec.export.train.from_config import train as train_run

    packaged = {"codec": "edge", "classification": "lab-classification", "segmentation": "lab-segmentation", "joint": "road-edge"}
    config = load_config(args.config or packaged[args.task], args.overrides)
    if config["task"] != args.task:
        raise UsageError(f"configuration {args.config!r} is for `percodec train {config['task']}`, not {args.task}")
    places = places_from_arguments(args.data)
    if "packets" in places:
        config = _from_packets(config, args.codec)
    if args.print_config:
        print(json.dumps(config, indent=1))
        return 0
    if args.threads:
        torch.set_num_threads(args.threads)
    distributed.start()
    first = distributed.rank() == 0
    quiet = args.json or not first

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    starts = {"codec_from": args.codec, "trunk_from": args.trunk, "head_from": args.head, "teacher_from": args.teacher}
    try:
        with reporter(config["schedule"]["steps"], quiet) as progress:
            views = args.views or args.out.resolve().parent / "views"
            more = {"progress": progress, "views": views, "say": say, "command": _command(args.data), "init": args.init, **starts}
            best = train_run(config, args.out, places, restart=args.restart, **more)
    finally:
        distributed.finish()
    if not first:
        return 0
    plot_curves(args.out)
    if args.json:
        print(json.dumps(best))
    else:
        print_record(best)
        print(f"best checkpoint: {args.out / 'best.pt'}   curves: {args.out / 'curves.png'}")
        print(f"next: percodec export {args.out / 'best.pt'} --out bundles/NAME")
    return 0


def _from_packets(config: dict[str, Any], codec: Path | None) -> dict[str, Any]:
    """The configuration with packets as its data, and with the codec of the bundle they were coded with."""
    from percodec.export.train.checkpoint import load_checkpoint

    if codec is None or not codec.is_dir():
        raise UsageError("--data packets=DIR needs the bundle they were coded with: --codec BUNDLE, its folder")
    data = {"train": [["packets:{packets}:train", 1.0]], "val": "packets:{packets}:val"}
    return {**config, "data": data, "codec": load_checkpoint(codec)["config"]["codec"]}


def _command(data: list[str]) -> str:
    """The command line without this machine's places: data as PATH, runs and checkpoints by their last names."""
    words, previous = [], ""
    for word in sys.argv[1:]:
        if word in data:
            word = word.split("=", 1)[0] + "=PATH"
        elif previous in ("--codec", "--trunk", "--head", "--teacher"):
            word = "/".join(Path(word).parts[-2:])
        elif previous in ("--out", "--views"):
            word = Path(word).name
        words.append(word)
        previous = word
    return shown(shlex.join(["percodec", *words]))


__all__ = ["configure_train", "train"]
