"""Models and latents of profiles 4 and 5 from integers at random: neighbours of every kind, tables from even to nearly certain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.entropy_model import frequencies_from_counts
from percodec.sdk.codec.steps import CLASSES, MAX_BANDS, MAX_PLACE, MAX_WIDTH, PRECISION, TOKENS, Near, Plane, StepsModel

Below = Callable[[int], int]  # below(n): a number from 0 to n - 1


def random_model(below: Below, channels: int, heads: int, temporal: bool = False) -> StepsModel:
    """Places are wild where all weights are, so half of the planes have small ones."""
    before = channels + (1 if heads < channels else 0) if temporal else 0  # planes of the latent before
    bands = tuple(_bands(below, channels, heads)) if heads < channels else ()
    planes = []
    for index in range(channels + (1 if bands else 0)):
        extents, tail = index == channels, heads <= index < channels
        levels = len(bands) + 1 if extents else 1 + below((3, 9, 40, 256)[below(4)])
        offset = 0 if extents else below(levels)
        mild = below(2) == 0
        width = [_near(below, index, channels, heads, before, below(64)) for _ in range(below(MAX_WIDTH + 1))]
        reach = 4 if mild else 64
        place = [_near(below, index, channels, heads, before, below(2 * reach + 1) - reach) for _ in range(below(MAX_PLACE + 1))]
        bias = 64 * offset if mild else below(65536) - 32768
        planes.append(
            Plane(
                levels,
                offset,
                below(8),
                tuple(n for n in width if n),
                () if extents else tuple(n for n in place if n),
                0 if extents else bias,
                np.sort(np.array([below(256 if below(2) else 40) for _ in range(CLASSES - 1)], np.uint8)),
                _tables(below, 2 * CLASSES if tail else CLASSES),
                None if extents else _tables(below, 2),
            )
        )
    return StepsModel(tuple(planes), heads, bands, temporal)


def random_latent(below: Below, model: StepsModel, height: int, width: int) -> NDArray[np.uint8]:
    """Mostly offsets, or mostly not; at times only in one half. Of profile 5 two, alike in half of their symbols, at times one aside."""
    if model.temporal:
        now = _latent(below, model, height, width)
        moved = np.roll(now, below(3) - 1, axis=2)
        return np.concatenate([np.where(now % 2 == 0, moved, _latent(below, model, height, width)), now])
    return _latent(below, model, height, width)


def _latent(below: Below, model: StepsModel, height: int, width: int) -> NDArray[np.uint8]:
    symbols = np.empty((model.channels, height, width), np.uint8)
    for c, plane in enumerate(model.planes[: model.channels]):
        rare, reach = 1 + below(8), 1 + below(plane.levels)
        found = np.array([plane.offset if below(rare) else below(reach) for _ in range(height * width)], np.uint8)
        symbols[c] = found.reshape(height, width)
        if below(3) == 0:
            symbols[c, : below(height + 1)] = plane.offset
    return symbols


def _bands(below: Below, channels: int, heads: int) -> list[int]:
    rest = range(heads + 1, channels)
    chosen = [c for c in rest if below(2)][: MAX_BANDS - 1]
    return [heads, *chosen]


def _near(below: Below, index: int, channels: int, heads: int, before: int, weight: int) -> Near | None:
    """One that is known by then; None where there is none of the kind that came up."""
    extents, tail = index == channels, heads <= index < channels
    dy, dx = below(3) - 1, below(3) - 1
    if before and below(2) == 0:
        return Near(channels + 1 + below(before), dy, dx, weight)
    if tail and below(3) == 0:
        return Near(channels, dy, dx, weight)
    if not tail and below(3) == 0:
        return Near(index, -1, dx, weight)
    earlier = heads if extents else index
    return Near(below(earlier), dy, dx, weight) if earlier else None


def _tables(below: Below, rows: int) -> NDArray[np.uint16]:
    cdf = np.zeros((rows, TOKENS + 1), np.uint16)
    for row in cdf:
        counts = [1 << below(14) for _ in range(TOKENS)]
        if below(3) == 0:  # nearly certain
            counts[below(TOKENS)] = 1 << 24
        row[1:] = np.cumsum(frequencies_from_counts(counts, 1 << PRECISION))
    return cdf


__all__ = ["random_latent", "random_model"]
