"""Encoders of blocks as integer arithmetic alone, for ONNX Runtime: bytes in, matrix products of bytes, symbols out.

    image u8 [1,H,W,3] -> QLinearConv 8x8 s8 -> QLinearConv 1x1 -> QLinearConv 1x1 -> min(., L-1) -> symbols u8 [1,C,H/8,W/8]

Three things make it possible, all of the `fast` codec: no padding before the first convolution, so that subtracting the mean moves
into its bias; ReLU, which is what a byte without a zero point does below zero; and evenly spaced centers, so that the last rounding
finds the symbol. Other graphs are left to `percodec.export.precision`, which keeps pictures and symbols in floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from percodec.export.calibrate import Ranges
from percodec.export.graph import initializers

_EVEN = 1e-3  # of a step: how far midpoints may be from even

Array = NDArray[Any]


def integer_encoder(model: ModelProto, ranges: Ranges) -> ModelProto | None:
    """`model` (as `percodec.export.graph.plain` makes it) in integers, or None where it is another form. `ranges`: of hidden layers."""
    nodes, weights = list(model.graph.node), {k: numpy_helper.to_array(t) for k, t in initializers(model).items()}
    at = [k for k, n in enumerate(nodes) if n.op_type == "Conv"]
    chain = [n.op_type for n in nodes[: at[-1] + 1]] if at else []
    if chain[:4] != ["Cast", "Transpose", "Sub", "Div"] or chain[4:] != ["Conv", *["Relu", "Conv"] * (len(at) - 1)]:
        return None
    tests = [n for n in nodes[at[-1] + 1 :] if n.op_type == "Greater"]
    if not tests or any(t.input[0] != nodes[at[-1]].output[0] for t in tests) or not all(map(_blocks, (nodes[k] for k in at))):
        return None
    borders = np.sort(np.array([float(weights[t.input[1]]) for t in tests]))
    step = float(np.diff(borders).mean()) if len(borders) > 1 else 1.0
    if np.abs(np.diff(borders) - step).max(initial=0.0) > _EVEN * step:
        return None

    mean, deviation = weights[nodes[2].input[1]].reshape(-1), weights[nodes[3].input[1]].reshape(-1)
    constants: list[TensorProto] = []
    made: list[NodeProto] = [helper.make_node("Transpose", [model.graph.input[0].name], ["pixels"], perm=[0, 3, 1, 2])]

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    zero, given, scale = constant("zero", np.uint8(0)), "pixels", np.float32(1)
    for k, index in enumerate(at):
        node = nodes[index]
        weight = weights[node.input[1]].astype(np.float64)
        bias = weights[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
        if k == 0:
            weight = weight / deviation[None, :, None, None]
            bias = bias - (weight * mean[None, :, None, None]).sum((1, 2, 3))
        if index == at[-1]:
            # The symbol is the number of borders below z: z from the first center on, in steps, rounded.
            bias, out_scale = bias - (borders[0] - step / 2), np.float32(step)
        else:
            out_scale = np.float32(max(ranges.limits[nodes[index + 1].output[0]][1], 1e-6) / 255)
        steps = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-9) / 127
        inputs = [
            given,
            constant(f"scale_{k}", scale),
            zero,
            constant(f"weight_{k}", _rounded(weight / steps[:, None, None, None], np.int8)),
        ]
        inputs += [constant(f"steps_{k}", steps.astype(np.float32)), constant(f"zeros_{k}", np.zeros(len(steps), np.int8))]
        inputs += [constant(f"out_{k}", out_scale), zero, constant(f"bias_{k}", _rounded(bias / (float(scale) * steps), np.int32))]
        size = list(weight.shape[2:])
        name = f"layer_{k}"
        made.append(helper.make_node("QLinearConv", inputs, [name], name=name, kernel_shape=size, strides=size))
        given, scale = name, out_scale
    made.append(helper.make_node("Clip", [given, "", constant("highest", np.uint8(len(borders)))], [model.graph.output[0].name]))
    graph = helper.make_graph(made, model.graph.name, list(model.graph.input), list(model.graph.output), constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name=model.producer_name)


def _blocks(node: NodeProto) -> bool:
    """Every pixel is read once: no padding, strides as long as the kernel."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    size = list(given["kernel_shape"])
    plain = given.get("group", 1) == 1 and not any(given.get("pads", [0])) and set(given.get("dilations", [1])) == {1}
    return plain and list(given.get("strides", [1, 1])) == size


def _rounded(value: Array, kind: Any) -> Array:
    limits = np.iinfo(kind)
    return np.clip(np.rint(value), limits.min, limits.max).astype(kind)


__all__ = ["integer_encoder"]
