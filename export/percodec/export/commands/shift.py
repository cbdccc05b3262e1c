"""`percodec shift`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from percodec.export.restore import FORMS
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError


def configure_shift(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec shift`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "example:\n"
        "  percodec shift --data camvid:DIR --codec jpeg:0.1 --codec percodec:bundles/lab-0.0983 \\\n"
        "      --restorer restored=runs/jpeg/restorer.onnx --restorer restored=runs/ours/restorer.onnx --seeds 1,2 --out shift\n"
        "letters, training then test: O original, C compressed, R restored, M mixed. OO - CC is information that compression took,\n"
        "CC - CO what the shift costs. Networks that are trained already are not trained again."
    )
    parser.add_argument("--data", required=True, metavar="KIND:PATH", help="camvid:DIR, cityscapes:DIR or voc:DIR; train and val are used")
    parser.add_argument("--codec", action="append", required=True, metavar="SPEC", help=f"repeatable: {FORMS}")
    parser.add_argument(
        "--restorer",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="repeatable; used for the codec it was trained on; restored=FILE first",
    )
    parser.add_argument("--mixed", action="store_true", help="also train on originals and compressed pictures mixed")
    parser.add_argument(
        "--every-rival",
        action="store_true",
        help="rivals (all but `restored`) at every rate and seed, not the lowest and first",
    )
    parser.add_argument("--seeds", default="1", metavar="1,2", help="seeds of the networks (default 1)")
    parser.add_argument("--config", default="lab-segmentation", help="schedule and network; packaged name or path.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="override one key; repeatable")
    parser.add_argument("--workers", type=int, default=2, help="networks trained at a time, one thread each (default 2)")
    parser.add_argument("--out", type=Path, required=True, help="folder: sets, runs, shift.json, shift.html and plots")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def shift(args: argparse.Namespace) -> int:
    """Make the sets, train the networks that are missing, and print the matrix."""
    require("export", "torch", "onnx", "onnxruntime", "PIL", "rich", "jinja2", "matplotlib")
    import torch

    from percodec.export.data.sets import load
    from percodec.export.evaluate.report import render_table, report, write_report
    from percodec.export.restore.restorer import Restorer
    from percodec.export.restore.shift import MAIN, Source, lowest, make_twins, plan, restore_twin, run_cells, serves, summarise
    from percodec.export.restore.shift_plots import draw_classes, draw_matrix, draw_methods

    def say(text: str) -> None:
        if not args.json:
            print(text, file=sys.stderr, flush=True)

    torch.set_num_threads(1)  # networks are trained beside this process, a thread each
    seeds = _seeds(args.seeds)
    if not 1 <= args.workers <= 256:
        raise UsageError(f"--workers must be from 1 to 256, got {args.workers}")
    restorers = []
    for item in args.restorer:
        name, sign, path = item.partition("=")
        if not sign or not name.isidentifier() or name in ("compressed", "mixed", "original"):
            raise UsageError(f"--restorer {item!r}: write it as NAME=FILE, for example {MAIN}=runs/r/restorer.onnx")
        restorers.append((name, Path(path), Restorer(Path(path)).facts))
    source = Source.of(args.data)
    data = load(source.test(source.root))
    twins = make_twins(source, args.codec, args.out, str(args.workers), say)
    bundles = {twin.name: Path(twin.spec.partition(":")[2]) for twin in twins if twin.codec["name"] == "percodec"}
    rivals_at = {twin.name for twin in (twins if args.every_rival else lowest(twins))}
    restored = {
        twin.name: {
            name: restore_twin(source, twin, name, path, bundles.get(twin.name), args.out, str(args.workers), say)
            for name, path, facts in restorers
            if serves(facts, twin) and (name == MAIN or twin.name in rivals_at)
        }
        for twin in twins
    }
    mixed = rivals_at if args.mixed else set()
    rows = run_cells(
        plan(source, twins, restored, seeds, mixed, args.every_rival), source, args.config, args.overrides, args.out, args.workers, say
    )
    lines = summarise(rows)
    command = _command(args)
    result = report("shift", command, {"name": data.name, "pictures": len(data), "sha256": data.digest}, lines)
    result |= {"cells": rows, "classes": [name for name, _ in data.classes], "seeds": seeds, "config": args.config, "set": args.overrides}
    title = f"{data.name}, {len(data)} pictures, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    figures = [args.out / f"shift-{name}.png" for name in ("matrix", "methods", "classes")]
    draw_matrix(rows, figures[0], title)
    draw_methods(rows, figures[1], f"{title}: lowest rate")
    draw_classes(rows, result["classes"], figures[2], f"{title}: points of IoU against originals on originals")
    written = write_report(result, args.out, figures)
    if args.json:
        print(json.dumps(result))
    else:
        print(render_table(lines), end="")
        print("written: " + "  ".join(str(p) for p in [*written, *figures]))
    return 0


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(s) for s in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text!r}: write whole numbers with commas between them, like 1,2") from None
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text!r} names a seed twice")
    return seeds


def _command(args: argparse.Namespace) -> str:
    """The command without this machine's paths."""
    words = ["percodec", "shift", "--data", args.data.partition(":")[0] + ":PATH"]
    for spec in args.codec:
        kind, _, setting = spec.partition(":")
        words += ["--codec", f"{kind}:{Path(setting).name}"]
    for item in args.restorer:
        name, _, path = item.partition("=")
        words += ["--restorer", f"{name}={Path(path).parent.name}/{Path(path).name}"]
    words += ["--mixed"] * args.mixed + ["--every-rival"] * args.every_rival
    words += ["--seeds", args.seeds, "--config", args.config]
    for item in args.overrides:
        words += ["--set", item]
    return " ".join([*words, "--out", args.out.name])


__all__ = ["configure_shift", "shift"]
