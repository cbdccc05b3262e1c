"""Graphs whose batch, height and width are free, and the same graphs bound to one size. No torch here.

    freed   what bundles hold: `batch` everywhere; `height`, `width` of pictures, `rows`, `columns` of latents where every layer allows it
    bound   what TensorRT builds: every side a number

Layers are convolutions, so only constants that repeat the latent's shape stand in the way: Reshape around the look-up of centers, which
looks up arrays of any shape as well, and Resize to given sizes, which becomes one by scales. A graph with a scale that is no whole number
was made for one size, and keeps its height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from percodec.export.engines.onnx_graph import consumers, initializers, parse, producers, serialized
from percodec.sdk.bundle.graphs import FREE_SIDES
from percodec.sdk.errors import ExportError


def freed(data: bytes) -> bytes:
    """The same computation for every batch, and for every size where the layers allow it. Raises `ExportError`.

    A graph that is free already comes back as it is.
    """
    model = parse(data)
    _look_up_as_they_are(model)
    sized = _resize_by_scales(model)
    for value in (*model.graph.input, *model.graph.output):
        sides = FREE_SIDES.get(value.name, ("batch",))
        for side, name in zip(value.type.tensor_type.shape.dim, sides, strict=False):
            if name == "batch" or (name and not sized):
                side.dim_param = name
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    del model.graph.value_info[:]
    return serialized(model)


def bound(data: bytes, shapes: Mapping[str, Sequence[int]]) -> bytes:
    """The same graph with the inputs and outputs named in `shapes` of these, with the batch dimension. Raises `ExportError`."""
    model = parse(data)
    for value in (*model.graph.input, *model.graph.output):
        del value.type.tensor_type.shape.dim[:]
        for side in shapes[value.name]:
            value.type.tensor_type.shape.dim.add().dim_value = side
    del model.graph.value_info[:]
    return serialized(model)


def _look_up_as_they_are(model: ModelProto) -> None:
    """x -> Reshape [n] -> Gather(centers) -> Reshape [1,C,h,w] becomes x -> Gather(centers): the same numbers at the same places."""
    before, after, weights = producers(model), consumers(model), initializers(model)
    gone: list[NodeProto] = []
    for gather in [n for n in model.graph.node if n.op_type == "Gather"]:
        behind = after.get(gather.output[0], [])
        if len(weights[gather.input[0]].dims if gather.input[0] in weights else ()) != 1 or [n.op_type for n in behind] != ["Reshape"]:
            continue
        path = [gather]
        while path[0].input[int(path[0] is gather)] in before:  # the indices, through casts up to a flattening
            path.insert(0, before[path[0].input[int(path[0] is gather)]])
            if path[0].op_type != "Cast":
                break
        flat = path[0]
        if flat.op_type != "Reshape" or _constant(weights, flat.input[1]).size != 1 or len(after[flat.output[0]]) != 1:
            continue
        first = path[1]
        first.input[int(first is gather)] = flat.input[0]
        gather.output[0] = behind[0].output[0]
        gone += [flat, behind[0]]
    for node in gone:
        model.graph.node.remove(node)


def _resize_by_scales(model: ModelProto) -> bool:
    """Resize to sizes [1,C,h,w] becomes one by scales, which says nothing of the batch. Whether one scales to a size of its own.

    (Sizes of two `axes` would say it better; ONNX Runtime 1.31 moves Transpose over such a node as if there were four.)
    """
    weights, sized = initializers(model), False
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*inferred.value_info, *inferred.input)}
    for node in [n for n in model.graph.node if n.op_type == "Resize"]:
        if len(node.input) < 4 or not node.input[3]:
            sized |= bool(np.any(_constant(weights, node.input[2]) % 1))
            continue
        sized = True
        how = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        modes = [how.get(key) for key in ("mode", "coordinate_transformation_mode", "nearest_mode")]
        if modes != [b"nearest", b"asymmetric", b"floor"]:
            raise ExportError(f"node {node.name} resizes to a fixed size between pixels: its batch cannot be freed; resize by a scale")
        pairs = zip(shapes[node.input[0]], _constant(weights, node.input[3]).tolist(), strict=True)
        scales = numpy_helper.from_array(np.array([_scale(a, b) for a, b in pairs], np.float32), f"{node.output[0]}_scales")
        model.graph.initializer.append(scales)
        node.input[:] = [*node.input[:2], scales.name]
    return sized


def _scale(before: int, after: int) -> float:
    """The FP32 number by which `before` becomes `after`, in FP32 and exactly, each pixel taking the one that it would by sizes."""
    exact, pixels = np.float32(after) / np.float32(before), np.arange(after, dtype=np.float32)
    for scale in (exact, np.nextafter(exact, np.float32(np.inf))):
        whole = int(np.float32(before) * scale) == after == int(before * float(scale))
        if whole and np.array_equal(np.floor(pixels / scale), np.floor(pixels / exact)):
            return float(scale)
    raise ExportError(f"no scale makes {after} pixels of {before}; export the graph with a scale")


def _constant(weights: Mapping[str, TensorProto], name: str) -> NDArray[Any]:
    if name not in weights:
        raise ExportError(f"the shape {name} is computed in the graph; export it with constant shapes")
    return numpy_helper.to_array(weights[name]).ravel()


__all__ = ["bound", "freed"]
