"""Precision written into the graph: FP16 by typed casts, INT8 and FP8 by explicit Q/DQ. Builders get no precision flags.

    fp32        as exported
    fp16        every convolution in FP16; quantizer, center look-up, argmax and what turns numbers into pictures stay FP32
    int8        Q/DQ before convolutions, the rest FP32
    int8+fp16   Q/DQ before convolutions, the rest FP16
    fp8+fp16    the same with float8 e4m3 (compute capability 8.9 and later)

The same file is for ONNX Runtime, TensorRT 10.3 .. 11 and TensorRT-RTX, with one exception: `activations="uint8"` (zero points, residual
sums and ReLU quantized too) is what ONNX Runtime's integer kernels want and TensorRT refuses; "int8" (symmetric) is what TensorRT wants.

What never is quantized: convolutions that read pictures or decide the answer, transposed convolutions, and what `Plan.keep` names.
An encoder of blocks is the exception: for ONNX Runtime it becomes integers from end to end (`percodec.export.engines.integer`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from percodec.export.engines.calibrate import Ranges
from percodec.export.engines.integer import integer_encoder
from percodec.export.engines.integer_refined import integer_refined
from percodec.export.engines.onnx_graph import (
    CONVOLUTIONS,
    ends,
    float_tensors,
    initializers,
    label,
    matching,
    plain,
    producers,
    serialized,
    tail,
)
from percodec.runtime.engines.onnxruntime import onnxruntime
from percodec.sdk.errors import ExportError, UsageError

PRECISIONS = ("fp32", "fp16", "int8", "int8+fp16", "fp8+fp16")
ACTIVATIONS = ("int8", "uint8")
OPSETS = (19, 20)  # FP16 scales need 19; the parser of TensorRT 10.0 .. 10.3 ends at 20
SMALLEST_SCALE = 2.0**-14  # below it an FP16 scale is subnormal
_FP8_MAX, _INT8_MAX = 448.0, 127.0
# Without arithmetic of their own: they keep the type they are given.
_TRANSPARENT = ("DepthToSpace", "Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Plan:
    """What to make of a graph. `keep`: regular expressions over node and weight names that stay FP32; each must find something."""

    precision: str
    keep: tuple[str, ...] = field(default=())
    activations: str = "int8"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision {self.precision!r} is not known; there are {', '.join(PRECISIONS)}")
        if self.activations not in ACTIVATIONS:
            raise UsageError(f"activations {self.activations!r} is not known; there are {', '.join(ACTIVATIONS)}")

    @property
    def quantized(self) -> bool:
        """Needs ranges."""
        return self.precision.startswith(("int8", "fp8"))

    @property
    def half(self) -> bool:
        """FP16 where nothing else is asked for."""
        return self.precision.endswith("fp16")


@dataclass(frozen=True)
class Explicit:
    """The graph and what was done: convolutions by type, FP16 weights out of range, scales raised, layers kept."""

    data: bytes
    report: dict[str, Any]


def make_explicit(data: bytes, plan: Plan, ranges: Ranges | None = None) -> Explicit:
    """One graph in one precision.

    Raises `ExportError` where a keep pattern finds nothing, the opset is outside 19..20, ranges are missing, or nothing was quantized.
    """
    model = plain(data)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ExportError(f"opset {opset}: explicit precision needs {OPSETS[0]} or {OPSETS[1]}; export the graph with opset 20")
    kept = matching(model, plan.keep)
    first, deciding = ends(model)
    behind = tail(model, deciding)
    if plan.quantized:
        if ranges is None:
            raise ExportError(f"{plan.precision} needs ranges measured on real frames: calibrate first")
        forms = (integer_encoder, integer_refined) if plan.activations == "uint8" and not kept else ()
        whole = next((made for made in (form(model, ranges) for form in forms) if made is not None), None)
        if whole is not None:
            return Explicit(serialized(whole), {"precision": plan.precision, "keep": [], "convolutions": convolutions(whole)})
        transposed = {n.name for n in model.graph.node if n.op_type == "ConvTranspose"}
        model = _quantize(model, plan, ranges, kept | first | deciding | behind | transposed)
    report: dict[str, Any] = {"precision": plan.precision, "keep": sorted(kept)}
    if plan.half:
        report |= _halve(model, kept | _upstream(model, first), behind)
    report["convolutions"] = convolutions(model)
    if plan.quantized and not any(k in report["convolutions"] for k in ("int8", "fp8")):
        raise ExportError(f"{plan.precision} was asked for and nothing could be quantized: every convolution is kept or reads pictures")
    return Explicit(serialized(model), report)


def convolutions(model: ModelProto) -> dict[str, int]:
    """How many convolutions compute in which type, by what their input comes from."""
    before, types = producers(model), float_tensors(model)
    names: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
    integers: dict[int, str] = {TensorProto.FLOAT8E4M3FN: "fp8", TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "QLinearConv":
            found["int8"] = found.get("int8", 0) + 1
        if node.op_type not in CONVOLUTIONS:
            continue
        makers = [before.get(name) for name in node.input[:2]]
        first = makers[0]
        quantized = first is not None and all(m is not None and m.op_type == "DequantizeLinear" for m in makers)
        kind = integers[types[first.input[0]]] if first is not None and quantized else names[types[node.input[0]]]
        found[kind] = found.get(kind, 0) + 1
    return found


def _upstream(model: ModelProto, layers: set[str]) -> set[str]:
    """What makes the pictures into the first convolution's input, without that convolution."""
    before = producers(model)
    todo, found = [n.input[0] for n in model.graph.node if n.name in layers], set()
    while todo:
        node = before.get(todo.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            todo += node.input
    return found


def _quantize(model: ModelProto, plan: Plan, ranges: Ranges, excluded: set[str]) -> ModelProto:
    onnxruntime()  # before its parts: it comes with telemetry on
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    symmetric = plan.activations == "int8" or plan.precision.startswith("fp8")
    smallest = _FP8_MAX if plan.precision.startswith("fp8") else _INT8_MAX
    operators = list(CONVOLUTIONS) if symmetric else [*CONVOLUTIONS, "Add", "Mul", "Relu", "Resize"]
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": False,
        "DedicatedQDQPair": False,
        # TensorRT's parser knows no int32 behind DequantizeLinear; ONNX Runtime's integer kernels want it.
        "QuantizeBias": not symmetric,
        "MinimumRealRange": 2 * smallest * SMALLEST_SCALE * 1.001,
    }
    if symmetric:
        # A pair between a convolution and its ReLU would be one more kernel and a second rounding.
        options["OpTypesToExcludeOutputQuantization"] = [*CONVOLUTIONS, "Add", "Resize", "Relu"]
    limits = {k: TensorData(lowest=np.float32(a), highest=np.float32(b)) for k, (a, b) in ranges.limits.items()}
    source = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    names = [n.name for n in model.graph.node if n.name not in excluded and n.op_type in operators]
    if not any(n.op_type in CONVOLUTIONS and n.name in names for n in model.graph.node):
        raise ExportError(f"{plan.precision} was asked for and nothing could be quantized: every convolution is kept or reads pictures")
    maker = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copy.deepcopy(model)),
        True,
        False,
        QuantType.QInt8,
        QuantType.QInt8 if symmetric else QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, limits),
        names,
        [],
        operators,
        options,
    )
    maker.quantize_model()
    maker.model.topological_sort()
    made: ModelProto = maker.model.model
    others = [o for o in made.opset_import if o.domain not in ("", "ai.onnx")]
    for entry in others:  # the quantizer announces a domain that it does not use here
        made.opset_import.remove(entry)
    del made.graph.value_info[:]
    made.producer_name, made.producer_version = model.producer_name, ""
    if plan.precision.startswith("fp8"):
        _to_float8(made, source)
    return made


