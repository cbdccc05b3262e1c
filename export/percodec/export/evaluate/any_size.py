"""A bundle's networks for pictures of another size than its frames, and pictures whose sides they can take.

A bundle's graphs have fixed sizes, but their layers are convolutions: only the declared shapes and the constants that repeat the latent's
shape stand in the way. Weights are untouched, so what is measured is the bundle's own network.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.codecs import Picture
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
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


def crop8(picture: Picture) -> Picture:
    """Sides cut to multiples of 8: every codec is shown the same pixels."""
    return np.ascontiguousarray(picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8])


def filled(picture: Picture, cell: int) -> Picture:
    """The picture, its sides filled up to multiples of `cell` with its last row and column."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, -height % cell), (0, -width % cell), (0, 0)), "edge")


class BundleAtAnySize:
    """Encoder, coder and decoder of a bundle for pictures of whatever size. Only the last size's sessions are kept: they are large.

    `encoder`: the bundle's in another precision.
    """

    def __init__(self, bundle: Bundle, encoder: bytes | None = None) -> None:
        self.bundle = bundle
        self._graph = encoder or bundle.graph("encoder")
        self._size = (0, 0)

    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]:
        """Packet, and the picture decoded from it."""
        packet, symbols = self.symbols(picture)
        return packet, self._decoder(symbols[None])[0]

    def symbols(self, picture: Picture) -> tuple[bytes, NDArray[np.uint8]]:
        """Packet, and the latent decoded from it: uint8 [C,H/8,W/8]."""
        size = (picture.shape[0], picture.shape[1])
        if size != self._size:
            both = self._graph, self.bundle.graph("decoder")
            self._encoder, self._decoder = (graph_function(resized(graph, *size), threads=2) for graph in both)
            self._coder = PacketCodec(self.bundle.entropy_model, size[0] // 8, size[1] // 8)
            self._size = size
        packet = self._coder.encode(self._encoder(picture[None])[0], frame_id=0, timestamp_ns=0)
        return packet, self._coder.decode(packet)[1]


__all__ = ["BundleAtAnySize", "crop8", "filled", "resized"]
