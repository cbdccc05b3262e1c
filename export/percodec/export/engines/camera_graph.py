"""Camera graphs: a camera's own pictures (NV12, YUYV, BGR, RGB) to the encoder's frame, in ONNX, so that TensorRT does it on the device.

    raw uint8 -> Cast -> YUV to RGB, round, clip -> cut -> rows, columns -> round, clip -> black bars -> Cast -> image uint8 [1,h,w,3]

The CPU's twin is `percodec.runtime.capture.preprocess.Preprocessor` (cv2): same geometry (`percodec.sdk.fit`), same constants, at most
one level
apart. Everything is FP32 with a batch of one, whatever precision the engines beside it have.

Resampling is separable, and along each axis one MatMul with a constant. INTER_AREA repeats itself: where sides of in and out have the
common divisor g, block k of in/g pixels makes block k of out/g pixels with the same weights, so the axis is cut into g blocks and the
constant is [out/g, in/g]: [1,4] for 1920 -> 480, [3,8] for 1280 -> 480. INTER_LINEAR reaches across blocks: there g is 1.

Weights are whole numbers (overlaps in units of 1/out pixel); one factor at the end makes averages of the sums. So the first sums are
exact also on tensor cores that read FP32 with 11 significant bits (TF32, TensorRT's default), where 1/3 would not be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from percodec.export.engines.onnx_graph import serialized
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import UsageError
from percodec.sdk.fit import FITS, Placement, placement

_OPSET, _IR_VERSION = 20, 10  # what the parser of TensorRT 10.3 reads
# BT.601, limited range, in cv2's own constants: 20 fractional bits, rows Y, U, V of R, G, B.
_LUMA, _U, _V = (np.array(k, np.float32) / np.float32(1 << 20) for k in (1220542, (0, -409993, 2116026), (1673527, -852492, 0)))


def camera_graph(format: str, height: int, width: int, frame_height: int, frame_width: int, fit: str) -> bytes:
    """An ONNX graph `raw` -> `image`, opset 20: a picture of `height` x `width` pixels to the frame, as `fit` says.

    `raw`: uint8, NV12 [1,height*3/2,width], YUYV [1,height,width,2], BGR and RGB [1,height,width,3]; `image`: uint8
    [1,frame_height,frame_width,3] RGB. Same arguments, same bytes.

    Raises `UsageError` for an unknown format or fit, a side outside 16..8192, or an odd one where colour is shared by pixels.
    """
    camera = CameraFormat(format, height, width)
    if fit not in FITS:
        raise UsageError(f"fit {fit!r} is not known; there are {', '.join(FITS)}")
    place = placement(fit, height, width, frame_height, frame_width)
    graph = _Graph()
    planes = _planes(graph, graph.add("Cast", "raw", to=TensorProto.FLOAT), camera)
    planes = _cut(graph, planes, place, height, width)
    planes = _resample(graph, planes, place)
    if format == "bgr":
        planes = graph.add("Gather", planes, graph.integers(2, 1, 0), axis=0)
    planes = _bars(graph, planes, place, frame_height, frame_width)
    pixels = graph.add("Transpose", graph.reshape(planes, 1, 3, frame_height, frame_width), perm=[0, 2, 3, 1])
    graph.add("Cast", pixels, output="image", to=TensorProto.UINT8)
    source = helper.make_tensor_value_info("raw", TensorProto.UINT8, [1, *camera.shape])
    result = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, frame_height, frame_width, 3])
    made = helper.make_graph(graph.nodes, camera.graph, [source], [result], graph.constants)
    return serialized(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="percodec")
    )


@dataclass
class _Graph:
    """Nodes and constants in the making; every tensor is named by the node that makes it."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{kind}_{len(self.nodes)}", **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.integers(*shape))

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        return self.add("Slice", x, self.integers(start), self.integers(stop), self.integers(axis), self.integers(step))

    def rounded(self, x: str) -> str:
        """To whole numbers, half to even as cv2 does, within 0..255."""
        return self.add("Clip", self.add("Round", x), self.number(0), self.number(255))