def _to_float8(model: ModelProto, source: dict[str, NDArray[Any]]) -> None:
    """Int8 pairs become float8 e4m3 pairs: scales so that the largest value is 448, weights rounded anew from FP32."""
    import ml_dtypes

    arrays = initializers(model)
    scales: dict[str, NDArray[np.float32]] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        value, scale, zero = node.input
        if scale not in scales:
            scales[scale] = numpy_helper.to_array(arrays[scale]).astype(np.float32) * np.float32(_INT8_MAX / _FP8_MAX)
            arrays[scale].CopyFrom(numpy_helper.from_array(scales[scale], scale))
        if arrays[zero].data_type == TensorProto.INT8:
            shape = list(arrays[zero].dims)
            arrays[zero].CopyFrom(helper.make_tensor(zero, TensorProto.FLOAT8E4M3FN, shape, np.zeros(int(np.prod(shape)), np.float32)))
        if value in arrays and arrays[value].data_type == TensorProto.INT8:
            weight = source[value.removesuffix("_quantized")]
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [1] * weight.ndim
            if scales[scale].size > 1:
                shape[axis] = -1
            rounded = np.clip(weight / scales[scale].reshape(shape), -_FP8_MAX, _FP8_MAX).astype(ml_dtypes.float8_e4m3fn)
            arrays[value].CopyFrom(helper.make_tensor(value, TensorProto.FLOAT8E4M3FN, weight.shape, rounded.tobytes(), raw=True))


