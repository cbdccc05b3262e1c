"""`EntropyModel`: the integer probability tables that coder and decoder share, checked, hashed and immutable."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percodec.sdk.codec.contexts import MAX_CONTEXTS, Contexts
from percodec.sdk.codec.serialised import Serialised
from percodec.sdk.codec.steps import PROFILE_STEPS, PROFILE_STEPS_TEMPORAL, StepsModel
from percodec.sdk.errors import CodecError, EntropyModelError

_MAGIC = b"PCEM"
_VERSION = 1
_HEADER = struct.Struct("<4sBBBBHH")  # magic, version, profile, precision, contexts (0 in profile 0), channels, levels
MAX_CHANNELS = 1024
MAX_LEVELS = 256
MAX_PAIR_LEVELS = 8
_PRECISION, _PAIR_PRECISION = 12, 14
PROFILE_ORDER_0, PROFILE_CONTEXTS, PROFILE_TEMPORAL, PROFILE_PAIRS = 0, 1, 2, 3
PREDICTED = (PROFILE_TEMPORAL, PROFILE_STEPS_TEMPORAL)  # packets of these need the latent of the packet before


class EntropyModel(Serialised):
    """Tables of cumulative probabilities: one per channel (profiles 0 and 3), or one per channel and context (profiles 1 and 2).

    `cdf`: uint16 [C, L+1], with `contexts` [C, K, L+1]; every row 0 = cdf[0] < ... < cdf[L] = 4096, so that every symbol can be coded; C in
    1..1024, L in 2..256. With `pairs`, of the symbols at positions 2i and 2i + 1 of a channel as one: [C, L * L + 1], rising to 16384,
    entry L * first + second, L in 2..8. Raises `EntropyModelError` otherwise. The array is copied; the property is read-only.

    Which one should I use? Pairs: half of the coder's steps, and a few percent fewer bytes than profile 0. Contexts where bytes count.
    """

    def __init__(self, cdf: NDArray[np.uint16], contexts: Contexts | None = None, *, pairs: bool = False) -> None:
        table = np.asarray(cdf)
        if pairs and contexts is not None:
            raise EntropyModelError("tables are of pairs or of contexts, not of both")
        if contexts is not None:
            wanted = (len(contexts.channels), contexts.contexts, contexts.levels + 1)
            if table.shape != wanted:
                raise EntropyModelError(f"tables with these contexts must be {list(wanted)}, got {list(table.shape)}")
            table = table.reshape(-1, table.shape[2])
        if table.dtype.kind not in "iu" or table.ndim != 2:
            raise EntropyModelError(f"tables must be integers [channels, levels + 1], got {table.dtype} {list(table.shape)}")
        self.contexts = contexts
        self.pairs = pairs
        channels, entries = len(contexts.channels) if contexts is not None else table.shape[0], table.shape[1] - 1
        levels = math.isqrt(max(entries, 0)) if pairs else entries
        most = MAX_PAIR_LEVELS if pairs else MAX_LEVELS
        if not (1 <= channels <= MAX_CHANNELS and 2 <= levels <= most and entries == (levels * levels if pairs else levels)):
            raise EntropyModelError(
                f"tables have {channels} channels of {entries} {'pairs' if pairs else 'levels'}, supported are 1..{MAX_CHANNELS} of "
                f"2..{MAX_LEVELS} levels, or of the pairs of 2..{MAX_PAIR_LEVELS}"
            )
        scale = 1 << self.precision
        wide = table.astype(np.int64)
        wrong = (wide[:, 0] != 0) | (wide[:, -1] != scale) | (np.diff(wide, axis=1) < 1).any(axis=1)
        if wrong.any():
            raise EntropyModelError(
                f"table of channel {int(np.argmax(wrong))} does not rise strictly from 0 to {scale}: give every entry a "
                "frequency of at least 1, or use EntropyModel.from_counts"
            )
        self._levels = levels
        self._cdf: NDArray[np.uint16] = np.array(table, dtype="<u2", order="C")
        self._cdf.setflags(write=False)
        header = _HEADER.pack(
            _MAGIC, _VERSION, self.profile, self.precision, contexts.contexts if contexts is not None else 0, channels, levels
        )
        self._seal(header + self._cdf.tobytes() + (contexts.to_bytes() if contexts is not None else b""))

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> EntropyModel:
        """Tables from counts, non-negative integers: of symbols [C, L], or of pairs of neighbours [C, L, L] (first, second).

        Every level gets 1, the rest of 4096 is shared in proportion to the counts by largest remainder (ties: lowest level first). Of
        pairs every one gets 1 and the rest of 16384 is shared in proportion to what their counts are worth above that: so many entries
        would cost the frequent ones too much. All in exact integer arithmetic: the same counts give the same tables on every machine. A
        channel without any count becomes uniform.
        """
        table: NDArray[Any] = np.asarray(counts)
        pairs = table.ndim == 3 and table.shape[1] == table.shape[2]
        if table.dtype.kind not in "iu" or not (table.ndim == 2 or pairs):
            raise EntropyModelError(
                f"counts must be integers [channels, levels] or [channels, levels, levels], got {table.dtype} {list(table.shape)}"
            )
        most = MAX_PAIR_LEVELS if pairs else MAX_LEVELS
        if not 2 <= table.shape[1] <= most:
            raise EntropyModelError(f"counts have {table.shape[1]} levels, supported are 2..{most}")
        if (table < 0).any():
            raise EntropyModelError("counts must not be negative")
        rows = table.reshape(table.shape[0], table.shape[1] * (table.shape[1] if pairs else 1))
        cdf = np.zeros((rows.shape[0], rows.shape[1] + 1), np.uint16)
        for channel, row in enumerate(rows.tolist()):
            if pairs:
                total = sum(row)
                row = [max((count << _PAIR_PRECISION) - total, 0) for count in row]
            cdf[channel, 1:] = np.cumsum(frequencies_from_counts(row, 1 << (_PAIR_PRECISION if pairs else _PRECISION)))
        return cls(cdf, pairs=pairs)

    @property
    def cdf(self) -> NDArray[np.uint16]:
        """Cumulative frequencies, uint16 [C * K, L+1], read-only: K rows per channel, one for each context, else 1; of pairs [C, L*L+1]."""
        return self._cdf

    @property
    def channels(self) -> int:
        return int(self._cdf.shape[0]) // self.rows_per_channel

    @property
    def rows_per_channel(self) -> int:
        """K: contexts of a channel."""
        return self.contexts.contexts if self.contexts is not None else 1

    @property
    def levels(self) -> int:
        return self._levels

    @property
    def precision(self) -> int:
        """Bits of a probability: 12, of pairs 14."""
        return _PAIR_PRECISION if self.pairs else _PRECISION

    @property
    def profile(self) -> int:
        """How a table is selected: 0 and, of pairs, 3 = by the channel alone, 1 = by the channel and a context, 2 = also from the latent
        before."""
        if self.contexts is None:
            return PROFILE_PAIRS if self.pairs else PROFILE_ORDER_0
        return PROFILE_TEMPORAL if self.contexts.temporal else PROFILE_CONTEXTS

    @classmethod
    def from_bytes(cls, data: bytes) -> EntropyModel:
        """Inverse of `to_bytes`. Raises `EntropyModelError` on anything but exactly one valid model."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise EntropyModelError("not an entropy model: it does not begin with PCEM; write one with EntropyModel.to_bytes")
        _, version, profile, precision, rows, channels, levels = _HEADER.unpack_from(data)
        alone, pairs = profile in (PROFILE_ORDER_0, PROFILE_PAIRS), profile == PROFILE_PAIRS
        known = (rows == 0) if alone else (profile <= PROFILE_TEMPORAL and 1 <= rows <= MAX_CONTEXTS)
        if version != _VERSION or not known or precision != (_PAIR_PRECISION if pairs else _PRECISION):
            raise EntropyModelError(
                f"entropy model of version {version}, profile {profile}, {rows} contexts, precision {precision}: this reader knows version "
                f"{_VERSION}, profiles 0 (0 contexts), 1 and 2 (1..{MAX_CONTEXTS}) of precision {_PRECISION}, 3 (0 contexts) of "
                f"{_PAIR_PRECISION} (read_model also {PROFILE_STEPS} and {PROFILE_STEPS_TEMPORAL}); update percodec"
            )
        if not alone:
            return cls._from_contexts(data, channels, levels, rows, profile == PROFILE_TEMPORAL)
        entries = levels * levels if pairs else levels
        expected = _HEADER.size + 2 * channels * (entries + 1)
        if len(data) != expected:
            raise EntropyModelError(f"entropy model of {channels} channels, {levels} levels takes {expected} bytes, got {len(data)}")
        return cls(np.frombuffer(data, "<u2", offset=_HEADER.size).reshape(channels, entries + 1), pairs=pairs)

    @classmethod
    def _from_contexts(cls, data: bytes, channels: int, levels: int, rows: int, temporal: bool) -> EntropyModel:
        count = channels * rows * (levels + 1)
        at = _HEADER.size + 2 * count
        if not (1 <= channels <= MAX_CHANNELS and 2 <= levels <= MAX_LEVELS) or len(data) < at:
            raise EntropyModelError(f"entropy model of {channels} channels, {levels} levels, {rows} contexts: not supported, or cut off")
        tables = np.frombuffer(data, "<u2", count, _HEADER.size).reshape(channels, rows, levels + 1)
        return cls(tables, Contexts.from_bytes(data[at:], channels, levels, rows, temporal))

    def cost_bits(self, symbols: NDArray[np.uint8]) -> float:
        """Ideal code length in bits of `symbols` [C,h,w] (values 0..L-1) under these tables; in profile 2 of the last half of [2C,h,w]."""
        planes = self.channels * (2 if self.profile == PROFILE_TEMPORAL else 1)
        if symbols.dtype != np.uint8 or symbols.ndim != 3 or symbols.shape[0] != planes:
            raise EntropyModelError(f"symbols must be uint8 [{planes},h,w], got {symbols.dtype} {list(symbols.shape)}")
        if symbols.size and int(symbols.max()) >= self.levels:
            raise EntropyModelError(f"symbols reach {int(symbols.max())}, the tables have levels 0..{self.levels - 1}")
        bits = self.precision - np.log2(np.diff(self._cdf.astype(np.float64), axis=1))
        if self.pairs:
            symbols = pairs_of(symbols, self.levels)
        rows = np.arange(self.channels)[:, None, None] * self.rows_per_channel
        rows = rows + self.contexts.of(symbols) if self.contexts is not None else np.broadcast_to(rows, symbols.shape)
        counts = np.bincount((rows * bits.shape[1] + symbols[-self.channels :]).ravel(), minlength=bits.size).reshape(bits.shape)
        return float((counts * bits).sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntropyModel) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"EntropyModel(channels={self.channels}, levels={self.levels}, profile={self.profile}, digest={self._digest.hex()[:16]})"


