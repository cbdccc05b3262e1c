"""A bundle's networks for pictures of another size than its frames, and pictures whose sides they can take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.export.engines.free_shapes import freed
from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.codecs import Picture
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import DataError


def crop8(picture: Picture) -> Picture:
    """Sides cut to multiples of 8: every codec is shown the same pixels."""
    return np.ascontiguousarray(picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8])


def filled(picture: Picture, cell: int) -> Picture:
    """The picture, its sides filled up to multiples of `cell` with its last row and column."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, -height % cell), (0, -width % cell), (0, 0)), "edge")


class BundleAtAnySize:
    """Encoder, coder and decoder of a bundle for pictures of whatever size in whole cells of 8.

    `encoder`: the bundle's in another precision; `decoder`: the name of another graph.
    Raises `ExportError` where the bundle's graphs are bound to its frame's size.
    """

    def __init__(self, bundle: Bundle, encoder: bytes | None = None, decoder: str = "decoder") -> None:
        self.bundle = bundle
        both = encoder or bundle.graph("encoder"), bundle.graph(decoder)
        self._encoder, self._decoder = (graph_function(freed(graph), threads=2) for graph in both)
        self._size = (0, 0)

    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]:
        """Packet, and the picture decoded from it."""
        packet, symbols = self.symbols(picture)
        return packet, self._decoder(symbols[None])[0]

    def symbols(self, picture: Picture) -> tuple[bytes, NDArray[np.uint8]]:
        """Packet, and the latent decoded from it: uint8 [C,H/8,W/8]. Raises `DataError` for a side that is no multiple of 8."""
        height, width = picture.shape[:2]
        if height % 8 or width % 8 or not picture.size:
            raise DataError(f"a frame of {width}x{height} cannot be encoded: sides must be positive multiples of 8")
        if (height, width) != self._size:
            self._coder = PacketCodec(self.bundle.entropy_model, height // 8, width // 8)
            self._size = (height, width)
        packet = self._coder.encode(self._encoder(picture[None])[0], frame_id=0, timestamp_ns=0)
        return packet, self._coder.decode(packet)[1]


__all__ = ["BundleAtAnySize", "crop8", "filled"]