class _Types:
    """Which float type each tensor has, and one Cast per tensor and direction."""

    def __init__(self, model: ModelProto) -> None:
        self.floats = {k for k, v in float_tensors(model).items() if v == TensorProto.FLOAT}
        self.weights = initializers(model)
        self.home: dict[str, int] = {}
        self.made: dict[tuple[str, int], str] = {}
        self.new: list[TensorProto] = []
        self.nodes: list[NodeProto] = []
        self.overflow = self.underflow = self.casts = 0

    def as_type(self, name: str, kind: int) -> str:
        if name not in self.floats or self.home.get(name, TensorProto.FLOAT) == kind:
            return name
        if (name, kind) in self.made:
            return self.made[name, kind]
        suffix = "fp16" if kind == TensorProto.FLOAT16 else "fp32"
        other = f"{name}_{suffix}"
        if name in self.weights:
            self.new.append(self._half(self.weights[name], other))
        else:
            self.nodes.append(helper.make_node("Cast", [name], [other], name=f"{other}_cast", to=kind))
            self.casts += 1
        self.made[name, kind] = other
        return other

    def _half(self, tensor: TensorProto, name: str) -> TensorProto:
        values = numpy_helper.to_array(tensor)
        largest = float(np.finfo(np.float16).max)
        self.overflow += int((np.abs(values) > largest).sum())
        half = np.clip(values, -largest, largest).astype(np.float16)
        self.underflow += int(((half == 0) & (values != 0)).sum())
        return numpy_helper.from_array(half, name)


def _halve(model: ModelProto, kept: set[str], behind: set[str]) -> dict[str, Any]:
    """FP32 -> FP16 in place, apart from `kept`, and behind the deciding convolutions all but what only moves values."""
    types = _Types(model)
    for node in model.graph.node:
        half = node.name not in kept and node.op_type not in ("Cast", "Greater", "Gather", "ArgMax")
        if half and node.op_type in _TRANSPARENT and node.name in behind:
            half = types.home.get(node.input[0]) == TensorProto.FLOAT16
        elif node.name in behind and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            half = False
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        for k, name in enumerate(node.input):
            fixed = node.op_type == "Resize" and k in (1, 2)  # region and scales are FP32 by the specification
            node.input[k] = name if fixed else types.as_type(name, kind)
        types.nodes.append(node)
        if half:
            types.home |= {name: TensorProto.FLOAT16 for name in node.output if name in types.floats}
    for value in model.graph.output:
        if types.home.get(value.name) == TensorProto.FLOAT16:
            maker = next(n for n in types.nodes if value.name in n.output)
            inner = f"{value.name}_fp16"
            for node in types.nodes:
                node.input[:] = [inner if i == value.name else i for i in node.input]
            maker.output[list(maker.output).index(value.name)] = inner
            types.nodes.append(helper.make_node("Cast", [inner], [value.name], name=f"{value.name}_cast", to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(types.nodes)
    model.graph.initializer.extend(types.new)
    used = {name for node in model.graph.node for name in node.input}
    keep = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(keep)
    del model.graph.value_info[:]
    return {"casts": types.casts, "fp16_overflow": types.overflow, "fp16_underflow": types.underflow}


def layers(data: bytes) -> list[tuple[str, str]]:
    """(node name, label) of every convolution that int8 may touch, in graph order."""
    model = plain(data)
    first, deciding = ends(model)
    return [
        (n.name, label(n, model))
        for n in model.graph.node
        if n.op_type in CONVOLUTIONS and n.op_type != "ConvTranspose" and n.name not in first | deciding
    ]


__all__ = ["ACTIVATIONS", "PRECISIONS", "SMALLEST_SCALE", "Explicit", "Plan", "convolutions", "layers", "make_explicit"]
