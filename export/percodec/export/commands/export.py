"""`percodec export`: arguments and printing; torch is imported where it is needed."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from percodec.export.commands.arguments import places_from_arguments, print_record
from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError
from percodec.sdk.text import has_utf8, shown


def configure_export(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec export`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec export runs/road-edge/best.pt --data camvid=DIR --out bundles/road\n"
        "  percodec export bundles/road --head depth=depth.onnx:array --out bundles/road-depth\n"
        "  percodec export bundles/road --head parking=runs/parking/best.pt --out bundles/road-parking\n"
        "  percodec export bundles/road --stream --stream-from drive.mp4 --out bundles/road-stream\n"
        "  percodec export bundles/road --familiar mine.mp4 --familiar-limit other.mp4 --out bundles/road-mine\n"
        "  percodec export bundles/road --size 1920x1088 --fit letterbox --shrink 4 --data camvid=DIR --out bundles/road-1080\n"
        "A bundle with only --head, --stream and --familiar asked for keeps all it has, byte for byte, engines too, and needs no data sets."
    )
    parser.add_argument(
        "checkpoint", type=Path, help="best.pt of a run, or a bundle to add to, or to export anew: other --size, --contexts, --add"
    )
    parser.add_argument(
        "--add", type=Path, action="append", default=[], metavar="CHECKPOINT", help="another head on this codec; repeatable"
    )
    parser.add_argument(
        "--decoder",
        dest="decoders",
        action="append",
        default=[],
        metavar="NAME=CHECKPOINT",
        help="a further decoder of the same packets, of a run with codec.fixed_encoder; ms_ssim is what decode --prefer ms-ssim takes",
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
        help="a network of your own, symbols uint8 [N,C,h,w] -> segmentation (labels), classification (probs) or array (any); or, as "
        "NAME=best.pt, a run on this bundle's codec (--codec BUNDLE); repeatable",
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
        "--familiar",
        action="append",
        default=[],
        metavar="SPEC",
        help="frames that are usual for this bundle: predictions of others are not valid; with --familiar-limit; repeatable",
    )
    parser.add_argument(
        "--familiar-limit",
        action="append",
        default=[],
        metavar="SPEC",
        help="frames of other drives, as usual as those: how far is too far; repeatable",
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
    parser.add_argument(
        "--shrink",
        type=int,
        default=1,
        metavar="N",
        help="for a --size N times that of the training: heads read the latent N times smaller, at a small frame's price; 2 to 8",
    )
    parser.add_argument(
        "--any-size",
        action="store_true",
        help="an older bundle's graphs for any batch, and any size where layers allow it; asked for alone",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def export(args: argparse.Namespace) -> int:
    """Write a bundle, add to one, or write a network on pictures."""
    if args.stream != bool(args.stream_from):
        raise UsageError("--stream and --stream-from go together: frames to learn from, for example --stream --stream-from drive.mp4")
    if bool(args.familiar) != bool(args.familiar_limit):
        raise UsageError("--familiar and --familiar-limit go together: usual frames, and frames of other drives that set the limit")
    anew = args.add or args.decoders or args.data or args.contexts or args.size or args.fit or args.shrink != 1
    if args.any_size:
        if anew or args.heads or args.stream or args.familiar or not args.checkpoint.is_dir():
            raise UsageError("--any-size is asked for alone, of a bundle: percodec export BUNDLE --any-size --out NEW")
        return _any_size(args)
    if (args.heads or args.stream or args.familiar) and args.checkpoint.is_dir() and not anew:
        return _extend(args)

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    require("export", "torch", "onnx", "onnxscript", "onnxruntime", "PIL")
    from percodec.export.bundles.extend import Additions, additions
    from percodec.export.bundles.from_checkpoint import export_bundle, export_rgb

    size = args.size or "480x360"
    try:
        width, height = (int(v) for v in size.lower().split("x"))
    except ValueError as e:
        raise UsageError(f"--size {size!r}: write it as WIDTHxHEIGHT, for example 480x360") from e
    if width % 8 or height % 8 or not (176 <= width <= 8192 and 176 <= height <= 8192):
        raise UsageError(f"--size {size}: sides must be multiples of 8 between 176 (what MS-SSIM needs) and 8192")
    if not 1 <= args.shrink <= 8:
        raise UsageError(f"--shrink {args.shrink}: from 1, not at all, to 8")
    if args.out.suffix == ".onnx":
        if args.heads or args.stream or args.familiar:
            raise UsageError("--head, --stream and --familiar are for bundles: --out FOLDER")
        written = export_rgb(args.checkpoint, args.out, height, width, args.overwrite)
        print(
            json.dumps({"file": str(args.out), "bytes": written})
            if args.json
            else f"network on pictures: {args.out}  {written / 1e6:.2f} MB"
        )
        say(f"next: percodec profile BUNDLE SOURCE --backends ort,decode-first,rgb --rgb {args.out}")
        return 0

    def add(bundle: Bundle) -> Additions:
        return additions(bundle, args.heads, args.head_labels, args.stream_from, (args.familiar, args.familiar_limit), say)

    bundle = export_bundle(
        args.checkpoint,
        args.out,
        _name(args),
        places_from_arguments(args.data),
        height,
        width,
        args.fit or "crop",
        args.overwrite,
        say,
        tuple(args.add),
        args.contexts,
        args.shrink,
        _decoders(args.decoders),
        add,
    )
    metrics = bundle.manifest["metrics"]
    if args.json:
        print(json.dumps(metrics))
    else:
        print_record(metrics)
        print(f"bundle: {args.out}   digest {bundle.digest[:16]}")
        drives = "head_segmentation" in bundle.manifest["graphs"]
        print(f"next: percodec {'run VIDEO' if drives else 'encode VIDEO -o drive.mcap'} --bundle {args.out}")
    return 0


def _decoders(items: list[str]) -> dict[str, Path]:
    found = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not (name and equals and path) or name in found:
            raise UsageError(f"--decoder {item!r}: write it as NAME=CHECKPOINT, each name once")
        found[name] = Path(path)
    return found


def _extend(args: argparse.Namespace) -> int:
    require("build", "onnx", "onnxruntime")
    from percodec.export.bundles.extend import additions, extend

    if args.out.exists() and not args.overwrite:
        raise UsageError(f"{args.out}: exists; choose another --out or add --overwrite")
    given = Bundle.open(args.checkpoint)

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    with tempfile.TemporaryDirectory(prefix="percodec-") as folder:
        heads = [_trained(given, text, Path(folder)) for text in args.heads]
        more = additions(given, heads, args.head_labels, args.stream_from, (args.familiar, args.familiar_limit), say)
    made = extend(given, args.out, _name(args), more, args.overwrite)
    say(f"bundle: {args.out}   digest {made.digest[:16]}, supersedes {given.digest[:16]}")
    say(f"next: percodec run VIDEO --bundle {args.out}{' --heads all' if args.heads else ''}{' --stream' if args.stream else ''}")
    if args.json:
        print(
            json.dumps({"bundle": str(args.out), "digest": made.digest, "heads": list(made.heads), "stream": made.stream_model is not None})
        )
    return 0


def _trained(bundle: Bundle, text: str, folder: Path) -> str:
    """NAME=RUN/best.pt -> NAME=FILE.onnx:TASK; anything else as it is."""
    name, _, file = text.partition("=")
    if not file.endswith(".pt"):
        return text
    require("export", "torch", "onnx", "onnxscript")
    from percodec.export.bundles.trained_heads import write_head

    run = Path(file)
    out = folder / name.replace("/", "_") / f"{run.absolute().parent.name}-{run.stem}.onnx"
    out.parent.mkdir(exist_ok=True)
    return f"{name}={out}:{write_head(bundle, run, out)}"


def _name(args: argparse.Namespace) -> str:
    name: str = args.name or args.out.name
    if not has_utf8(name):
        raise UsageError(f"bundle name {shown(name)!r} is not UTF-8; give another with --name")
    return name


def _any_size(args: argparse.Namespace) -> int:
    require("build", "onnx", "onnxruntime")
    from percodec.export.bundles.any_size import freed_bundle
    from percodec.runtime.engines.open import takes_any_size

    if args.out.exists() and not args.overwrite:
        raise UsageError(f"{args.out}: exists; choose another --out or add --overwrite")
    given = Bundle.open(args.checkpoint)
    made = freed_bundle(given, args.out, name=_name(args), overwrite=args.overwrite)
    free = [graph for graph in made.graphs if takes_any_size(made.graph(graph))]
    if args.json:
        print(json.dumps({"bundle": str(args.out), "digest": made.digest, "any_size": free}))
    else:
        print(f"bundle: {args.out}   digest {made.digest[:16]}, supersedes {given.digest[:16]}")
        print(f"of any size: {', '.join(free) or 'none'}")
        print(f"next: percodec bag compress IN OUT --all --bundle {args.out}")
    return 0


__all__ = ["configure_export", "export"]
