"""Learns the contexts of an entropy model from latents: which neighbours, what each says, how the sums are cut into contexts.

    per channel   neighbours one after the other, by how much of what is still unknown each explains; their tables by least squares
                  (an additive model of the symbol, then one of the absolute error); int8; bins at equal counts; bins merged into K
                  contexts where that costs the fewest bits

Everything here may use floating point; what leaves is integers (`percodec.sdk.codec.contexts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour
from percodec.sdk.codec.entropy_model import EntropyModel

OWN = ((-1, 0), (-1, -1), (-1, 1), (-2, 0), (-1, 2), (-1, -2))
EARLIER = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
BEFORE = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3))  # of the same channel, in the latent before
SAMPLES = 100_000
Symbols = NDArray[np.uint8]


def learn_contexts(
    latents: Symbols,
    levels: int,
    *,
    neighbours: int = 20,
    contexts: int = 10,
    temporal: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> EntropyModel:
    """An entropy model with contexts for `latents` uint8 [N,C,h,w]. Same input, same bytes.

    `temporal`: latents are [N,2C,h,w], one of a stream and the next one, and the model is of the second given the first (profile 2).
    """
    rng = np.random.default_rng(seed)
    count = latents.shape[1] // 2 if temporal else latents.shape[1]
    now = latents.shape[1] - count  # where the latent that is coded begins
    fills = [int(np.bincount(latents[:, now + c].ravel(), minlength=levels).argmax()) for c in range(count)]
    blank = ChannelContexts(
        (), np.zeros(MEAN_BINS - 1, np.int8), np.zeros(SPREAD_BINS - 1, np.int8), np.zeros(MEAN_BINS * SPREAD_BINS, np.uint8), 0
    )
    channels, tables = [], []
    for c in range(count):
        found = _channel(latents, c, count, levels, fills, neighbours, contexts, rng)
        channels.append(found)
        blanks = [
            replace(blank, fill=fill) for fill in fills[c + 1 :]
        ]  # their fills are looked at already: neighbours in the latent before
        partial = Contexts((*channels, *blanks), levels, contexts, temporal)
        which = np.stack([partial.of_rows(z, c, 0, z.shape[1]) for z in latents])
        counts = np.bincount(which.ravel().astype(np.int64) * levels + latents[:, now + c].ravel(), minlength=contexts * levels)
        tables.append(EntropyModel.from_counts(counts.reshape(contexts, levels)).cdf)
        say(f"channel {c}: {len(found.neighbours)} neighbours")
    return EntropyModel(np.stack(tables), Contexts(tuple(channels), levels, contexts, temporal))


def _channel(
    latents: Symbols, c: int, count: int, levels: int, fills: list[int], most: int, contexts: int, rng: np.random.Generator
) -> ChannelContexts:
    places = [(c, *d) for d in OWN] + [(r, *d) for r in range(c) for d in EARLIER]
    now = latents.shape[1] - count
    if now:
        places += [(count + c, *d) for d in BEFORE] + [(count + r, *d) for r in range(count) if r != c for d in EARLIER]
    size = latents[:, now + c].size
    chosen_samples = np.sort(rng.choice(size, min(SAMPLES, size), replace=False))
    y = latents[:, now + c].ravel()[chosen_samples].astype(np.float32)
    values = [_at(latents, place, count, fills).ravel()[chosen_samples] for place in places]
    picked = _pick(values, y, levels, most)
    features = [values[k] for k in picked]
    mean, rest = _additive(features, y, levels)
    spread, _ = _additive(features, np.abs(rest), levels)
    mean_tables, spread_tables = _int8(mean), _int8(spread)
    sums = [sum(t[f].astype(np.int64) for t, f in zip(tables, features, strict=True)) for tables in (mean_tables, spread_tables)]
    borders = [_borders(np.asarray(s), n) for s, n in zip(sums, (MEAN_BINS, SPREAD_BINS), strict=True)]
    bins = np.searchsorted(borders[0], sums[0], "right") * SPREAD_BINS + np.searchsorted(borders[1], sums[1], "right")
    counts = np.bincount(bins * levels + y.astype(np.int64), minlength=MEAN_BINS * SPREAD_BINS * levels)
    merged = _merge(counts.reshape(-1, levels).astype(np.float64), contexts)
    known = tuple(Neighbour(*places[k], mean_tables[i], spread_tables[i]) for i, k in enumerate(picked))
    return ChannelContexts(known, borders[0], borders[1], merged, fills[c])


def _at(latents: Symbols, place: tuple[int, int, int], count: int, fills: list[int]) -> Symbols:
    channel, dy, dx = place
    plane = latents[:, (channel + latents.shape[1] - count) % latents.shape[1]]
    out = np.full_like(plane, fills[channel % count])
    height, width = plane.shape[1:]
    out[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)] = plane[
        :, max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)
    ]
    return out


def _pick(values: list[Symbols], y: NDArray[np.float32], levels: int, most: int) -> list[int]:
    """Greedy: the neighbour whose levels split the present residual best, then all tables again."""
    rest = y - y.mean()
    counts = [np.bincount(v, minlength=levels) + 5.0 for v in values]
    picked: list[int] = []
    for _ in range(min(most, len(values))):
        gains = [-1.0 if k in picked else float((np.bincount(v, rest, levels) ** 2 / counts[k]).sum()) for k, v in enumerate(values)]
        picked.append(int(np.argmax(gains)))
        _, rest = _additive([values[k] for k in picked], y, levels)
    return picked


def _additive(features: list[Symbols], y: NDArray[np.float32], levels: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Tables [n, levels] whose entries, one per feature, sum to `y` in the least squares sense; and what they leave."""
    design = np.concatenate(
        [(f[:, None] == np.arange(levels)).astype(np.float32) for f in features] + [np.ones((len(y), 1), np.float32)], 1
    )
    gram = (design.T @ design).astype(np.float64) + 20.0 * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, (design.T @ y).astype(np.float64))
    rest = (y - design @ weights.astype(np.float32)).astype(np.float32)
    return weights[:-1].reshape(len(features), levels), rest


