"""The encoder of `refined` as integer arithmetic alone, for ONNX Runtime: blocks, what two small convolutions add to the leading channels.

    image u8 [1,H,W,3] -> pixels [1,24,H,W/8] -+-> QLinearConv 8x1 -> y u8 -+-----------------------------+
                                               |                            v                             v
                                               |       QLinearConv 3x3, ReLU, 3x3 -> r u8 -> [y, r] -> QLinearConv 1x1 -+
                                               +-> QLinearConv 8x1 -----------------------------------------------------+-> symbols

The channels behind the leading ones are symbols at once, as in `block`. y and r are bytes in units of their own for each channel, so fine
that what a channel says fills the byte. The channels that say most are there twice in y, rounded half a unit apart, so that their sum is
twice as fine: without it a tenth of a decibel would be lost.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from percodec.export.engines.calibrate import Ranges
from percodec.export.engines.integer import steps_rule
from percodec.export.engines.integer_layers import Bytes, Layers
from percodec.export.engines.onnx_graph import initializers

_FORM = ["Cast", "Transpose", "Sub", "Div", "Conv", "Slice", "Conv", "Relu", "Conv", "Add", "Slice", "Concat"]
_FORM += ["Mul", "Round", "Add", "Relu", "Min", "Cast"]
_BLOCK, _MIDDLE, _TWICE = 8, 128, 16


def integer_refined(model: ModelProto, ranges: Ranges) -> ModelProto | None:
    """`model` (as `onnx_graph.plain` makes it) in integers, or None where it is another form. `ranges`: of hidden layers."""
    nodes, weights = list(model.graph.node), {k: numpy_helper.to_array(t) for k, t in initializers(model).items()}
    if [n.op_type for n in nodes] != _FORM:
        return None
    block, inner, outer = (weights[nodes[k].input[1]].astype(np.float64) for k in (4, 6, 8))
    attributes = {a.name: helper.get_attribute_value(a) for a in nodes[4].attribute}
    sides = (list(attributes["kernel_shape"]), list(attributes["strides"]), any(attributes.get("pads", [0])))
    rule = steps_rule(nodes[11:], weights)
    if rule is None or sides != ([_BLOCK] * 2, [_BLOCK] * 2, False) or inner.shape[2:] != (3, 3) or outer.shape[2:] != (3, 3):
        return None
    per_step, offset, highest = rule
    mean, deviation = (weights[nodes[k].input[1]].astype(np.float64).reshape(-1) for k in (2, 3))
    convolutions = zip((4, 6, 8), (block, inner, outer), strict=True)
    biases = [weights[n.input[2]].astype(np.float64) if len((n := nodes[k]).input) > 2 else np.zeros(len(w)) for k, w in convolutions]
    count, leading = len(block), len(outer)
    # In steps. A channel's symbols reach from -offset to highest - offset, with room beyond what was seen.
    unit = np.maximum(offset, highest.reshape(-1).astype(np.float64) - offset).clip(1)[:leading] / (_MIDDLE - 1)
    widest = max(map(abs, ranges.limits[nodes[8].output[0]]))
    unit_r = np.minimum(unit, max(1.25 * widest, 1e-6) * per_step[:leading] / (_MIDDLE - 1))
    twice = np.argsort(-unit, kind="stable")[:_TWICE]

    made = Layers()
    rows = made.constant("rows", np.array([0, 0, -1, 3 * _BLOCK]))
    made.add("Reshape", [model.graph.input[0].name, rows], "rows_of_blocks")
    pixels = Bytes(made.add("Transpose", ["rows_of_blocks"], "pixels", perm=[0, 3, 1, 2]))
    first = block / deviation[None, :, None, None] * per_step[:, None, None, None]
    first_bias = biases[0] * per_step - (first * mean[None, :, None, None]).sum((1, 2, 3))
    # [C,3,8,8] -> [C,24,8,1]: eight pixels of a row are one of 24 channels.
    first = first.transpose(0, 3, 1, 2).reshape(count, 3 * _BLOCK, _BLOCK, 1)
    down = {"kernel_shape": [_BLOCK, 1], "strides": [_BLOCK, 1]}
    around = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}

    both = np.concatenate([np.arange(leading), twice])  # which channel each byte of y is of
    share, phase = np.ones(len(both)), np.zeros(len(both))
    for k, channel in enumerate(twice):
        share[[channel, leading + k]], phase[[channel, leading + k]] = 0.5, (0.25, -0.25)
    in_units = first[both] / unit[both][:, None, None, None]
    y = made.convolution(pixels, Bytes("y", zero=_MIDDLE), in_units, first_bias[both] / unit[both] + phase, **down)
    inner = (inner * (unit / per_step[:leading])[None, :, None, None])[:, both] * share[None, :, None, None]
    limit = max(ranges.limits[nodes[7].output[0]][1], 1e-6) / 255
    hidden = made.convolution(y, Bytes("hidden", limit), inner, biases[1], **around)
    to_r = per_step[:leading] / unit_r
    r = made.convolution(hidden, Bytes("r", zero=_MIDDLE), outer * to_r[:, None, None, None], biases[2] * to_r, **around)
    added = np.zeros((leading, len(both) + leading, 1, 1))
    added[both, np.arange(len(both)), 0, 0] = unit[both] * share
    added[np.arange(leading), len(both) + np.arange(leading), 0, 0] = unit_r
    joined = Bytes(made.add("Concat", [y.name, r.name], "both", axis=1), zero=_MIDDLE)
    made.convolution(joined, Bytes("leading"), added, offset[:leading], kernel_shape=[1, 1])
    made.convolution(pixels, Bytes("rest"), first[leading:], first_bias[leading:] + offset[leading:], **down)
    made.add("Concat", ["leading", "rest"], "steps", axis=1)
    made.add("Min", ["steps", made.constant("highest", highest)], model.graph.output[0].name)
    return made.model(model)


__all__ = ["integer_refined"]
