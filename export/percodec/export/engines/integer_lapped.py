"""The encoder of `lapped` as integer arithmetic alone, for ONNX Runtime: a window's transform, what two small convolutions add, the symbol.

    image u8 [1,H,W,3] -> pad 4 -> [1,H+8,(W+8)/8,24] -> QLinearConv 16x2 -> y u8 -+------------------------------+
                                                                                   v                              v
                                                  QLinearConv 3x3, ReLU -> QLinearConv 3x3 -> r u8 -> [y, r] -> QLinearConv 1x1 -> symbols

y and r are bytes in units of their own for each channel, so fine that what a channel says fills the byte. The sixteen channels that say
most are there twice in y, rounded half a unit apart, so that their sum is twice as fine: without it a tenth of a decibel would be lost.
Around the picture stands the mean of the three means, where the float graph has each one's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from percodec.export.engines.calibrate import Ranges
from percodec.export.engines.integer import steps_rule
from percodec.export.engines.integer_layers import WIDEST, rounded
from percodec.export.engines.onnx_graph import initializers

_FORM = ["Cast", "Transpose", "Sub", "Div", "Conv", "Conv", "Relu", "Conv", "Add", "Mul", "Round", "Add", "Relu", "Min", "Cast"]
_BLOCK, _MARGIN, _MIDDLE, _TWICE = 8, 4, 128, 16


def integer_lapped(model: ModelProto, ranges: Ranges) -> ModelProto | None:
    """`model` (as `onnx_graph.plain` makes it) in integers, or None where it is another form. `ranges`: of hidden layers."""
    nodes, weights = list(model.graph.node), {k: numpy_helper.to_array(t) for k, t in initializers(model).items()}
    if [n.op_type for n in nodes] != _FORM:
        return None
    window, inner, outer = (weights[nodes[k].input[1]].astype(np.float64) for k in (4, 5, 7))
    attributes = {a.name: helper.get_attribute_value(a) for a in nodes[4].attribute}
    sides = (list(attributes["kernel_shape"]), list(attributes["strides"]), list(attributes["pads"]))
    rule = steps_rule(nodes[8:], weights)
    if sides != ([2 * _BLOCK] * 2, [_BLOCK] * 2, [_MARGIN] * 4) or set(nodes[8].input) != {nodes[4].output[0], nodes[7].output[0]}:
        return None
    if rule is None or inner.shape[2:] != (3, 3) or outer.shape[2:] != (3, 3):
        return None
    per_step, offset, highest = rule
    mean, deviation = (weights[nodes[k].input[1]].astype(np.float64).reshape(-1) for k in (2, 3))
    convolutions = zip((4, 5, 7), (window, inner, outer), strict=True)
    biases = [weights[n.input[2]].astype(np.float64) if len((n := nodes[k]).input) > 2 else np.zeros(len(w)) for k, w in convolutions]
    # In steps. A channel's symbols reach from -offset to highest - offset, with room beyond what was seen.
    unit = np.maximum(offset, highest.reshape(-1).astype(np.float64) - offset).clip(1) / (_MIDDLE - 1)
    widest = max(map(abs, ranges.limits[nodes[7].output[0]]))
    unit_r = np.minimum(unit, max(1.25 * widest, 1e-6) * per_step / (_MIDDLE - 1))
    twice = np.argsort(-unit, kind="stable")[:_TWICE]
    limit = np.float32(max(ranges.limits[nodes[6].output[0]][1], 1e-6) / 255)

    constants: list[TensorProto] = []

    def constant(name: str, value: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    one, zero, middle = constant("one", np.float32(1)), constant("zero", np.uint8(0)), constant("middle", np.uint8(_MIDDLE))

    def layer(name: str, given: tuple[str, str, str], made: tuple[str, str], scales: tuple[float, float], weight: NDArray[np.float64],
              bias: NDArray[np.float64], **attributes: list[int]) -> NodeProto:  # fmt: skip
        """QLinearConv of `given` = (name, scale, zero) to `made` = (scale, zero); `scales`: those two as numbers. `bias` as put out."""
        steps = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-9) / WIDEST
        inputs = [*given, constant(f"{name}_weight", rounded(weight / steps[:, None, None, None], np.int8))]
        inputs += [constant(f"{name}_steps", steps.astype(np.float32)), constant(f"{name}_zeros", np.zeros(len(steps), np.int8)), *made]
        inputs.append(constant(f"{name}_bias", rounded(bias / (scales[0] * steps), np.int32)))
        return helper.make_node("QLinearConv", inputs, [name], name, **attributes)  # type: ignore[arg-type]

    pad = constant("margin", np.array([0, _MARGIN, _MARGIN, 0, 0, _MARGIN, _MARGIN, 0]))
    grey, rows = constant("grey", np.uint8(round(mean.mean()))), constant("rows", np.array([0, 0, -1, 3 * _BLOCK]))
    in_units = per_step / unit
    first = window / deviation[None, :, None, None] * in_units[:, None, None, None]
    first_bias = biases[0] * in_units - (first * mean[None, :, None, None]).sum((1, 2, 3))
    count, both = len(window), np.concatenate([np.arange(len(window)), twice])  # which channel each byte of y is of
    share, phase = np.ones(len(both)), np.zeros(len(both))
    for k, channel in enumerate(twice):
        share[[channel, count + k]], phase[[channel, count + k]] = 0.5, (0.25, -0.25)
    # [C,3,16,16] -> [C,24,16,2]: eight pixels of a row are one of 24 channels.
    first = first.reshape(count, 3, 16, 2, _BLOCK).transpose(0, 4, 1, 2, 3).reshape(count, 3 * _BLOCK, 16, 2)
    added = np.zeros((count, len(both) + count, 1, 1))
    added[both, np.arange(len(both)), 0, 0] = unit[both] * share
    added[np.arange(count), len(both) + np.arange(count), 0, 0] = unit_r
    inner = (inner / in_units[None, :, None, None])[:, both] * share[None, :, None, None]
    hidden = constant("hidden_scale", limit)
    made = [
        helper.make_node("Pad", [model.graph.input[0].name, pad, grey], ["padded"]),
        helper.make_node("Reshape", ["padded", rows], ["rows_of_blocks"]),
        helper.make_node("Transpose", ["rows_of_blocks"], ["pixels"], perm=[0, 3, 1, 2]),
        layer("y", ("pixels", one, zero), (one, middle), (1, 1), first[both], first_bias[both] + phase,
              kernel_shape=[16, 2], strides=[8, 1]),
        layer("hidden", ("y", one, middle), (hidden, zero), (1, float(limit)), inner, biases[1],
              kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        layer("r", ("hidden", hidden, zero), (one, middle), (float(limit), 1), outer * (per_step / unit_r)[:, None, None, None],
              biases[2] * per_step / unit_r,
              kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["y", "r"], ["both"], axis=1),
        layer("steps", ("both", one, middle), (one, zero), (1, 1), added, offset, kernel_shape=[1, 1]),
        helper.make_node("Min", ["steps", constant("highest", highest)], [model.graph.output[0].name]),
    ]  # fmt: skip
    graph = helper.make_graph(made, model.graph.name, list(model.graph.input), list(model.graph.output), constants)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version, producer_name=model.producer_name)


__all__ = ["integer_lapped"]
