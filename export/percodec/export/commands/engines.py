"""`percodec build` and `percodec verify`: engines into a bundle, and the proof that a precision is good enough. No torch here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from percodec.sdk.bundle import Bundle
from percodec.sdk.camera import CameraFormat
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError
from percodec.sdk.targets import TARGETS, target

METHODS = ("minmax", "percentile", "entropy")
Progress = Callable[[str, int, int], None]


def configure_build(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec build bundles/road --target host --precision int8 --calibrate camvid:DIR:train\n"
        "  percodec build bundles/road --target rtx-ada --precision int8+fp16 --calibrate folder:DIR\n"
        "  percodec build bundles/road --target orin-jp6 --precision fp16            (on the Jetson itself)\n"
        "  percodec build bundles/road --target orin-jp6 --precision int8 --dry-run  (explicit graphs and lint only)\n"
        "  percodec build bundles/road --target orin-jp6 --camera nv12:1920x1080     (its pictures become frames on the GPU)\n\n"
        "targets:\n" + "\n".join(f"  {t.name:<14} {t.what}" for t in TARGETS.values())
    )
    _common(parser)
    parser.add_argument("--precision", default="fp16", help="fp32, fp16, int8, int8+fp16 or fp8+fp16 (default fp16)")
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="FORMAT:WxH",
        help="also: this camera's pictures to frames; repeatable",
    )
    parser.add_argument("--batch", type=int, action="append", default=[], metavar="N", help="fixed batch size; repeatable (default 1)")
    parser.add_argument("--level", type=int, choices=range(6), default=None, help="builder optimization level")
    parser.add_argument("--dla", type=int, default=None, metavar="CORE", help="use this deep-learning accelerator where it can")
    parser.add_argument(
        "--max-damage", type=float, default=None, metavar="X", help="keep layers in FP32 until a graph differs at most by X"
    )
    parser.add_argument("--onnx-out", type=Path, default=None, metavar="DIR", help="also write the explicit graphs here")
    parser.add_argument("--dry-run", action="store_true", help="explicit graphs and lint; for GPUs no build; write nothing into the bundle")


def configure_verify(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  percodec verify bundles/road --data camvid:DIR:val --calibrate camvid:DIR:train\n"
        "  percodec verify bundles/road --data camvid:DIR:val --target orin-jp6 --precision fp16 --precision int8+fp16\n"
        "  percodec verify bundles/road --data camvid:DIR:val --sensitivity int8 --graph head_segmentation"
    )
    _common(parser)
    parser.add_argument("--data", required=True, metavar="SPEC", help="frames to judge on: camvid:DIR:val, folder:DIR, ...")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="N frames only, spread over the set")
    parser.add_argument("--precision", action="append", default=[], help="repeatable (default: all that the target runs)")
    parser.add_argument("--sensitivity", default=None, metavar="PRECISION", help="instead: which layers cost the accuracy")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="write JSON, a plot and HTML here")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--target", default="host", help="the device (default host: this CPU)")
    parser.add_argument("--graph", action="append", default=[], metavar="NAME", help="graph; repeatable; encoder+HEAD makes one of two")
    parser.add_argument("--keep", action="append", default=[], metavar="REGEX", help="layers that stay FP32; repeatable")
    parser.add_argument(
        "--calibrate", default=None, metavar="SPEC", help="real frames for INT8 and FP8 ranges: folder:DIR, camvid:DIR:train"
    )
    parser.add_argument("--frames", type=int, default=32, metavar="N", help="calibration frames, spread over the set (default 32)")
    parser.add_argument("--method", choices=METHODS, default="minmax", help="how ranges are chosen (default minmax)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def build(args: argparse.Namespace) -> int:
    """Build each graph asked for and print what came of it."""
    require("build", "onnx", "onnxruntime", "PIL")
    from percodec.export.engines.build import Calibration, build_graph, default_graphs, explicit_graph, known_graphs, plan_for
    from percodec.export.evaluate.report import render_table

    device, bundle = target(args.target), Bundle.open(args.bundle)
    if any(b < 1 for b in args.batch):
        raise UsageError(f"--batch must be at least 1, got {min(args.batch)}")
    cameras = [CameraFormat.from_text(text).graph for text in args.camera]
    graphs = [*(known_graphs(bundle, args.graph) or default_graphs(bundle)), *dict.fromkeys(cameras)]
    plan = plan_for(device, args.precision, args.keep)
    rows: list[dict[str, Any]] = []
    with _progress(args.json) as step:
        frames = _frames(bundle, args.calibrate, args.frames)
        calibration = Calibration(bundle, frames, args.method, _say(args.json), step, keep=not args.dry_run)
        for graph in graphs:
            judged = args.max_damage is not None and graph not in cameras
            here = _kept(bundle, graph, plan, calibration, args.max_damage, step) if judged else plan
            if args.onnx_out is not None:
                args.onnx_out.mkdir(parents=True, exist_ok=True)
                name = f"{graph}-{device.name}-{plan.precision}.onnx"
                (args.onnx_out / name).write_bytes(explicit_graph(bundle, graph, here, calibration).data)
            options = {"batches": tuple(args.batch) or (1,), "level": args.level, "dla_core": args.dla, "dry_run": args.dry_run}
            rows.append(build_graph(bundle, graph, device, here, calibration, **options, say=_say(args.json), progress=step))
    if args.json:
        print(json.dumps(rows))
        return 0
    shown = [{**r, "convolutions": "  ".join(f"{k} {v}" for k, v in r["convolutions"].items())} for r in rows]
    print(render_table(shown), end="")
    if plan.precision.startswith("int8") and device.flavour != "ort":
        print("INT8 is not a given win: build --precision fp16 too, and compare the two on the device.")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Exit code 1 where a limit is broken."""
    require("build", "onnx", "onnxruntime", "PIL")
    from percodec.export.data import load
    from percodec.export.engines.build import Calibration, default_graphs, explicit_graph, known_graphs, plan_for
    from percodec.export.engines.verify import broken, compare, limits_of, run_chain
    from percodec.export.evaluate.plots import plot
    from percodec.export.evaluate.report import render_table, report, write_report

    device, bundle = target(args.target), Bundle.open(args.bundle)
    graphs = known_graphs(bundle, args.graph) or default_graphs(bundle)
    data = load(args.data)
    picked = _spread(len(data), args.limit)
    frames = [_fit(bundle, data.images[k]) for k in picked]
    exact = all(data.images[k].shape[:2] == (bundle.frame_height, bundle.frame_width) for k in picked)
    truth = [data.labels[k] for k in picked] if data.labels and exact else []
    precisions = args.precision or list(device.precisions)
    with _progress(args.json) as step:
        calibration = Calibration(bundle, _frames(bundle, args.calibrate, args.frames), args.method, _say(args.json), step)
        if args.sensitivity:
            return _sensitivity(args, bundle, graphs, plan_for(device, args.sensitivity, args.keep), calibration, frames, step)
        if "encoder" not in graphs:
            graphs = ["encoder", *graphs]
        source = {g: bundle.graph(g) for g in graphs if "+" not in g}
        base = run_chain(bundle, source, frames, truth, reference=True, advance=_named(step, "fp32 reference"))
        rows = []
        for precision in precisions:
            plan = plan_for(device, precision, args.keep)
            made = {g: explicit_graph(bundle, g, plan, calibration).data for g in source}
            for name in ("reference", "fast"):
                what = f"{precision} {name}"
                chain = run_chain(bundle, made, frames, truth, reference=name == "reference", advance=_named(step, what))
                row = compare(precision, name, chain, base)
                row["limits"] = limits_of(bundle, precision)
                row["broken"] = broken(row, row["limits"])
                rows.append({**row, "verdict": "ok" if not row["broken"] else "; ".join(row["broken"])})
    parity = bundle.manifest["metrics"].get("parity", {})
    notes = [f"torch against ONNX Runtime, at export: {', '.join(f'{k} {v:.2g}' for k, v in parity.items())}"] if parity else []
    if device.flavour != "ort":
        notes.append(f"{device.name}: ONNX Runtime computed these graphs; engines are judged on the device itself")
    options = " ".join(f"--precision {p}" for p in precisions)
    command = f"percodec verify {bundle.name} --data {data.name} --target {device.name} {options}"
    result = report(
        "verify", command, {"name": data.name, "pictures": len(frames), "bundle": bundle.name, "target": device.name}, rows, notes
    )
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        figure = args.out / "verify.png"
        plot("verify", rows, figure, f"{bundle.name}: cost against FP32; dashed: the limit")
        write_report(result, args.out, [figure])
    print(json.dumps(result) if args.json else render_table(rows) + "".join(f"{n}\n" for n in notes), end="\n" if args.json else "")
    return int(any(r["broken"] for r in rows))


