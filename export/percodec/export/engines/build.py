"""A bundle's graphs in one precision for one target: calibrate, write the precision in, lint, build, record. No torch here.

    source graphs -> ranges (kept in engines/calibration) -> explicit ONNX -> lint -> engine -> engines/TARGET-PRECISION/

For the target `host` the engine is the explicit ONNX itself, for ONNX Runtime, its sides free again as the bundle's are; other engines are
of the bundle's frame. A camera's graph (`camera_nv12_1920x1080`) is made from its name and the bundle's frame; it is FP32, of batch 1, and
never on a DLA, whatever is asked for the graphs beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.engines.calibrate import ENOUGH, Ranges, judge, measure, narrower
from percodec.export.engines.camera_graph import camera_graph
from percodec.export.engines.free_shapes import bound, freed
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.lint import Finding, lint
from percodec.export.engines.onnx_graph import fused, parse, plain
from percodec.export.engines.precision import Explicit, Plan, convolutions, make_explicit
from percodec.export.engines.tensorrt import build_engine, cuda_of, io_of
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, write_engine
from percodec.sdk.camera import CameraFormat, is_camera_graph
from percodec.sdk.errors import ExportError, UsageError, reason
from percodec.sdk.targets import Target

Array = NDArray[np.uint8]
Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


def source_graph(bundle: Bundle, graph: str) -> bytes:
    """A graph of the bundle, "encoder+head_..." (both as one), or a camera's, made for the bundle's frame."""
    if is_camera_graph(graph):
        camera = CameraFormat.from_graph(graph)
        return camera_graph(camera.format, camera.height, camera.width, bundle.frame_height, bundle.frame_width, bundle.fit)
    first, plus, second = graph.partition("+")
    return fused(bundle.graph(first), bundle.graph(second)) if plus else bundle.graph(graph)


def bound_graph(bundle: Bundle, graph: str) -> bytes:
    """`source_graph`, but a camera's, for a batch of 1 and the bundle's frame: every side a number."""
    infos = [bundle.graphs[name] for name in graph.split("+")]
    shapes = {tensor.name: (1, *tensor.shape) for info in infos for tensor in (*info.inputs, *info.outputs)}
    return bound(source_graph(bundle, graph), shapes)


def plan_for(target: Target, precision: str, keep: Sequence[str] = ()) -> Plan:
    """What this precision means on this target. Raises `UsageError` where it cannot run there."""
    if precision not in target.precisions:
        raise UsageError(f"{target.name} ({target.what}) runs {', '.join(target.precisions)}, not {precision}")
    return Plan(precision, tuple(keep), "uint8" if target.flavour == "ort" else "int8")


@dataclass
class Calibration:
    """Frames of the bundle's size and what each graph reads of them; ranges are measured when first asked for.

    Ranges that the bundle keeps are used. `keep`: measured ones are kept there, too, beside the engines.
    """

    bundle: Bundle
    frames: Sequence[Array] = ()
    method: str = "minmax"
    say: Say = lambda text: None
    progress: Progress = lambda what, done, of: None
    keep: bool = False

    def __post_init__(self) -> None:
        self._symbols: list[Array] | None = None
        self._found: dict[str, Ranges] = {}
        if self.frames:
            for warning in judge(self.frames, self.bundle.frame_height, self.bundle.frame_width):
                self.say(f"warning: {warning}")

    def ranges(self, graph: str) -> Ranges:
        """Raises `DataError` where there are neither frames nor kept ranges."""
        if graph not in self._found:
            self._found[graph] = self._measured(graph)
        return self._found[graph]

    def _measured(self, graph: str) -> Ranges:
        model = plain(source_graph(self.bundle, graph))
        cache = self.bundle.path / "engines" / "calibration" / f"{graph}-{self.method}.json"
        inputs = self.inputs(graph)
        found = measure(model, inputs, self.method, cache, lambda done, of: self.progress(f"calibrate {graph}", done, of))
        if self.keep and inputs:
            try:
                found.save(cache)
            except OSError as error:
                self.say(f"warning: the ranges of {graph} are not kept: {reason(error)}")
        if 0 < len(inputs) < ENOUGH:
            lost = narrower(measure(model, inputs[::2], self.method), found)
            self.say(f"warning: {graph}: every second frame alone gives ranges {lost:.1%} narrower; {ENOUGH} frames or more settle them")
        return found

    def inputs(self, graph: str) -> list[Array]:
        """What the graph takes, for each frame."""
        if not self.frames:
            return []
        if graph.startswith("encoder"):
            return [np.ascontiguousarray(f[None]) for f in self.frames]
        if self._symbols is None:
            encode = graph_function(self.bundle.graph("encoder"))
            self._symbols = [encode(f[None]) for f in self.frames]
        return self._symbols


def explicit_graph(bundle: Bundle, graph: str, plan: Plan, calibration: Calibration) -> Explicit:
    """One graph of a bundle, bound to its frame's size, with its precision written in; a camera's stays FP32."""
    if is_camera_graph(graph):
        data = source_graph(bundle, graph)
        return Explicit(data, {"precision": "fp32", "keep": [], "convolutions": convolutions(parse(data))})
    return make_explicit(bound_graph(bundle, graph), plan, calibration.ranges(graph) if plan.quantized else None)


def build_graph(
    bundle: Bundle,
    graph: str,
    target: Target,
    plan: Plan,
    calibration: Calibration,
    *,
    batches: Sequence[int] = (1,),
    level: int | None = None,
    dla_core: int | None = None,
    dry_run: bool = False,
    say: Say = lambda text: None,
    progress: Progress = lambda what, done, of: None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One engine into the bundle; returns a row for people: graph, precision, convolutions by type, megabytes, seconds.

    Raises `ExportError` where lint finds an error or the build is not what was asked for, `BackendError` without the flavour.
    """
    camera = is_camera_graph(graph)
    if camera:
        batches, dla_core = (1,), None
    made = explicit_graph(bundle, graph, plan, calibration)
    if target.flavour == "ort" and not camera:
        made = replace(made, data=freed(made.data))
    findings = lint(made.data, target)
    _refuse(findings, graph, target)
    for finding in findings:
        say(str(finding))
    report: dict[str, Any] = {"explicit": made.report, "io": io_of(made.data), "lint": [f.as_dict() for f in findings], **(extra or {})}
    row: dict[str, Any] = {"graph": graph, "target": target.name, "precision": made.report["precision"]}
    source = hashlib.sha256(source_graph(bundle, graph)).hexdigest()
    explicit = hashlib.sha256(made.data).hexdigest()
    if target.flavour == "ort" or dry_run:
        data, version, cuda = made.data, "onnx", ""
        flags: tuple[str, ...] = () if camera else (f"activations={plan.activations}",)
        profiles: tuple[str, ...] = ()
        row |= {"convolutions": made.report["convolutions"], "layers": None, "seconds": None}
    else:

        def step(phase: str, done: int, of: int) -> bool:
            progress(f"{graph}: {phase}", done, of)
            return True

        cache = bundle.path / "engines" / "calibration" / f"timing-{target.name}.cache"
        built = build_engine(
            made.data, target, made.report["precision"], batches=batches, level=level, dla_core=dla_core, timing_cache=cache, progress=step
        )
        data, flags, profiles, version, cuda = built.data, built.flags, built.profiles, built.version, cuda_of(target.flavour)
        report |= built.report()
        counts = dict(report["histogram"])
        row |= {"layers": counts.pop("layers"), "convolutions": counts, "seconds": round(built.seconds, 2)}
    row["megabytes"] = round(len(data) / 1e6, 2)
    if not dry_run:
        if not camera:
            report["selftest"] = selftest_limits(bundle, graph, made.data)
        key = EngineKey(
            bundle=bundle.digest,
            graph=graph,
            source_sha256=source,
            onnx_sha256=explicit,
            precision=plan.precision,
            target=target.name,
            flavour=target.flavour,
            version=version,
            capability=target.capability,
            cuda=cuda,
            flags=flags,
            profiles=profiles,
        )
        row["record"] = str(write_engine(bundle.path, key, data, report).relative_to(bundle.path))
    return row


