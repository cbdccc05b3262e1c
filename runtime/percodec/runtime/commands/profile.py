"""`percodec profile BUNDLE SOURCE` and `percodec profile compare A.json B.json`: arguments, files, exit codes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from percodec.sdk.errors import PercodecError, UsageError
from percodec.sdk.files import read_file, write_whole
from percodec.sdk.folder_lock import FolderLock
from percodec.sdk.text import printable

FILES = {
    "profile.json": "every figure",
    "profile.html": "one page with plots, works offline",
    "trace.json": "every stage of every frame: chrome://tracing or ui.perfetto.dev",
}


class BudgetError(PercodecError):
    """A profile does not keep its budget."""

    exit_code = 3


def configure_profile(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec profile`."""
    parser.epilog = "percodec profile compare A.json B.json shows what changed from one profile to another."
    parser.add_argument("words", nargs="+", metavar="BUNDLE SOURCE", help="bundle and source (as for run), or: compare A.json B.json")
    parser.add_argument(
        "--backends", default="ort", metavar="NAMES", help="side by side: ort, ort:fp32, tensorrt, ..., decode-first, rgb (default ort)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="where profile.json, profile.html and trace.json go (default: percodec-profile/BUNDLE)"
    )
    parser.add_argument("--fps", metavar="F", help="frames a second of the fixed-rate run (default: the source's)")
    parser.add_argument("--frames", default="300", metavar="N", help="frames per part (default 300)")
    parser.add_argument("--warmup", default="30", metavar="N", help="frames before anything is measured (default 30)")
    parser.add_argument("--deadline-ms", metavar="MS", help="a result later than this is a miss (default: one period)")
    parser.add_argument("--parts", metavar="NAMES", help="some of fixed,throughput,peak,overload (default: all)")
    parser.add_argument("--budget", metavar="FILE", help="limits in YAML; a broken one ends with exit code 3 and says which")
    parser.add_argument("--rgb", metavar="FILE", help="network that reads pictures (ONNX), for decode-first and rgb")
    parser.add_argument("--provider", metavar="NAME", help="CUDA through cuda-python or pycuda (default: the first that is installed)")
    parser.add_argument(
        "--transfer", default="auto", metavar="HOW", help="pictures to the GPU: copy, mapped, managed (default: mapped on Jetson)"
    )
    parser.add_argument("--heads", metavar="NAMES", help="heads of the bundle, as NAME,NAME or all (default: its first)")
    parser.add_argument("--threads", default="1", metavar="N", help="threads inside each network (default 1)")
    parser.add_argument("--workers", default="1", metavar="N", help="frames predicted at the same time (default 1)")
    parser.add_argument("--nvtx", action="store_true", help="NVTX ranges per stage, for Nsight Systems")
    parser.add_argument("--export-times", metavar="FILE", help="one entry per frame with trtexec's names, as its --exportTimes")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier profile in FOLDER")
    parser.add_argument("--json", action="store_true", help="print profile.json instead of a table")


