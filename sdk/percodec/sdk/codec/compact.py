"""`CompactCodec`: the smallest packets, of small latents that are known by other means: a file's name, a message's own fields.

Half a percent to two percent above the ideal length where `PacketCodec` spends two to seven, and as fast as 48 or 64 lanes are.
Format: BITSTREAM.md, "Compact packets".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec import _rans
from percodec.sdk.codec.entropy_model import EntropyModel
from percodec.sdk.codec.header import MAX_LANES, BytesLike
from percodec.sdk.codec.packet import MEANINGS, PacketCodec, check_array, size_of
from percodec.sdk.errors import CodecError, PacketError

_MEANINGS = {
    **MEANINGS,
    "too_short": "is shorter than any compact packet: it was cut off or is none",
    "bad_magic": "does not begin with 'c': it is not a compact packet (PacketCodec reads those that begin with 'PC')",
    "bad_lanes": f"declares a lane count outside 2..{MAX_LANES}",
    "bad_length": "does not hold what its first bytes declare: it was altered or cut off, drop it",
    # Without a checksum of the bytes the symbols are where an altered packet shows.
    "truncated_payload": "ends before the symbols do: cut off or altered, or other tables or latent size",
    "trailing_payload": "goes on after the last symbol: altered, or other tables or latent size",
    "bad_final_state": "does not end in the coder's initial state: altered, or other tables or latent size",
    "bad_latent_crc": "decodes to other symbols than were coded (CRC-32C differs): altered, or other tables or latent size",
}


class CompactCodec:
    """Codes latents of one shape under one `EntropyModel` of pairs (profile 3). Complete at construction; safe to share between threads.

    Its packets hold the symbols and a checksum of them, of their shape and of the tables: no stream, counter, frame or time.
    `height`, `width`: of the latent. `lanes`: 2..64 interleaved coder lanes, or None to choose them for the content.
    Raises `CodecError` when an argument is outside its range or the tables are not of pairs.
    """

    def __init__(self, model: EntropyModel, height: int, width: int, *, lanes: int | None = None) -> None:
        if not model.pairs:
            raise CodecError(f"compact packets are of tables of pairs (profile 3), got profile {model.profile}: use PacketCodec")
        if lanes is not None and not 2 <= lanes <= MAX_LANES:
            raise CodecError(f"lanes must be 2..{MAX_LANES} or None, got {lanes}")
        self._coder = PacketCodec(model, height, width)._coder
        self._lanes = 0 if lanes is None else lanes
        self.model = model
        self.latent_shape = (model.channels, height, width)

    def encode(self, symbols: NDArray[np.uint8]) -> bytes:
        """One packet from `symbols`, uint8 [C,h,w] below L. Raises `CodecError` on anything else."""
        try:
            packet = self._coder.encode_compact(symbols, self._lanes)
        except (TypeError, ValueError):  # told apart only where there is something to tell
            check_array(symbols, "symbols", self.latent_shape)
            packet = self._coder.encode_compact(np.ascontiguousarray(symbols), self._lanes)
        if isinstance(packet, int):
            raise CodecError(f"symbols reach {int(symbols.max())}, the tables have levels 0..{self.model.levels - 1}")
        return packet

    def decode(self, packet: BytesLike, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The symbols, uint8 [C,h,w], of a packet (bytes or any contiguous bytes-like object), verified.

        `out`: where to put them (contiguous, writable), else a new array. On an error its content is unspecified.
        Raises `PacketError` on anything but an intact compact packet of this shape and these tables.
        """
        if out is None:
            out = np.empty(self.latent_shape, np.uint8)
        try:
            status = self._coder.decode_compact(packet, out)
        except (TypeError, ValueError, BufferError):
            size_of(packet)
            check_array(out, "out", self.latent_shape)
            raise CodecError("out must be a C-contiguous, writable array") from None
        if status:
            raise PacketError(f"packet of {size_of(packet)} bytes {_MEANINGS[_rans.STATUS_NAMES[status]]}")
        return out


__all__ = ["CompactCodec"]
