"""The encoder, decoder or head of a bundle for another frame size.

A bundle's graphs have fixed sizes, but their layers are convolutions: only the declared shapes and the constants that repeat the latent's
shape stand in the way. Weights are untouched, so what is measured is the bundle's own network.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from percodec.sdk.errors import DataError


def resized(graph: bytes, height: int, width: int) -> bytes:
    """The same graph for pictures of height x width pixels (multiples of 8). Raises `DataError` where the graph does not allow it."""
    if height % 8 or width % 8 or height <= 0 or width <= 0:
        raise DataError(f"a frame of {width}x{height} cannot be encoded: sides must be positive multiples of 8")
    model = onnx.load_from_string(graph)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    picture = shape[-1].dim_value == 3
    sides = (shape[1], shape[2]) if picture else (shape[2], shape[3])
    cell = 1 if picture else 8
    rows, columns = sides[0].dim_value * cell // 8, sides[1].dim_value * cell // 8
    channels = shape[1].dim_value
    sides[0].dim_value, sides[1].dim_value = height // cell, width // cell
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) > 3 and node.input[3]:
            raise DataError(
                f"node {node.name} resizes to a fixed size: this graph runs at its own frame size only; export it for the other one"
            )
    # Shapes given to Reshape: the latent's own, and its flattened one, where the centers are looked up.
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    changed = {(1, channels, rows, columns): (1, channels, height // 8, width // 8), (channels * rows * columns,): (-1,)}
    for tensor in model.graph.initializer:
        wanted = changed.get(tuple(numpy_helper.to_array(tensor).ravel().tolist())) if tensor.name in shapes else None
        if wanted:
            tensor.CopyFrom(numpy_helper.from_array(np.array(wanted, np.int64), tensor.name))
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


__all__ = ["resized"]
