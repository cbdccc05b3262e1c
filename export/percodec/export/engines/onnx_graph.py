"""ONNX graphs as the precision passes want them: one float type, one batch norm less, convolutions by name. No torch here.

`plain` undoes what export did for size (weights stored in FP16), so that every pass starts from FP32; `fused` makes one graph of the
encoder and a head, the latent staying inside.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from percodec.sdk.errors import ExportError

CONVOLUTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def parse(data: bytes) -> ModelProto:
    """The model in `data`. Raises `ExportError` where it is none."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker have error types of their own
        raise ExportError(f"not a valid ONNX model: {str(error).splitlines()[0][:200]}; export it again") from error
    return model


def serialized(model: ModelProto) -> bytes:
    """The same bytes for the same model, checked in full. Raises `ExportError`."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"the graph became invalid: {str(error).splitlines()[0][:300]}") from error
    return bytes(model.SerializeToString(deterministic=True))


def plain(data: bytes) -> ModelProto:
    """FP32 throughout: stored FP16 weights widened, constants as initializers, batch norm folded, every node named."""
    model = parse(data)
    _constants_to_initializers(model)
    _widen(model)
    _fold_batch_norm(model)
    for k, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{k}"
    used = {name for node in model.graph.node for name in node.input}
    keep = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(keep)
    return model


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    """By name."""
    return {t.name: t for t in model.graph.initializer}


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Tensor name -> the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor name -> the nodes that read it."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def matching(model: ModelProto, patterns: Iterable[str]) -> set[str]:
    """Names of the nodes that a pattern finds, in the node's name or in a weight's. Raises `ExportError` for one that finds nothing."""
    weights, found = initializers(model), set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ExportError(f"pattern {pattern!r} is not a regular expression: {error}") from error
        hits = {n.name for n in model.graph.node if any(expression.search(w) for w in (n.name, *(i for i in n.input if i in weights)))}
        if not hits:
            some = ", ".join(label(n, model) for n in model.graph.node if n.op_type in CONVOLUTIONS)
            raise ExportError(f"pattern {pattern!r} matches no node and no weight; the convolutions are {some[:400]}")
        found |= hits
    return found


def label(node: NodeProto, model: ModelProto) -> str:
    """What people call a layer: its weight's name without the suffix, or the node's own name."""
    weights = initializers(model)
    names = [i for i in node.input if i in weights and i.endswith(("weight", "weight_fp16"))]
    return names[0].rsplit(".", 1)[0] if names else node.name


def ends(model: ModelProto) -> tuple[set[str], set[str]]:
    """Convolutions that read pictures, and convolutions that decide the answer (a symbol, a class, a picture): no other one beyond them."""
    before, after, weights = producers(model), consumers(model), initializers(model)

    def beyond(start: Iterable[str], down: bool) -> set[str]:
        """Kinds of nodes met on the way, up to the next convolution and never across the quantizer."""
        todo, seen, kinds = list(start), set(), set()
        while todo:
            name = todo.pop()
            for node in after.get(name, []) if down else [before[name]] if name in before else []:
                kinds.add("Conv" if node.op_type in CONVOLUTIONS else node.op_type)
                if node.name not in seen and node.op_type not in (*CONVOLUTIONS, "Greater", "Gather", "Round"):
                    todo += node.output if down else [i for i in node.input if i not in weights]
                seen.add(node.name)
        return kinds

    layers = [n for n in model.graph.node if n.op_type in CONVOLUTIONS]
    first = {n.name for n in layers if not beyond(n.input[:1], down=False) & {"Conv", "Gather", "Round"}}
    return first, {n.name for n in layers if "Conv" not in beyond(n.output, down=True)}


def tail(model: ModelProto, deciding: set[str]) -> set[str]:
    """Nodes behind the deciding convolutions, up to the next look-up of centers."""
    after = consumers(model)
    todo, found = [o for n in model.graph.node if n.name in deciding for o in n.output], set()
    while todo:
        for node in after.get(todo.pop(), []):
            if node.name not in found and node.op_type not in (*CONVOLUTIONS, "Gather"):
                found.add(node.name)
                todo += node.output
    return found


def fused(encoder: bytes, head: bytes) -> bytes:
    """image -> symbols and what the head answers, in one graph; the latent never becomes uint8 on the way to the head.

    (TensorRT knows uint8 at the network's border only.) Raises `ExportError` where the two do not fit.
    """
    first, second = parse(encoder), parse(head)
    if [o.name for o in first.graph.output] != ["symbols"] or [i.name for i in second.graph.input] != ["symbols"]:
        raise ExportError("fused wants an encoder (-> symbols) and a head (symbols ->)")
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (first.graph.output[0], second.graph.input[0])]
    if any(a != b for a, b in zip(*shapes, strict=True) if a and b):  # 0: free
        raise ExportError(f"the encoder gives symbols {shapes[0]}, the head takes {shapes[1]}: they are of different bundles")
    count = producers(first)["symbols"]
    if count.op_type != "Cast":
        raise ExportError(f"the encoder's symbols come from {count.op_type}, not from a Cast to uint8")
    outer = [o.name for o in second.graph.output]
    second = compose.add_prefix(second, "head/", rename_outputs=False)
    for node in second.graph.node:
        node.input[:] = [count.input[0] if name == "head/symbols" else name for name in node.input]
    model = ModelProto()
    model.CopyFrom(first)
    model.graph.name = "encoder_" + "_".join(outer)
    model.graph.node.extend(second.graph.node)
    model.graph.initializer.extend(second.graph.initializer)
    model.graph.output.extend(second.graph.output)
    return serialized(model)


def node_arrays(model: ModelProto) -> dict[str, NDArray[np.float32]]:
    """Float initializers as arrays."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}


def float_tensors(model: ModelProto) -> dict[str, int]:
    """Tensor name -> element type, for every tensor, by strict shape inference."""
    inferred = onnx.shape_inference.infer_shapes(copy.deepcopy(model), check_type=True, strict_mode=True)
    graph = inferred.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return found | {t.name: t.data_type for t in graph.initializer}


def _constants_to_initializers(model: ModelProto) -> None:
    nodes = []
    for node in model.graph.node:
        if node.op_type != "Constant":
            nodes.append(node)
            continue
        value = helper.get_attribute_value(node.attribute[0])
        tensor = copy.deepcopy(value) if isinstance(value, TensorProto) else numpy_helper.from_array(_constant_array(node))
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _constant_array(node: NodeProto) -> NDArray[np.generic]:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    return np.array(value, np.float32 if attribute.name.startswith("value_float") else np.int64)


def _widen(model: ModelProto) -> None:
    """FP16 initializers behind a Cast to FP32 become FP32 initializers."""
    weights, nodes = initializers(model), []
    for node in model.graph.node:
        tensor = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type not in (TensorProto.FLOAT16, TensorProto.FLOAT) or _cast_to(node) != TensorProto.FLOAT:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _cast_to(node: NodeProto) -> int:
    return next(int(a.i) for a in node.attribute if a.name == "to")


def _fold_batch_norm(model: ModelProto) -> None:
    """BatchNormalization straight behind a convolution goes into its weights, in FP32: folded later, in FP16, it would cost accuracy."""
    before, after = producers(model), consumers(model)
    arrays = node_arrays(model)
    gone = []
    for norm in [n for n in model.graph.node if n.op_type == "BatchNormalization"]:
        conv = before.get(norm.input[0])
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or len(after[norm.input[0]]) != 1 or conv.input[1] not in arrays:
            continue
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        scale, shift, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:5])
        factor = scale / np.sqrt(variance + epsilon)
        weight = arrays[conv.input[1]].astype(np.float64)
        groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
        if conv.op_type == "ConvTranspose" and groups != 1:
            continue
        shape = (-1, *[1] * (weight.ndim - 1)) if conv.op_type == "Conv" else (1, -1, *[1] * (weight.ndim - 2))
        bias = arrays[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else np.zeros_like(mean)
        folded = {
            f"{conv.name}.folded.weight": weight * factor.reshape(shape),
            f"{conv.name}.folded.bias": (bias - mean) * factor + shift,
        }
        model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in folded.items())
        del conv.input[1:]
        conv.input.extend(folded)
        conv.output[0] = norm.output[0]
        gone.append(norm)
    for norm in gone:
        model.graph.node.remove(norm)


__all__ = [
    "CONVOLUTIONS",
    "consumers",
    "ends",
    "float_tensors",
    "fused",
    "initializers",
    "label",
    "matching",
    "node_arrays",
    "parse",
    "plain",
    "producers",
    "serialized",
    "tail",
]