def _int8(tables: NDArray[np.float64]) -> NDArray[np.int8]:
    """Scaled so that no sum leaves a byte; each table centred first, for the offset is nothing to a bin."""
    centred = tables - (tables.max(1, keepdims=True) + tables.min(1, keepdims=True)) / 2
    reach = float(np.abs(centred).max(1).sum())
    made: NDArray[np.int8] = np.trunc(centred * (127 / reach if reach > 0 else 0.0)).astype(np.int8)
    return made


def _borders(sums: NDArray[np.int64], bins: int) -> NDArray[np.int8]:
    found: NDArray[np.int8] = np.clip(np.ceil(np.quantile(sums, np.arange(1, bins) / bins)), -127, 127).astype(np.int8)
    return found


def _merge(counts: NDArray[np.float64], contexts: int) -> NDArray[np.uint8]:
    """Bins [B, levels] to contexts, two by two where it costs the fewest bits."""
    rows, groups = [row + 0.2 for row in counts], [[k] for k in range(len(counts))]
    while len(rows) > contexts:
        bits = [_bits(row) for row in rows]
        _, i, j = min((_bits(rows[i] + rows[j]) - bits[i] - bits[j], i, j) for i in range(len(rows)) for j in range(i))
        rows[j] = rows[j] + rows[i]
        groups[j] += groups[i]
        del rows[i], groups[i]
    out = np.zeros(len(counts), np.uint8)
    for context, group in enumerate(groups):
        out[group] = context
    return out


def _bits(row: NDArray[np.float64]) -> float:
    return float(-(row * np.log2(row / row.sum())).sum())


__all__ = ["learn_contexts"]