def profile(args: argparse.Namespace) -> int:
    """Profile, or compare two profiles. Raises `BudgetError` where a limit is broken."""
    if args.words[0] == "compare":
        return _compare(args)
    if len(args.words) != 2:
        raise UsageError("percodec profile takes a bundle and a source: percodec profile FOLDER drive.mp4 (see percodec profile --help)")
    from percodec.runtime.commands.arguments import heads_of, positive, transfer, whole
    from percodec.runtime.measure.budget import over_budget, read_budget
    from percodec.runtime.measure.html import html, trace
    from percodec.runtime.measure.profile import PARTS, ProfileSettings, run_profile
    from percodec.runtime.measure.statistics import queries
    from percodec.runtime.measure.text import render
    from percodec.runtime.run.outputs import write_json

    bundle = Path(args.words[0])
    settings = ProfileSettings(
        bundle=bundle,
        source=args.words[1],
        backends=tuple(args.backends.split(",")),
        frames=whole(args.frames, "--frames", 10, 10_000_000),
        warm_up=whole(args.warmup, "--warmup", 0, 100_000),
        fps=None if args.fps is None else positive(args.fps, "--fps", 10_000),
        deadline_ms=None if args.deadline_ms is None else positive(args.deadline_ms, "--deadline-ms", 3_600_000),
        parts=PARTS if args.parts is None else tuple(args.parts.split(",")),
        heads=heads_of(args),
        threads=whole(args.threads, "--threads", 1, 64),
        workers=whole(args.workers, "--workers", 1, 64),
        provider=args.provider,
        transfer=transfer(args.transfer),
        rgb=Path(args.rgb) if args.rgb else None,
        nvtx=args.nvtx,
    )
    budget = read_budget(Path(args.budget)) if args.budget else None
    out = Path(args.out) if args.out else Path("percodec-profile") / (bundle.resolve().name or "bundle")
    with _prepare(out, args.overwrite):
        terminal = sys.stderr.isatty()

        def step(text: str) -> None:
            if terminal:
                sys.stderr.write("\r  " + text.ljust(60)[:76])
                sys.stderr.flush()

        result = run_profile(settings, step)
        if terminal:
            sys.stderr.write("\r" + " " * 78 + "\r")
        report = result.report
        broken = over_budget(report, budget) if budget is not None else []
        report["budget"] = None if budget is None else {"file": Path(args.budget).name, "limits": budget, "broken": broken}
        try:
            (out / "profile.html").write_text(html(report, result.spans), encoding="utf-8")
            (out / "trace.json").write_text(trace(result.spans), encoding="utf-8")
            if args.export_times:
                part = next(iter(result.spans.values())).get("fixed", {})
                try:
                    write_whole(Path(args.export_times), (json.dumps(queries(part), indent=1) + "\n").encode())
                except OSError as error:
                    raise UsageError(f"{args.export_times}: cannot be written ({error.strerror})") from error
            write_json(out / "profile.json", report)
        except OSError as error:
            raise UsageError(f"{error.filename or out}: cannot be written ({error.strerror})") from error
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(printable(render(report)))
        print()
        for name, what in FILES.items():
            print(f"wrote    {out / name}  {what}")
    sys.stdout.flush()
    if broken:
        raise BudgetError(f"over budget ({args.budget}): " + "; ".join(broken))
    return 0


def _prepare(out: Path, overwrite: bool) -> FolderLock:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out must name a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be created ({error.strerror})") from error
    lock = FolderLock(out)
    there = [name for name in FILES if (out / name).exists()]
    if there and not overwrite:
        lock.close()
        raise UsageError(f"{out}: already holds a profile ({', '.join(there)}); choose another --out or add --overwrite")
    return lock


def _compare(args: argparse.Namespace) -> int:
    from percodec.runtime.measure.budget import compare, render_comparison

    if len(args.words) != 3:
        raise UsageError("percodec profile compare takes two files: percodec profile compare before.json after.json")
    before, after = (_read(Path(word)) for word in args.words[1:])
    rows = compare(before, after)
    if not rows:
        raise UsageError(f"{args.words[1]} and {args.words[2]} have no backend in common: nothing can be compared")
    notes = []
    for what, key in (("machine", "cpu"), ("bundle", "digest"), ("source", "spec")):
        if before[what][key] != after[what][key]:
            notes.append(what)
    if args.json:
        print(json.dumps({"rows": rows, "different": notes}, indent=2))
    else:
        print(printable(render_comparison(rows)))
        if notes:
            print(f"\nnote     not the same {', '.join(notes)}")
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_file(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON") from error
    if not isinstance(found, dict) or found.get("format") != "percodec-profile" or found.get("version", [0])[0] != 1:
        raise UsageError(f"{path}: is not a profile written by percodec profile")
    return found


__all__ = ["BudgetError", "configure_profile", "profile"]