def read_model(data: bytes) -> EntropyModel | StepsModel:
    """The tables of any profile, from their `to_bytes`. Raises `EntropyModelError` on anything but exactly one valid model."""
    steps = data[4:5] == bytes([_VERSION]) and data[5:6] in (bytes([PROFILE_STEPS]), bytes([PROFILE_STEPS_TEMPORAL]))
    return StepsModel.from_bytes(data) if steps else EntropyModel.from_bytes(data)


def pairs_of(symbols: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    """uint8 [C,h,w] -> [C,1,ceil(h * w / 2)]: levels * first + second of the symbols at positions 2i and 2i + 1; a missing one is 0."""
    flat = symbols.reshape(len(symbols), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    pairs: NDArray[np.uint8] = flat[:, None, 0::2] * np.uint8(levels) + flat[:, None, 1::2]
    return pairs


def count_pairs(symbols: NDArray[np.uint8], levels: int) -> NDArray[np.int64]:
    """int64 [C,L,L]: how often each channel of a latent uint8 [C,h,w] has (first, second) at positions 2i and 2i + 1.

    Raises `CodecError` unless there are 2..8 `levels` and all symbols are below.
    """
    highest = int(symbols.max(initial=0))
    if not 2 <= levels <= MAX_PAIR_LEVELS or highest >= levels:
        raise CodecError(f"pairs are of 2 to {MAX_PAIR_LEVELS} levels and of symbols below; got {levels}, symbols up to {highest}")
    pairs = pairs_of(symbols, levels)
    return np.stack([np.bincount(p.ravel(), minlength=levels * levels) for p in pairs]).reshape(-1, levels, levels)


def frequencies_from_counts(counts: list[int], scale: int) -> list[int]:
    """Largest-remainder shares of `scale`, each at least 1. Python integers: no overflow, no rounding."""
    if sum(counts) == 0:
        counts = [1] * len(counts)
    total = sum(counts)
    free = scale - len(counts)
    shares = [divmod(count * free, total) for count in counts]
    missing = free - sum(share for share, _ in shares)
    by_remainder = sorted(range(len(counts)), key=lambda level: (-shares[level][1], level))
    frequencies = [1 + share for share, _ in shares]
    for level in by_remainder[:missing]:
        frequencies[level] += 1
    return frequencies


__all__ = ["MAX_PAIR_LEVELS", "PREDICTED", "EntropyModel", "count_pairs", "frequencies_from_counts", "pairs_of", "read_model"]