def _planes(graph: _Graph, raw: str, camera: CameraFormat) -> str:
    """[3,H,W], whole numbers 0..255; planes R, G, B, or B, G, R for BGR."""
    height, width = camera.height, camera.width
    if camera.format in ("bgr", "rgb"):
        return graph.reshape(graph.add("Transpose", raw, perm=[0, 3, 1, 2]), 3, height, width)
    # Pixels that share colour get an axis of their own, where U and V have length 1: broadcasting is cv2's nearest chroma.
    if camera.format == "nv12":
        luma = graph.reshape(graph.slice(raw, 1, 0, height), 1, height // 2, 2, width // 2, 2)
        chroma = graph.reshape(graph.slice(raw, 1, height, height * 3 // 2), 1, height // 2, 1, width // 2, 2)
        u, v = (graph.slice(chroma, 4, k, k + 1) for k in (0, 1))
    else:
        pairs = graph.reshape(raw, 1, height, 1, width // 2, 4)
        luma = graph.slice(pairs, 4, 0, 4, 2)
        u, v = (graph.slice(pairs, 4, k, k + 1) for k in (1, 3))
    luma = graph.add("Mul", graph.add("Relu", graph.add("Sub", luma, graph.number(16))), graph.constant(_LUMA))
    parts = [
        graph.add("Mul", graph.add("Sub", x, graph.number(128)), graph.constant(k.reshape(3, 1, 1, 1, 1))) for x, k in ((u, _U), (v, _V))
    ]
    return graph.reshape(graph.rounded(graph.add("Add", luma, graph.add("Add", *parts))), 3, height, width)


def _cut(graph: _Graph, planes: str, place: Placement, height: int, width: int) -> str:
    source = place.source
    if source.height != height:
        planes = graph.slice(planes, 1, source.y, source.y + source.height)
    if source.width != width:
        planes = graph.slice(planes, 2, source.x, source.x + source.width)
    return planes


@dataclass(frozen=True)
class _Axis:
    """`blocks` times the same `weights`, whole numbers [out,in] whose rows sum to `unit`."""

    weights: NDArray[np.float32]
    unit: int
    blocks: int

    @property
    def macs(self) -> int:
        """For each value that goes in."""
        return int(self.weights.shape[0])

    @property
    def scale(self) -> float:
        """Values out for each that goes in."""
        return self.macs / int(self.weights.shape[1])


def _resample(graph: _Graph, planes: str, place: Placement) -> str:
    (_, _, height, width), (_, _, new_height, new_width) = place
    if (height, width) == (new_height, new_width):
        return planes
    axis = _area if place.averages else _linear
    rows, columns = axis(height, new_height), axis(width, new_width)

    def vertical(x: str, width: int) -> str:
        if height == new_height:
            return x
        blocks = graph.reshape(x, 3, rows.blocks, rows.weights.shape[1], width)
        return graph.reshape(graph.add("MatMul", graph.constant(rows.weights), blocks), 3, new_height, width)

    def horizontal(x: str, height: int) -> str:
        if width == new_width:
            return x
        blocks = graph.reshape(x, 3 * height * columns.blocks, columns.weights.shape[1])
        return graph.reshape(graph.add("MatMul", blocks, graph.constant(columns.weights.T)), 3, height, new_width)

    # The cheaper order: what the first axis leaves is all that the second one reads.
    if rows.macs + rows.scale * columns.macs <= columns.macs + columns.scale * rows.macs:
        planes = horizontal(vertical(planes, width), new_height)
    else:
        planes = vertical(horizontal(planes, height), new_width)
    unit = (rows.unit if height != new_height else 1) * (columns.unit if width != new_width else 1)
    planes = graph.add("Mul", planes, graph.number(1 / unit))
    if place.averages and (height, width) == (2 * new_height, 2 * new_width):
        planes = graph.add("Add", planes, graph.number(1 / 8))  # cv2 halves 2x2 pixels by integers: there alone a half goes up
    return graph.rounded(planes)


def _area(size: int, new_size: int) -> _Axis:
    """INTER_AREA where nothing grows: the overlap of each source pixel with each target pixel, in units of 1/new_size source pixel."""
    blocks = math.gcd(size, new_size)
    size, new_size = size // blocks, new_size // blocks
    weights = np.zeros((new_size, size), np.float32)
    row = np.arange(new_size)[:, None]
    column = row * size // new_size + np.arange(-(-size // new_size) + 1)
    overlap = np.minimum((column + 1) * new_size, (row + 1) * size) - np.maximum(column * new_size, row * size)
    hit = overlap > 0
    weights[np.broadcast_to(row, hit.shape)[hit], column[hit]] = overlap[hit]
    return _Axis(weights, size, blocks)


def _linear(size: int, new_size: int) -> _Axis:
    """INTER_LINEAR, pixel centres at halves, the border repeated; weights in units of 1/(2*new_size)."""
    weights = np.zeros((new_size, size), np.float32)
    row = np.arange(new_size)
    position = (2 * row + 1) * size - new_size  # of the target's centre, in units of 1/(2*new_size) source pixel
    first, part = position // (2 * new_size), position % (2 * new_size)
    np.add.at(weights, (row, np.clip(first, 0, size - 1)), 2 * new_size - part)
    np.add.at(weights, (row, np.clip(first + 1, 0, size - 1)), part)
    return _Axis(weights, 2 * new_size, 1)


def _bars(graph: _Graph, planes: str, place: Placement, frame_height: int, frame_width: int) -> str:
    y, x, height, width = place.target
    if (height, width) == (frame_height, frame_width):
        return planes
    return graph.add("Pad", planes, graph.integers(0, y, x, 0, frame_height - height - y, frame_width - width - x))


__all__ = ["camera_graph"]
