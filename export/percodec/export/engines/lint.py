"""Rules that a graph must keep to be built, and to be fast, on a target. Each was learned from a build that failed or went wrong.

`lint(data, target)` returns what is broken; a rule is a name, what is wrong where, and how to fix it. Errors stop `percodec build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from percodec.export.engines.onnx_graph import CONVOLUTIONS, consumers, float_tensors, initializers, parse, producers
from percodec.export.engines.precision import SMALLEST_SCALE
from percodec.sdk.targets import Target

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_SHAPE_FROM_DATA = ("NonZero", "Unique", "Compress", "NonMaxSuppression", "Loop", "If", "Scan", "TopK")
_FP8 = (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    rule: str
    severity: str
    where: str
    problem: str
    fix: str

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity}: {self.rule} at {self.where}: {self.problem}; {self.fix}"


class Graph(NamedTuple):
    """A model and its look-ups."""

    model: ModelProto
    target: Target
    before: dict[str, NodeProto]
    after: dict[str, list[NodeProto]]
    weights: dict[str, TensorProto]
    types: dict[str, int]

    def nodes(self, *kinds: str) -> Iterator[NodeProto]:
        return (n for n in self.model.graph.node if n.op_type in kinds)

    def array(self, name: str) -> Any:
        return numpy_helper.to_array(self.weights[name])


Where = Iterator[tuple[str, str]]


def _opset(g: Graph) -> Where:
    low, high = g.target.opsets
    for entry in g.model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield "the model", f"operator domain {entry.domain!r}"
        elif not low <= entry.version <= high:
            yield "the model", f"opset {entry.version}, {g.target.name} takes {low}..{high}"


def _int32_bias(g: Graph) -> Where:
    if g.target.flavour != "ort":
        for node in g.nodes("DequantizeLinear"):
            if g.types.get(node.input[0]) == TensorProto.INT32:
                yield node.name, "DequantizeLinear of INT32, which TensorRT's parser refuses"


def _loose_constant(g: Graph) -> Where:
    for name, tensor in g.weights.items():
        if tensor.data_type in (TensorProto.INT8, *_FP8) and len(tensor.dims) > 1:
            for node in g.after.get(name, []):
                integer = node.op_type == "QLinearConv" and g.target.flavour == "ort"
                if node.op_type not in _QDQ and not integer:
                    yield node.name, f"reads the quantized constant {name} without DequantizeLinear"


def _symmetric(g: Graph) -> Where:
    if g.target.flavour == "ort":
        return
    for node in g.nodes(*_QDQ):
        zero = g.weights.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.data_type in _FP8 or zero.data_type == TensorProto.INT32:
            continue
        if zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
            yield node.name, "a zero point other than 0, or unsigned values"


def _pair_before_relu(g: Graph) -> Where:
    if g.target.flavour == "ort":
        return
    for node in g.nodes("Relu"):
        dequantize = g.before.get(node.input[0])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        quantize = g.before.get(dequantize.input[0])
        conv = g.before.get(quantize.input[0]) if quantize is not None and quantize.op_type == "QuantizeLinear" else None
        if conv is not None and conv.op_type in CONVOLUTIONS:
            yield node.name, f"a Q/DQ pair stands between {conv.name} and its ReLU: one more kernel, one more rounding"


def _transposed(g: Graph) -> Where:
    for node in g.nodes("ConvTranspose"):
        if any(g.before[i].op_type == "DequantizeLinear" for i in node.input[:2] if i in g.before):
            yield node.name, "a quantized ConvTranspose runs as float behind a dequantize kernel: larger and less exact"


def _fp32_parts(g: Graph) -> Where:
    for node in g.nodes("Greater", "ArgMax"):
        for name in node.input:
            if g.types.get(name) == TensorProto.FLOAT16:
                yield node.name, f"{node.op_type} compares FP16 numbers: symbols or labels would depend on rounding"
                break
    for node in g.nodes("Gather"):
        if g.types.get(node.input[0]) == TensorProto.FLOAT16:
            yield node.name, "centers are looked up in FP16"


def _small_scale(g: Graph) -> Where:
    for node in g.nodes(*_QDQ):
        tensor = g.weights.get(node.input[1])
        if tensor is not None and tensor.data_type == TensorProto.FLOAT16:
            low = float(np.abs(numpy_helper.to_array(tensor).astype(np.float32)).min())
            if low < SMALLEST_SCALE:
                yield node.name, f"an FP16 scale of {low:.2e} is subnormal (below {SMALLEST_SCALE:.2e})"


def _fp16_range(g: Graph) -> Where:
    largest = float(np.finfo(np.float16).max)
    for name, tensor in g.weights.items():
        if tensor.data_type == TensorProto.FLOAT16:
            values = np.abs(numpy_helper.to_array(tensor).astype(np.float32))
            if values.size and values.max() >= largest:
                yield name, f"{int((values >= largest).sum())} FP16 weights are at the end of the range"


def _fp8_hardware(g: Graph) -> Where:
    if not g.target.fp8:
        for name, tensor in g.weights.items():
            if tensor.data_type in _FP8:
                yield name, f"float8 needs compute capability 8.9 or later; {g.target.name} is {g.target.capability or 'a CPU'}"
                return


def _static(g: Graph) -> Where:
    if g.target.flavour == "ort":
        return
    for value in (*g.model.graph.input, *g.model.graph.output):
        for k, dim in enumerate(value.type.tensor_type.shape.dim):
            if k > 0 and not dim.dim_value:
                yield value.name, f"axis {k} is dynamic"


def _data_shapes(g: Graph) -> Where:
    for node in g.nodes(*_SHAPE_FROM_DATA):
        yield node.name, f"{node.op_type}: shapes or control flow that depend on data cannot be captured"


def _uint8_input(g: Graph) -> Where:
    if g.target.flavour == "ort":
        return
    for value in g.model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            for node in g.after.get(value.name, []):
                if node.op_type != "Cast":
                    yield node.name, f"{node.op_type} reads the uint8 input {value.name}; TensorRT takes uint8 into Cast only"


def _uint8_inside(g: Graph) -> Where:
    if g.target.flavour == "ort":
        return
    outputs = {o.name for o in g.model.graph.output}
    for node in g.nodes("Cast"):
        if g.types.get(node.output[0]) == TensorProto.UINT8 and (node.output[0] not in outputs or g.after.get(node.output[0])):
            yield node.name, "uint8 inside the network; TensorRT knows it at the border only"


class Rule(NamedTuple):
    """A check with a reason and a fix."""

    name: str
    severity: str
    check: Callable[[Graph], Where]
    fix: str


RULES: tuple[Rule, ...] = (
    Rule("opset-window", "error", _opset, "export with opset 20 and operators of the default domain"),
    Rule("int32-bias", "error", _int32_bias, 'make it with activations="int8", which leaves biases as they are'),
    Rule("loose-constant", "error", _loose_constant, "put DequantizeLinear behind it, or do not quantize this operator"),
    Rule("symmetric-int8", "error", _symmetric, 'make it with activations="int8"'),
    Rule("pair-before-relu", "warning", _pair_before_relu, "exclude convolution outputs from quantization"),
    Rule("quantized-deconvolution", "warning", _transposed, "leave ConvTranspose out of quantization"),
    Rule("fp32-decisions", "error", _fp32_parts, "keep quantizer, center look-up and argmax in FP32"),
    Rule("subnormal-scale", "warning", _small_scale, "raise the scale to 2**-14 and quantize again, or keep this layer in FP32"),
    Rule("fp16-range", "warning", _fp16_range, "keep this layer in FP32"),
    Rule("fp8-hardware", "error", _fp8_hardware, "choose int8+fp16 for this target"),
    Rule("static-shapes", "error", _static, "export with a fixed frame size; only the batch axis may be dynamic"),
    Rule("data-dependent", "error", _data_shapes, "replace the operator by one of fixed shape"),
    Rule("uint8-into-cast", "error", _uint8_input, "cast first, then transpose"),
    Rule("uint8-inside", "error", _uint8_inside, "keep the tensor in int32 or float between the network's ends"),
)


def lint(data: bytes, target: Target) -> list[Finding]:
    """All broken rules, errors first. Raises `ExportError` where `data` is no ONNX model."""
    model = parse(data)
    graph = Graph(model, target, producers(model), consumers(model), initializers(model), float_tensors(model))
    found = [Finding(r.name, r.severity, where, problem, r.fix) for r in RULES for where, problem in r.check(graph)]
    return sorted(found, key=lambda f: f.severity)


__all__ = ["RULES", "Finding", "Graph", "Rule", "lint"]
