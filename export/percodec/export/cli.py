"""`percodec train` and `percodec export`: arguments and printing; torch is imported when they run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError


def configure_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec train`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec train codec --config edge --data camvid=../shared/data/camvid --data imagenet=DIR --out runs/edge\n"
        "  percodec train joint --config road-edge --data camvid=DIR --codec runs/edge/best.pt --out runs/road-edge\n"
        "  percodec train segmentation --data camvid=DIR --codec runs/edge/best.pt --out runs/seg\n"
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


def configure_export(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec export`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec export runs/road-edge/best.pt --data camvid=DIR --out bundles/road-edge\n"
        "  percodec export bundles/road-edge --head depth=depth.onnx:array --out bundles/road-depth\n"
        "  percodec export bundles/road-edge --stream --stream-from drive.mp4 --out bundles/road-stream\n"
        "A bundle with nothing but --head and --stream asked for keeps all it has, byte for byte, engines too, and needs no data sets."
    )
    parser.add_argument(
        "checkpoint", type=Path, help="best.pt of a run, or a bundle to add to, or to export anew: other --size, --contexts, --add"
    )
    parser.add_argument(
        "--add", type=Path, action="append", default=[], metavar="CHECKPOINT", help="another head on this codec; repeatable"
    )
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write; for a run on original pictures: NAME.onnx")
    parser.add_argument("--name", default=None, help="bundle name (default: name of --out)")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", help="where {NAME} of the configuration is; repeatable")
    parser.add_argument(
        "--head",
        dest="heads",
        action="append",
        default=[],
        metavar="NAME=FILE.onnx:TASK",
        help="a network of your own, symbols uint8 [N,C,h,w] -> segmentation (labels), classification (probs) or array (any); repeatable",
    )
    parser.add_argument(
        "--head-labels",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="classes of a --head: a JSON list of names, or one name a line (default: numbered); repeatable",
    )
    parser.add_argument("--stream", action="store_true", help="learn tables of predicted packets, for run --stream, from --stream-from")
    parser.add_argument(
        "--stream-from",
        action="append",
        default=[],
        metavar="SPEC",
        help="consecutive frames: a video, a folder, synthetic://road?frames=300; SPEC@FIRST:END for some of them; repeatable",
    )
    parser.add_argument(
        "--size",
        default=None,
        metavar="WxH",
        help="frame size, multiples of 8 (default 480x360); pictures of --data are brought to it",
    )
    parser.add_argument(
        "--fit", choices=("stretch", "letterbox", "crop"), default=None, help="how other sizes become this one (default crop)"
    )
    parser.add_argument(
        "--contexts", action="store_true", help="entropy tables by neighbours: packets smaller still, by a tenth, and a slower coder"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def _places(items: list[str]) -> dict[str, str]:
    places = {}
    for item in items:
        name, sign, path = item.partition("=")
        if not sign or not name.isidentifier():
            raise UsageError(f"--data {item!r}: write it as NAME=PATH, for example camvid=/data/camvid")
        places[name] = path
    return places


def train(args: argparse.Namespace) -> int:
    """Train as `args` says; every rank of a `torchrun` calls this."""
    require("export", "torch", "PIL", "rich")
    import torch

    from percodec.export.train import distributed
    from percodec.export.train.config import load_config
    from percodec.export.train.curves import plot_curves, reporter
    from percodec.export.train.run import train as train_run

    packaged = {"codec": "edge", "classification": "lab-classification", "segmentation": "lab-segmentation", "joint": "road-edge"}
    config = load_config(args.config or packaged[args.task], args.overrides)
    if config["task"] != args.task:
        raise UsageError(f"configuration {args.config!r} is for `percodec train {config['task']}`, not {args.task}")
    if args.print_config:
        print(json.dumps(config, indent=1))
        return 0
    if args.threads:
        torch.set_num_threads(args.threads)
    distributed.start()
    first = distributed.rank() == 0
    places = _places(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    if first:
        (args.out / "command.txt").write_text(_command(args.data) + "\n")
    quiet = args.json or not first

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    starts = {"codec_from": args.codec, "trunk_from": args.trunk, "head_from": args.head, "teacher_from": args.teacher}
    try:
        with reporter(config["schedule"]["steps"], quiet) as progress:
            views = args.views or args.out.resolve().parent / "views"
            best = train_run(config, args.out, places, restart=args.restart, progress=progress, views=views, say=say, **starts)
    finally:
        distributed.finish()
    if not first:
        return 0
    plot_curves(args.out)
    if args.json:
        print(json.dumps(best))
    else:
        _print_record(best)
        print(f"best checkpoint: {args.out / 'best.pt'}   curves: {args.out / 'curves.png'}")
        print(f"next: percodec export {args.out / 'best.pt'} --out bundles/NAME")
    return 0


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
    return shlex.join(["percodec", *words])


def _print_record(record: dict[str, Any]) -> None:
    for key, value in record.items():
        if isinstance(value, int | float):
            print(f"  {key:<28} {value:.4g}" if isinstance(value, float) else f"  {key:<28} {value}")


def export(args: argparse.Namespace) -> int:
    """Write a bundle, add to one, or write a network on pictures."""
    if args.stream != bool(args.stream_from):
        raise UsageError("--stream and --stream-from go together: frames to learn from, for example --stream --stream-from drive.mp4")
    anew = args.add or args.data or args.contexts or args.size or args.fit
    if (args.heads or args.stream) and args.checkpoint.is_dir() and not anew:
        return _extend(args)

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    require("export", "torch", "onnx", "onnxscript", "onnxruntime", "PIL")
    from percodec.export.bundle import export_bundle, export_rgb
    from percodec.export.extend import Additions, additions

    size = args.size or "480x360"
    try:
        width, height = (int(v) for v in size.lower().split("x"))
    except ValueError as e:
        raise UsageError(f"--size {size!r}: write it as WIDTHxHEIGHT, for example 480x360") from e
    if width % 8 or height % 8 or not (176 <= width <= 8192 and 176 <= height <= 8192):
        raise UsageError(f"--size {size}: sides must be multiples of 8 between 176 (what MS-SSIM needs) and 8192")
    if args.out.suffix == ".onnx":
        if args.heads or args.stream:
            raise UsageError("--head and --stream are for bundles: --out FOLDER")
        written = export_rgb(args.checkpoint, args.out, height, width, args.overwrite)
        print(
            json.dumps({"file": str(args.out), "bytes": written})
            if args.json
            else f"network on pictures: {args.out}  {written / 1e6:.2f} MB"
        )
        say(f"next: percodec profile BUNDLE SOURCE --backends ort,decode-first,rgb --rgb {args.out}")
        return 0

    def add(bundle: Bundle) -> Additions:
        return additions(bundle, args.heads, args.head_labels, args.stream_from, say)

    bundle = export_bundle(
        args.checkpoint,
        args.out,
        args.name or args.out.name,
        _places(args.data),
        height,
        width,
        args.fit or "crop",
        args.overwrite,
        say,
        tuple(args.add),
        args.contexts,
        add,
    )
    metrics = bundle.manifest["metrics"]
    if args.json:
        print(json.dumps(metrics))
    else:
        _print_record(metrics)
        print(f"bundle: {args.out}   digest {bundle.digest[:16]}")
        drives = "head_segmentation" in bundle.manifest["graphs"]
        print(f"next: percodec {'run VIDEO' if drives else 'encode VIDEO -o drive.mcap'} --bundle {args.out}")
    return 0


def _extend(args: argparse.Namespace) -> int:
    require("build", "onnx", "onnxruntime")
    from percodec.export.extend import additions, extend

    if args.out.exists() and not args.overwrite:
        raise UsageError(f"{args.out}: exists; choose another --out or add --overwrite")
    given = Bundle.open(args.checkpoint)

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    more = additions(given, args.heads, args.head_labels, args.stream_from, say)
    made = extend(given, args.out, args.name or args.out.name, more, args.overwrite)
    say(f"bundle: {args.out}   digest {made.digest[:16]}, supersedes {given.digest[:16]}")
    say(f"next: percodec run VIDEO --bundle {args.out}{' --heads all' if args.heads else ''}{' --stream' if args.stream else ''}")
    if args.json:
        print(
            json.dumps({"bundle": str(args.out), "digest": made.digest, "heads": list(made.heads), "stream": made.stream_model is not None})
        )
    return 0


__all__ = ["configure_export", "configure_train", "export", "train"]
