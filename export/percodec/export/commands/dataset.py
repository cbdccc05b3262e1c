"""`percodec dataset encode|predict|restore|stats`: arguments and printing; the work is `fleet`'s."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from percodec.export.commands.restore import bar
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError


def configure_dataset(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec dataset`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec dataset stats archive --workers 4\n"
        "  percodec dataset encode camvid packets --labels --bundle bundles/road\n"
        "  percodec dataset predict s3://fleet/archive s3://fleet/labels --workers ray --bundle bundles/road\n"
        "  percodec train segmentation --data packets=packets --codec bundles/road --out runs/seg\n"
        "SOURCE and OUT are folders, or addresses that fsspec knows. A log, or a segment of an archive, is done at a time and has a\n"
        "journal of its own: given again, an interrupted command goes on where it stopped and leaves the same bytes."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="encode|predict|restore|stats")
    encode = verbs.add_parser("encode", help="folders of pictures -> logs, with label maps as labels of their packets")
    _places(encode, "pictures, each folder one recording", "logs, and labels/ beside them")
    _bundle(encode)
    encode.add_argument("--labels", action="store_true", help="label maps of FOLDER are in FOLDER_labels; its name is their split")
    encode.add_argument("--vehicle", default="", metavar="NAME", help="whose pictures they are, where several sets will lie together")
    predict = verbs.add_parser("predict", help="packets -> what a head says of each, in Parquet; such files are labels for training")
    _places(predict, "logs", "a Parquet file a shard")
    _bundle(predict)
    predict.add_argument("--head", default=None, metavar="NAME", help="head of the bundle (default: its first)")
    restore = verbs.add_parser("restore", help="packets -> restored pictures, PNG in Parquet")
    _places(restore, "logs", "a Parquet file a shard")
    restore.add_argument("--restorer", type=Path, required=True, metavar="FILE", help="restorer.onnx of `percodec restore train`")
    restore.add_argument("--bundle", type=Path, default=None, metavar="DIR", help="the bundle packets were coded with (default: road)")
    stats = verbs.add_parser("stats", help="what is there: packets, bytes, streams, and what is damaged or missing")
    stats.add_argument("source", metavar="SOURCE", help="logs")
    stats.add_argument("out", metavar="OUT", nargs="?", default=None, help="keep a file a shard there")
    for one in (encode, predict, restore, stats):
        one.add_argument("--workers", default="1", metavar="N|ray|ray:N", help="processes here, or workers of a Ray cluster (default 1)")
        one.add_argument("--gpus", type=float, default=0.0, metavar="X", help="with --workers ray: share of a GPU for each worker")
        one.add_argument("--json", action="store_true", help="print the summary as JSON")


def _places(parser: argparse.ArgumentParser, source: str, out: str) -> None:
    parser.add_argument("source", metavar="SOURCE", help=source)
    parser.add_argument("out", metavar="OUT", help=out)


def _bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, default=None, metavar="DIR", help="bundle folder (default: road)")
    parser.add_argument("--backend", default="ort", metavar="NAME", help="ort, ort:fp32, ort:int8, tensorrt (default ort)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="in each worker (default 1)")


def dataset(args: argparse.Namespace) -> int:
    """Encode, predict, restore or count, as `args.verb` says."""
    require("fleet", "fsspec", "pyarrow")
    require("export", "onnx", "onnxruntime", "PIL", "rich")
    if args.verb == "stats" and args.out is None:
        with tempfile.TemporaryDirectory(prefix="percodec-") as folder:
            if args.workers.startswith("ray"):
                raise UsageError("stats on a Ray cluster needs OUT, a place that all its machines reach")
            return _run(args, f"{folder}/stats")
    return _run(args, args.out)


def _run(args: argparse.Namespace, out: str) -> int:
    from percodec.export.fleet.encode import find_pictures
    from percodec.export.fleet.shards import find_shards
    from percodec.export.fleet.store import Store
    from percodec.export.fleet.units import run_units

    source = Store(args.source)
    shards = find_pictures(source, args.labels) if args.verb == "encode" else find_shards(source)
    with bar(args.verb, args.json) as progress:
        summary = run_units(args.source, out, _work(args, out), shards, args.workers, args.gpus, progress)
    if args.json:
        print(json.dumps(summary))
        return 0
    holds = summary["holds"]
    for name, value in holds.items():
        if name != "losses":
            print(f"  {name:<28} {value}")
    for kind, count in holds["losses"].items():
        print(f"  left out: {kind:<18} {count}")
    for words in summary["said"][:3]:
        print(f"note     {words}")
    if args.out is not None:
        print(f"wrote    {args.out}" + (f"   ({summary['done_before']} shards were done before)" if summary["done_before"] else ""))
    return 0


def _work(args: argparse.Namespace, out: str) -> Any:
    from percodec.export.fleet.encode import Encode
    from percodec.export.fleet.predict import Predict
    from percodec.export.fleet.stats import Stats
    from percodec.runtime.session import default_bundle

    if args.verb == "stats":
        return Stats()
    bundle = args.bundle or default_bundle()
    if args.verb == "restore":
        from percodec.export.restore.shards import RestoreShards

        return RestoreShards(args.restorer, bundle)
    if not 1 <= args.threads <= 64:
        raise UsageError(f"--threads must be 1..64, got {args.threads}")
    if args.verb == "predict":
        return Predict(bundle, args.head, args.backend, args.threads)
    return Encode(bundle, out, args.labels, args.vehicle, args.backend, args.threads)


__all__ = ["configure_dataset", "dataset"]