def selftest_limits(bundle: Bundle, graph: str, data: bytes) -> dict[str, float]:
    """How far the bundle's self-test vectors may be missed in this precision: twice what it does here, at least the bundle's own."""
    vectors, missed = bundle.selftest(), 0.0
    if graph in ("encoder", "head_segmentation"):
        run = graph_function(data, optimize=False)
        source, wanted = (vectors.frames, vectors.symbols) if graph == "encoder" else (vectors.symbols, vectors.labels)
        missed = max(float((run(np.ascontiguousarray(x[None]))[0] != y).mean()) for x, y in zip(source, wanted, strict=True))
    return {
        "max_symbol_disagreement": min(1.0, max(2 * missed, vectors.max_symbol_disagreement)),
        "min_label_agreement": max(0.0, 1 - max(2 * missed, 1 - vectors.min_label_agreement)),
    }


def _refuse(findings: list[Finding], graph: str, target: Target) -> None:
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        raise ExportError(f"{graph} breaks {len(errors)} rule(s) of {target.name}: {errors[0]}")


def default_graphs(bundle: Bundle) -> list[str]:
    """What a pipeline runs: encoder, decoder, the plain heads."""
    return [g for g in ("encoder", "decoder", "head_segmentation", "head_classification") if g in bundle.manifest["graphs"]]


def known_graphs(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """`names` checked against the bundle ("encoder+HEAD" for both as one). Raises `UsageError`."""
    have = list(bundle.manifest["graphs"])
    for name in names:
        if any(part not in have for part in name.split("+")) or ("+" in name and not name.startswith("encoder+head_")):
            raise UsageError(f"{name!r} is no graph of {bundle.name}; it has {', '.join(have)}, and encoder+HEAD makes one of two")
    return list(names)


def engine_folder(bundle: Bundle, target: Target, precision: str) -> Path:
    """Where the engines of a target and a precision are."""
    return bundle.path / "engines" / f"{target.name}-{precision}"


__all__ = [
    "Calibration",
    "bound_graph",
    "build_graph",
    "default_graphs",
    "engine_folder",
    "explicit_graph",
    "known_graphs",
    "plan_for",
    "selftest_limits",
    "source_graph",
]
