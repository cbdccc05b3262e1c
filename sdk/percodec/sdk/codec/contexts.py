"""Contexts: which of a channel's tables codes a symbol, from symbols that are known by then. Integers only, no floating point near a table.

    neighbour symbols --small tables--> two sums: `mean` (which levels are likely), `spread` (how surely) --bins--> one of K contexts

A neighbour is a symbol of an earlier channel around the same place, or of an earlier row of the same channel: never one of the same
row, so that all contexts of a row are known before its first symbol is decoded, and whole registers of them are computed at once. Each
adds one entry of a table of L bytes to each sum, a byte that wraps: a byte shuffle on every processor. Outside the picture there is its
channel's `fill`. Contexts over time also look at the latent before this one, all of which is known: channel C + c is its channel c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import EntropyModelError

MAX_CONTEXTS, MAX_NEIGHBOURS, MAX_REACH = 16, 32, 2
MEAN_BINS, SPREAD_BINS = 12, 5
_CHANNEL = struct.Struct("<BB")  # neighbours, fill
_NEIGHBOUR = struct.Struct("<Hbb")  # channel, dy, dx


@dataclass(frozen=True)
class Neighbour:
    """The symbol of `channel` at (y + dy, x + dx), and what it adds to the two sums: int8 [L] each. From C on: of the latent before."""

    channel: int
    dy: int
    dx: int
    mean: NDArray[np.int8]
    spread: NDArray[np.int8]


@dataclass(frozen=True)
class ChannelContexts:
    """Of one channel: `neighbours`, bin borders (int8, rising; a sum at or above border k is in bin k + 1 or higher), and the map
    uint8 [MEAN_BINS * SPREAD_BINS] from bins to contexts. `fill`: what a neighbour in this channel is outside the picture."""

    neighbours: tuple[Neighbour, ...]
    mean_borders: NDArray[np.int8]
    spread_borders: NDArray[np.int8]
    map: NDArray[np.uint8]
    fill: int


class Contexts:
    """Checked and immutable. Raises `EntropyModelError` for anything that a decoder could not follow exactly.

    With `temporal`, symbols are uint8 [2C,h,w] everywhere: the latent before, then this one.
    """

    def __init__(self, channels: tuple[ChannelContexts, ...], levels: int, contexts: int, temporal: bool = False) -> None:
        if not 1 <= contexts <= MAX_CONTEXTS:
            raise EntropyModelError(f"{contexts} contexts; supported are 1..{MAX_CONTEXTS}")
        for index, channel in enumerate(channels):
            _check(index, channel, levels, contexts, len(channels) if temporal else 0)
        self.channels, self.levels, self.contexts, self.temporal = channels, levels, contexts, temporal

    def of(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Contexts uint8 [C,h,w] of whole symbols: what an encoder needs."""
        return np.stack([self.of_rows(symbols, c, 0, symbols.shape[1]) for c in range(len(self.channels))])

    def of_rows(self, symbols: NDArray[np.uint8], channel: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Contexts uint8 [end - begin, w] of rows of a channel; reads earlier channels and rows before each row only."""
        found, count = self.channels[channel], len(self.channels)
        now = count if self.temporal else 0  # where this latent begins
        _, height, width = symbols.shape
        mean, spread = (np.zeros((end - begin, width), np.int8) for _ in range(2))
        for n in found.neighbours:
            plane = np.full((end - begin, width), self.channels[n.channel % count].fill, np.uint8)
            y0, y1 = max(begin + n.dy, 0), min(end + n.dy, height)
            x0, x1 = max(n.dx, 0), min(width + n.dx, width)
            if y1 > y0 and x1 > x0:
                plane[y0 - n.dy - begin : y1 - n.dy - begin, x0 - n.dx : x1 - n.dx] = symbols[
                    (n.channel + now) % len(symbols), y0:y1, x0:x1
                ]
            mean += n.mean[plane]
            spread += n.spread[plane]
        bins = np.searchsorted(found.mean_borders, mean, "right") * SPREAD_BINS + np.searchsorted(found.spread_borders, spread, "right")
        out: NDArray[np.uint8] = found.map[bins]
        return out

    def to_bytes(self) -> bytes:
        """BITSTREAM.md, "Contexts"."""
        out = []
        for channel in self.channels:
            out.append(_CHANNEL.pack(len(channel.neighbours), channel.fill))
            for n in channel.neighbours:
                out += [_NEIGHBOUR.pack(n.channel, n.dy, n.dx), n.mean.tobytes(), n.spread.tobytes()]
            out += [channel.mean_borders.tobytes(), channel.spread_borders.tobytes(), channel.map.tobytes()]
        return b"".join(out)

    @classmethod
    def from_bytes(cls, data: bytes, channels: int, levels: int, contexts: int, temporal: bool = False) -> Contexts:
        """Inverse of `to_bytes`."""
        at, found = 0, []
        try:
            for _ in range(channels):
                count, fill = _CHANNEL.unpack_from(data, at)
                at += _CHANNEL.size
                neighbours = []
                for _ in range(count):
                    place = _NEIGHBOUR.unpack_from(data, at)
                    at += _NEIGHBOUR.size
                    tables = np.frombuffer(data, np.int8, 2 * levels, at).reshape(2, levels)
                    at += 2 * levels
                    neighbours.append(Neighbour(place[0], place[1], place[2], tables[0], tables[1]))
                sizes = (MEAN_BINS - 1, SPREAD_BINS - 1, MEAN_BINS * SPREAD_BINS)
                parts = []
                for size, kind in zip(sizes, (np.int8, np.int8, np.uint8), strict=True):
                    parts.append(np.frombuffer(data, kind, size, at))
                    at += size
                found.append(ChannelContexts(tuple(neighbours), parts[0], parts[1], parts[2], fill))  # type: ignore[arg-type]
        except (struct.error, ValueError, IndexError) as error:
            raise EntropyModelError("the contexts of the entropy model end too early; write it again") from error
        if at != len(data):
            raise EntropyModelError(f"{len(data) - at} bytes follow the contexts of the entropy model; write it again")
        return cls(tuple(found), levels, contexts, temporal)


def _check(index: int, channel: ChannelContexts, levels: int, contexts: int, before: int) -> None:
    """`before`: channels of the latent before, where it is looked at."""
    where = f"contexts of channel {index}"
    if len(channel.neighbours) > MAX_NEIGHBOURS or channel.fill >= levels:
        raise EntropyModelError(
            f"{where}: {len(channel.neighbours)} neighbours, fill {channel.fill}; at most {MAX_NEIGHBOURS}, below {levels}"
        )
    for n in channel.neighbours:
        known = 0 <= n.channel < index or (n.channel == index and n.dy < 0) or before <= n.channel < 2 * before
        if not known or abs(n.dy) > MAX_REACH or abs(n.dx) > MAX_REACH:
            raise EntropyModelError(f"{where}: ({n.channel}, {n.dy}, {n.dx}) is not a symbol that is known by then and near")
        for table in (n.mean, n.spread):
            if table.dtype != np.int8 or table.shape != (levels,):
                raise EntropyModelError(f"{where}: a table must be int8 [{levels}]")
    for borders, bins in ((channel.mean_borders, MEAN_BINS), (channel.spread_borders, SPREAD_BINS)):
        if borders.dtype != np.int8 or borders.shape != (bins - 1,) or (np.diff(borders.astype(np.int64)) < 0).any():
            raise EntropyModelError(f"{where}: borders must be int8 [{bins - 1}], not falling")
    if channel.map.dtype != np.uint8 or channel.map.shape != (MEAN_BINS * SPREAD_BINS,) or int(channel.map.max()) >= contexts:
        raise EntropyModelError(f"{where}: the map must be uint8 [{MEAN_BINS * SPREAD_BINS}] below {contexts}")


__all__ = ["MAX_CONTEXTS", "MAX_NEIGHBOURS", "MEAN_BINS", "SPREAD_BINS", "ChannelContexts", "Contexts", "Neighbour"]