def _sensitivity(
    args: argparse.Namespace, bundle: Bundle, graphs: list[str], plan: Any, calibration: Any, frames: list[Any], step: Progress
) -> int:
    from percodec.export.engines.build import Calibration, source_graph
    from percodec.export.engines.sensitivity import sensitivity
    from percodec.export.evaluate.report import render_table

    shown = Calibration(bundle, frames[:8])  # only to encode them: ranges come from the calibration set
    rows = []
    for graph in graphs:
        data, inputs = source_graph(bundle, graph), shown.inputs(graph)
        found = sensitivity(data, plan, calibration.ranges(graph), inputs, _named(step, f"sensitivity {graph}"))
        rows += [{"graph": graph, **row} for row in found]
    print(json.dumps(rows) if args.json else render_table(rows), end="\n" if args.json else "")
    return 0


def _kept(bundle: Bundle, graph: str, plan: Any, calibration: Any, limit: float, step: Progress) -> Any:
    from dataclasses import replace

    from percodec.export.engines.build import source_graph
    from percodec.export.engines.sensitivity import keep_list

    if not plan.quantized:
        return plan
    inputs = calibration.inputs(graph)[:8]
    if not inputs:
        raise UsageError("--max-damage needs frames to try on: give --calibrate")
    data = source_graph(bundle, graph)
    keep, _ = keep_list(data, plan, calibration.ranges(graph), inputs, limit, _named(step, f"sensitivity {graph}"))
    return replace(plan, keep=(*plan.keep, *keep))


def _spread(count: int, wanted: int | None) -> list[int]:
    if wanted is not None and wanted < 1:
        raise UsageError(f"at least 1 frame is needed, got {wanted}")
    few = count if wanted is None else min(wanted, count)
    return [k * count // few for k in range(few)]


def _fit(bundle: Bundle, image: Any) -> Any:
    from percodec.export.data import fitted

    return fitted(image, bundle.frame_height, bundle.frame_width)


def _frames(bundle: Bundle, spec: str | None, count: int) -> list[Any]:
    if spec is None:
        return []
    from percodec.export.data import load

    data = load(spec)
    return [_fit(bundle, data.images[k]) for k in _spread(len(data), count)]


def _named(step: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, of: step(what, done, of)


def _say(quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else print(text, file=sys.stderr, flush=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A bar per phase on a terminal; silent otherwise."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=of)
            bars.update(tasks[what], completed=done, total=of, visible=done < of)

        yield step


__all__ = ["build", "configure_build", "configure_verify", "verify"]
