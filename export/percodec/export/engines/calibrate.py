"""What values every tensor takes on real frames: the ranges that INT8 and FP8 scales are made of.

    minmax       the extremes seen: exact, and at the mercy of one outlier
    percentile   a share of the mass (99.99 %): cuts outliers, for latents the usual choice
    entropy      the threshold that keeps most information (Kullback-Leibler)

Ranges are kept as JSON with the digests of graph and frames, so that a vehicle can build from them without the frames. A calibration set is
judged before it is used.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from percodec.export.engines.onnx_graph import float_tensors
from percodec.runtime.engines.onnxruntime import onnxruntime
from percodec.sdk.errors import DataError

METHODS = ("minmax", "percentile", "entropy")
FEWEST, ENOUGH = 4, 16
_DARK, _FLAT = 3.0, 1.0  # grey levels

Array = NDArray[np.uint8]
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Ranges:
    """`limits`: (low, high) per tensor. `frames_sha256` says what they were measured on, `graph_sha256` in which graph."""

    limits: dict[str, tuple[float, float]]
    method: str
    frames: int
    frames_sha256: str
    graph_sha256: str

    def save(self, path: Path) -> None:
        """As JSON, by a rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1) + "\n")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Ranges | None:
        """None where there is no file or it cannot be read: measure again."""
        try:
            stored = json.loads(path.read_text())
            limits = {str(k): (float(a), float(b)) for k, (a, b) in stored["limits"].items()}
            return cls(limits, stored["method"], int(stored["frames"]), stored["frames_sha256"], stored["graph_sha256"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def judge(frames: Sequence[Array], height: int, width: int) -> list[str]:
    """Warnings about a calibration set of frames [H,W,3]. Raises `DataError` where none can come of it."""
    if len(frames) == 0:
        raise DataError(f"the calibration set is empty: give at least {FEWEST} frames of {width}x{height}, {ENOUGH} or more are better")
    if len(frames) < FEWEST:
        raise DataError(f"the calibration set has {len(frames)} frame(s), at least {FEWEST} are needed and {ENOUGH} or more are better")
    for k, frame in enumerate(frames):
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            shape = "x".join(map(str, frame.shape))
            raise DataError(f"calibration frame {k} is {frame.dtype} {shape}, the bundle wants uint8 {height}x{width}x3; resize it first")
    means, spreads = [float(f.mean()) for f in frames], [float(f.std()) for f in frames]
    if max(spreads) < _FLAT:
        what = "black" if max(means) < _DARK else "of one colour"
        raise DataError(f"every calibration frame is {what}: ranges measured on them would clip every real picture; give real frames")
    warnings = []
    dark = sum(s < _FLAT for s in spreads)
    if dark:
        warnings.append(f"{dark} of {len(frames)} calibration frames show nothing (one colour); they add nothing to the ranges")
    if len(frames) < ENOUGH:
        warnings.append(f"{len(frames)} calibration frames are few ({ENOUGH} or more are better): ranges may be too narrow")
    return warnings


def measure(
    model: ModelProto,
    inputs: Sequence[Array],
    method: str = "minmax",
    cache: Path | None = None,
    advance: Advance = lambda done, of: None,
) -> Ranges:
    """Ranges of every float tensor of `model` over `inputs` (each what the graph takes, with its batch axis).

    `cache`: of `Ranges.save`. It is used when it was measured in this graph by this method on these inputs, or on any where none are given.
    Raises `DataError` for an unknown method, or without inputs and cache.
    """
    if method not in METHODS:
        raise DataError(f"calibration method {method!r} is not known; there are {', '.join(METHODS)}")
    graph, frames = graph_digest(model), _sha256(inputs)
    kept = Ranges.load(cache) if cache is not None else None
    if kept is not None and (kept.graph_sha256, kept.method) == (graph, method) and (not inputs or kept.frames_sha256 == frames):
        advance(1, 1)
        return kept
    if not inputs:
        raise DataError(f"the calibration set is empty and no ranges are kept for this graph: give at least {FEWEST} real frames")
    return Ranges(_collect(model, inputs, method, advance), method, len(inputs), frames, graph)


def graph_digest(model: ModelProto) -> str:
    """What `Ranges.graph_sha256` says of a graph."""
    return _sha256([model.SerializeToString(deterministic=True)])


def narrower(some: Ranges, every: Ranges) -> float:
    """By how much `some` ranges are narrower than `every`, mean over tensors: what a set of frames still adds when it grows."""
    shares = [1 - (some.limits[k][1] - some.limits[k][0]) / (b - a) for k, (a, b) in every.limits.items() if b > a and k in some.limits]
    return float(np.mean(shares)) if shares else 0.0


def _collect(model: ModelProto, inputs: Sequence[Array], method: str, advance: Advance) -> dict[str, tuple[float, float]]:
    onnxruntime()  # before its parts: it comes with telemetry on
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, items: Sequence[Array]) -> None:
            self.items: Iterator[Array] = iter(items)

        def get_next(self) -> dict[str, Array] | None:
            item = next(self.items, None)
            return None if item is None else {name: item}

    name = model.graph.input[0].name
    kinds = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}
    options: dict[str, Any] = {"percentile": 99.99} if method == "percentile" else {}
    types = float_tensors(model)
    operators = sorted({n.op_type for n in model.graph.node if any(types.get(o) == TensorProto.FLOAT for o in n.output)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        maker = create_calibrator(
            path, operators, str(Path(folder) / "augmented.onnx"), kinds[method], extra_options=options, providers=["CPUExecutionProvider"]
        )
        # Frame by frame: a histogram calibrator would otherwise hold every activation of every frame at once.
        for k, item in enumerate(inputs):
            maker.collect_data(Reader([item]))
            advance(k + 1, len(inputs))
        found = maker.compute_data()
    limits = {k: tuple(float(np.ravel(v)[0]) for v in data.range_value) for k, data in found.items()}
    return {k: (low, high) for k, (low, high) in limits.items()}


def _sha256(parts: Sequence[bytes | Array]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


__all__ = ["ENOUGH", "FEWEST", "METHODS", "Ranges", "graph_digest", "judge", "measure", "narrower"]
