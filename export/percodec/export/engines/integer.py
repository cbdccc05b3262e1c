"""Encoders that are a chain of convolutions as integer arithmetic alone, for ONNX Runtime: bytes in, products of bytes, symbols out.

    image u8 [1,H,W,3] -> [1,H,W/k,3k] -> QLinearConv k x 1 -> QLinearConv ... -> min(., L-1) -> symbols u8 [1,C,H/8,W/8]

Three things make it possible, all of the codecs `fast` and `balanced`: no padding before the first convolution, so that subtracting the
mean moves into its bias; ReLU, which is what a byte without a zero point does below zero, so that padding further on is zero too; and
evenly spaced centers, so that the last rounding finds the symbol. `block`, one convolution with a step for each channel, is simpler still:
steps go into the weights and offsets into the bias, and the convolution's byte is the symbol.

The first convolution reads each pixel once, in blocks of k x k: a row of a block lies together in memory, and seen as one pixel of 3k
channels it is copied at once, not in k pieces, which is half of the encoder's time. Other graphs are left to
`percodec.export.engines.precision`, which keeps pictures and symbols in floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from percodec.export.engines.calibrate import Ranges
from percodec.export.engines.integer_layers import WIDEST, rounded
from percodec.export.engines.onnx_graph import initializers

_EVEN = 1e-3  # of a step: how far midpoints may be from even

Array = NDArray[Any]


def integer_encoder(model: ModelProto, ranges: Ranges) -> ModelProto | None:
    """`model` (as `onnx_graph.plain` makes it) in integers, or None where it is another form. `ranges`: of hidden layers."""
    nodes, weights = list(model.graph.node), {k: numpy_helper.to_array(t) for k, t in initializers(model).items()}
    at = [k for k, n in enumerate(nodes) if n.op_type == "Conv"]
    chain = [n.op_type for n in nodes[: at[-1] + 1]] if at else []
    if chain[:4] != ["Cast", "Transpose", "Sub", "Div"] or chain[4:] != ["Conv", *["Relu", "Conv"] * (len(at) - 1)]:
        return None
    if not _blocks(nodes[at[0]]) or not all(_plain(nodes[k]) for k in at):
        return None
    found = _even_centers(nodes[at[-1] :], weights) or steps_rule(nodes[at[-1] :], weights)
    if found is None:
        return None
    per_step, offset, highest = found

    mean, deviation = weights[nodes[2].input[1]].reshape(-1), weights[nodes[3].input[1]].reshape(-1)
    constants: list[TensorProto] = []

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    side = weights[nodes[at[0]].input[1]].shape[-1]
    rows = constant("rows", np.array([0, 0, -1, 3 * side]))
    made: list[NodeProto] = [
        helper.make_node("Reshape", [model.graph.input[0].name, rows], ["rows_of_blocks"]),
        helper.make_node("Transpose", ["rows_of_blocks"], ["pixels"], perm=[0, 3, 1, 2]),
    ]
    zero, given, scale = constant("zero", np.uint8(0)), "pixels", np.float32(1)
    for k, index in enumerate(at):
        node = nodes[index]
        weight = weights[node.input[1]].astype(np.float64)
        bias = weights[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(len(weight))
        if k == 0:
            weight = weight / deviation[None, :, None, None]
            bias = bias - (weight * mean[None, :, None, None]).sum((1, 2, 3))
            weight = weight.transpose(0, 3, 1, 2).reshape(len(weight), -1, side, 1)
        if index == at[-1]:
            weight, bias, out_scale = weight * per_step.reshape(-1, 1, 1, 1), bias * per_step + offset, np.float32(1)
        else:
            out_scale = np.float32(max(ranges.limits[nodes[index + 1].output[0]][1], 1e-6) / 255)
        steps = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-9) / WIDEST
        inputs = [
            given,
            constant(f"scale_{k}", scale),
            zero,
            constant(f"weight_{k}", rounded(weight / steps[:, None, None, None], np.int8)),
        ]
        inputs += [constant(f"steps_{k}", steps.astype(np.float32)), constant(f"zeros_{k}", np.zeros(len(steps), np.int8))]
        inputs += [constant(f"out_{k}", out_scale), zero, constant(f"bias_{k}", rounded(bias / (float(scale) * steps), np.int32))]
        name = f"layer_{k}"
        made.append(helper.make_node("QLinearConv", inputs, [name], name=name))
        if k == 0:
            made[-1].attribute.extend(helper.make_attribute(key, [side, 1]) for key in ("kernel_shape", "strides"))
        else:
            made[-1].attribute.extend(node.attribute)
        given, scale = name, out_scale
    if highest.ndim:
        made.append(helper.make_node("Min", [given, constant("highest", highest)], [model.graph.output[0].name]))
    else:
        made.append(helper.make_node("Clip", [given, "", constant("highest", highest)], [model.graph.output[0].name]))
    graph = helper.make_graph(made, model.graph.name, list(model.graph.input), list(model.graph.output), constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name=model.producer_name)


# (per_step, offset, highest): a symbol is z * per_step + offset, rounded, at most `highest` (uint8, [] or [1,C,1,1]); float64,
# [C] or [].
_Rule = tuple[Array, Array, Array]


def _even_centers(nodes: list[NodeProto], weights: dict[str, Array]) -> _Rule | None:
    """Of what follows the last convolution, `nodes[0]`: a symbol is the number of borders below z."""
    tests = [n for n in nodes[1:] if n.op_type == "Greater"]
    if not tests or any(t.input[0] != nodes[0].output[0] for t in tests):
        return None
    borders = np.sort(np.array([float(weights[t.input[1]]) for t in tests]))
    step = float(np.diff(borders).mean()) if len(borders) > 1 else 1.0
    if np.abs(np.diff(borders) - step).max(initial=0.0) > _EVEN * step:
        return None
    return np.array(1 / step), np.array(0.5 - borders[0] / step), np.array(len(borders), np.uint8)


def steps_rule(nodes: list[NodeProto], weights: dict[str, Array]) -> _Rule | None:
    """The same: z times a number for each channel, rounded, plus an offset, from 0 to the channel's highest."""
    if [n.op_type for n in nodes[1:]] != ["Mul", "Round", "Add", "Relu", "Min", "Cast"]:
        return None
    per_step, offset, highest = (weights[nodes[k].input[1]].astype(np.float64) for k in (1, 3, 5))
    return per_step.ravel(), offset.ravel(), highest.astype(np.uint8)


def _blocks(node: NodeProto) -> bool:
    """Every pixel is read once: no padding, strides as long as the square kernel's sides."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    size = list(given["kernel_shape"])
    return not any(given.get("pads", [0])) and list(given.get("strides", [1, 1])) == size and size[0] == size[1]


def _plain(node: NodeProto) -> bool:
    """One group, no dilation, no automatic padding."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return given.get("group", 1) == 1 and set(given.get("dilations", [1])) == {1} and given.get("auto_pad", b"NOTSET") == b"NOTSET"


__all__ = ["integer_encoder", "steps_rule"]
