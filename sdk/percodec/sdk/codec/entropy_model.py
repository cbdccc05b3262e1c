"""`EntropyModel`: the integer probability tables that coder and decoder share, checked, hashed and immutable."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percodec.sdk.errors import EntropyModelError

_MAGIC = b"PCEM"
_VERSION = 1
_HEADER = struct.Struct("<4sBBBBHH")  # magic, version, profile, precision, reserved, channels, levels
MAX_CHANNELS = 1024
MAX_LEVELS = 256
PROFILE_ORDER_0 = 0


class EntropyModel:
    """One table of cumulative 12-bit probabilities per channel (profile 0: order-0, static).

    `cdf`: uint16 [C, L+1], every row 0 = cdf[c,0] < ... < cdf[c,L] = 4096, so that every symbol can be coded; C in
    1..1024, L in 2..256. Raises `EntropyModelError` otherwise. The array is copied; the property is read-only.
    """

    PRECISION = 12

    def __init__(self, cdf: NDArray[np.uint16]) -> None:
        table = np.asarray(cdf)
        if table.dtype.kind not in "iu" or table.ndim != 2:
            raise EntropyModelError(f"tables must be integers [channels, levels + 1], got {table.dtype} {list(table.shape)}")
        channels, levels = table.shape[0], table.shape[1] - 1
        if not (1 <= channels <= MAX_CHANNELS and 2 <= levels <= MAX_LEVELS):
            raise EntropyModelError(
                f"tables have {channels} channels of {levels} levels, supported are 1..{MAX_CHANNELS} of 2..{MAX_LEVELS}"
            )
        scale = 1 << self.PRECISION
        wide = table.astype(np.int64)
        wrong = (wide[:, 0] != 0) | (wide[:, -1] != scale) | (np.diff(wide, axis=1) < 1).any(axis=1)
        if wrong.any():
            raise EntropyModelError(
                f"table of channel {int(np.argmax(wrong))} does not rise strictly from 0 to {scale}: give every level a "
                "frequency of at least 1, or use EntropyModel.from_counts"
            )
        self._cdf: NDArray[np.uint16] = np.array(table, dtype="<u2", order="C")
        self._cdf.setflags(write=False)
        header = _HEADER.pack(_MAGIC, _VERSION, PROFILE_ORDER_0, self.PRECISION, 0, channels, levels)
        self._bytes = header + self._cdf.tobytes()
        self._digest = hashlib.sha256(self._bytes).digest()

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> EntropyModel:
        """Tables from symbol counts [C, L], non-negative integers.

        Every level gets 1, the rest of 4096 is shared in proportion to the counts by largest remainder (ties: lowest level
        first) in exact integer arithmetic: the same counts give the same tables on every machine. A channel without any
        count becomes uniform.
        """
        table: NDArray[Any] = np.asarray(counts)
        if table.dtype.kind not in "iu" or table.ndim != 2:
            raise EntropyModelError(f"counts must be integers [channels, levels], got {table.dtype} {list(table.shape)}")
        if not 2 <= table.shape[1] <= MAX_LEVELS:
            raise EntropyModelError(f"counts have {table.shape[1]} levels, supported are 2..{MAX_LEVELS}")
        if (table < 0).any():
            raise EntropyModelError("counts must not be negative")
        cdf = np.zeros((table.shape[0], table.shape[1] + 1), np.uint16)
        for channel, row in enumerate(table.tolist()):
            cdf[channel, 1:] = np.cumsum(_frequencies_from_counts(row))
        return cls(cdf)

    @property
    def cdf(self) -> NDArray[np.uint16]:
        """Cumulative frequencies, uint16 [C, L+1], read-only."""
        return self._cdf

    @property
    def channels(self) -> int:
        return int(self._cdf.shape[0])

    @property
    def levels(self) -> int:
        return int(self._cdf.shape[1]) - 1

    @property
    def profile(self) -> int:
        """How contexts select a table: 0 = the channel alone."""
        return PROFILE_ORDER_0

    @property
    def digest(self) -> bytes:
        """SHA-256 of `to_bytes()`, 32 bytes."""
        return self._digest

    @property
    def table_hash(self) -> int:
        """First eight bytes of `digest`, little-endian: what packets carry."""
        return int.from_bytes(self._digest[:8], "little")

    def to_bytes(self) -> bytes:
        """The canonical serialisation (BITSTREAM.md, "Entropy model"): the file `entropy.pcem` of a bundle."""
        return self._bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> EntropyModel:
        """Inverse of `to_bytes`. Raises `EntropyModelError` on anything but exactly one valid model."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise EntropyModelError("not an entropy model: it does not begin with PCEM; write one with EntropyModel.to_bytes")
        _, version, profile, precision, reserved, channels, levels = _HEADER.unpack_from(data)
        if version != _VERSION or profile != PROFILE_ORDER_0 or precision != cls.PRECISION or reserved != 0:
            raise EntropyModelError(
                f"entropy model of version {version}, profile {profile}, precision {precision}, reserved {reserved}: this reader knows "
                f"version {_VERSION}, profile {PROFILE_ORDER_0}, precision {cls.PRECISION}, reserved 0; update percodec"
            )
        expected = _HEADER.size + 2 * channels * (levels + 1)
        if len(data) != expected:
            raise EntropyModelError(f"entropy model of {channels} channels, {levels} levels takes {expected} bytes, got {len(data)}")
        return cls(np.frombuffer(data, "<u2", offset=_HEADER.size).reshape(channels, levels + 1))

    def cost_bits(self, symbols: NDArray[np.uint8]) -> float:
        """Ideal code length in bits of `symbols` [C,h,w] (values 0..L-1) under these tables."""
        if symbols.dtype != np.uint8 or symbols.ndim != 3 or symbols.shape[0] != self.channels:
            raise EntropyModelError(f"symbols must be uint8 [{self.channels},h,w], got {symbols.dtype} {list(symbols.shape)}")
        if symbols.size and int(symbols.max()) >= self.levels:
            raise EntropyModelError(f"symbols reach {int(symbols.max())}, the tables have levels 0..{self.levels - 1}")
        bits = self.PRECISION - np.log2(np.diff(self._cdf.astype(np.float64), axis=1))
        counts = np.stack([np.bincount(plane.ravel(), minlength=self.levels) for plane in symbols])
        return float((counts * bits).sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntropyModel) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"EntropyModel(channels={self.channels}, levels={self.levels}, profile={self.profile}, digest={self._digest.hex()[:16]})"


def _frequencies_from_counts(counts: list[int]) -> list[int]:
    """Largest-remainder shares of 4096, each at least 1. Python integers: no overflow, no rounding."""
    if sum(counts) == 0:
        counts = [1] * len(counts)
    total = sum(counts)
    free = (1 << EntropyModel.PRECISION) - len(counts)
    shares = [divmod(count * free, total) for count in counts]
    missing = free - sum(share for share, _ in shares)
    by_remainder = sorted(range(len(counts)), key=lambda level: (-shares[level][1], level))
    frequencies = [1 + share for share, _ in shares]
    for level in by_remainder[:missing]:
        frequencies[level] += 1
    return frequencies


__all__ = ["EntropyModel"]
