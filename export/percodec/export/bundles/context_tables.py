"""Learns the contexts of an entropy model from latents: which neighbours, what each says, how the sums are cut into contexts.

    per channel   neighbours one after the other, by how much of what is still unknown each explains; their tables by maximum
                  likelihood (a cumulative logistic model, location and log scale both sums over the neighbours: McCullagh 1980,
                  sections 2 and 6); int8; bins at equal counts; bins merged into K contexts where that costs the fewest bits

Everything here may use floating point; what leaves is integers (`percodec.sdk.codec.contexts`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.contexts import MAX_CONTEXTS, MAX_NEIGHBOURS, MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour
from percodec.sdk.codec.entropy_model import EntropyModel
from percodec.sdk.errors import EntropyModelError

OWN = ((-1, 0), (-1, -1), (-1, 1), (-2, 0), (-1, 2), (-1, -2))
EARLIER = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
BEFORE = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3))  # of the same channel, in the latent before
SAMPLES = 100_000
Symbols = NDArray[np.uint8]
_ZERO = np.float32(0)


def learn_contexts(
    latents: Symbols,
    levels: int,
    *,
    neighbours: int | None = None,
    contexts: int | None = None,
    temporal: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> EntropyModel:
    """An entropy model with contexts for `latents` uint8 [N,C,h,w]. Same input, same bytes.

    `temporal`: latents are [N,2C,h,w], one of a stream and the next one, and the model is of the second given the first (profile 2).
    `neighbours` and `contexts` of a channel: at most 32 and 16, and unless said 16 and 10, `temporal` 32 and 16: more are slower.
    Raises EntropyModelError for a number of them that no entropy model can have.
    """
    if neighbours is None:
        neighbours = 32 if temporal else 16
    if contexts is None:
        contexts = 16 if temporal else 10
    for what, asked, most in (("neighbours", neighbours, MAX_NEIGHBOURS), ("contexts", contexts, MAX_CONTEXTS)):
        if not 1 <= asked <= most:
            raise EntropyModelError(f"{asked} {what}; supported are 1..{most} (EntropyModel.from_counts takes neither)")
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
    picked = _pick([v[::3] for v in values], y[::3], levels, most)  # the longest step; a third of the samples picks as well
    features = [values[k] for k in picked]
    (mean_tables, mean), (spread_tables, spread) = (_int8(tables, features) for tables in _likely(features, y, levels))
    sums = (mean, spread)
    borders = [_borders(s, n) for s, n in zip(sums, (MEAN_BINS, SPREAD_BINS), strict=True)]
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
        _, rest = _additive(_design([values[k] for k in picked], levels), y)
    return picked


def _additive(design: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The columns' weights that add up to `y` in the least squares sense, and what they leave."""
    weights = np.linalg.solve(_gram(design, np.ones_like(y), 20.0), (design.T @ y).astype(np.float64))
    return weights, y - design @ weights.astype(np.float32)


def _design(features: list[Symbols], levels: int) -> NDArray[np.float32]:
    """[samples, n * levels + 1]: one column for each level of each feature, and one of ones."""
    return np.concatenate(
        [(f[:, None] == np.arange(levels)).astype(np.float32) for f in features] + [np.ones((len(features[0]), 1), np.float32)], 1
    )


def _gram(design: NDArray[np.float32], weights: NDArray[np.float32], ridge: float) -> NDArray[np.float64]:
    made: NDArray[np.float64] = (design.T @ (design * weights[:, None])).astype(np.float64) + ridge * np.eye(design.shape[1])
    return made


class _Logistic:
    """P(y <= k) = logistic((k + 1/2 - location) / exp(log scale)), the two [samples]; `cost` in nats, without the prior."""

    def __init__(self, location: NDArray[np.float32], log_scale: NDArray[np.float32], y: NDArray[np.int64], levels: int) -> None:
        self.sharp = np.exp(-np.clip(log_scale, -3, 3))[:, None]
        self.at = (np.arange(levels - 1, dtype=np.float32) + 0.5 - location[:, None]) * self.sharp
        below = 1 / (1 + np.exp(-np.clip(self.at, -30, 30)))
        self.density = below * (1 - below)
        self.p = np.maximum(np.diff(below, axis=1, prepend=_ZERO, append=_ZERO + 1), 1e-7)
        self.y = y
        self.cost = -float(np.log(self.p[np.arange(len(y)), y]).sum())

    def slopes(self, of: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of ln P(y) by the location or the log scale, and the Fisher information: [samples] each."""
        by_level = self.density * (self.sharp if of == "location" else self.at)
        change = -np.diff(by_level, axis=1, prepend=_ZERO, append=_ZERO)
        return (change / self.p)[np.arange(len(self.y)), self.y], (change * change / self.p).sum(1)


def _likely(features: list[Symbols], y: NDArray[np.float32], levels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tables [n, levels] whose sums are the location and the log scale of `y`'s distribution: Fisher scoring in turn, three times."""
    design, known = _design(features, levels), y.astype(np.int64)
    start, rest = _additive(design, y)
    weights = {"log scale": np.zeros_like(start), "location": start}
    weights["log scale"][-1] = np.log(max(0.55 * float(rest.std()), 0.05))  # a logistic's scale is sqrt(3) / pi of its deviation

    def model(tried: dict[str, NDArray[np.float64]]) -> tuple[float, _Logistic]:
        location, log_scale = (design @ tried[of].astype(np.float32) for of in ("location", "log scale"))
        now = _Logistic(location, log_scale, known, levels)
        return now.cost + 0.5 * sum(float((w[:-1] ** 2).sum()) for w in tried.values()), now

    cost, now = model(weights)
    for _ in range(3):
        for of, present in weights.items():
            slope, information = now.slopes(of)
            prior = np.append(present[:-1], 0.0)
            step = np.linalg.solve(_gram(design, information, 1.0), (design.T @ slope).astype(np.float64) - prior)
            for part in (1, 0.5, 0.25, 0.1, 0.03):  # where a channel is nearly certain a whole step can overshoot
                tried = weights | {of: present + part * step}
                found, then = model(tried)
                if found < cost:
                    weights[of], cost, now = tried[of], found, then
                    break
    shape = (len(features), levels)
    return weights["location"][:-1].reshape(shape), weights["log scale"][:-1].reshape(shape)


def _int8(tables: NDArray[np.float64], features: list[Symbols]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Tables and their sums, scaled so that the sums seen here, and 15 % more, fit a byte: what is never seen may wrap."""
    centred = tables - (tables.max(1, keepdims=True) + tables.min(1, keepdims=True)) / 2  # the offset is nothing to a bin
    sums = sum(t[f] for t, f in zip(centred, features, strict=True))
    low, high = float(np.min(sums)), float(np.max(sums))
    scale = 126 / (1.15 * (high - low) / 2) if high > low else 0.0
    made: NDArray[np.int8] = np.clip(np.rint((centred - (low + high) / 2 / len(tables)) * scale), -128, 127).astype(np.int8)
    return made, np.sum([t[f] for t, f in zip(made, features, strict=True)], 0, dtype=np.int8)


def _borders(sums: NDArray[np.int8], bins: int) -> NDArray[np.int8]:
    found: NDArray[np.int8] = np.clip(np.ceil(np.quantile(sums, np.arange(1, bins) / bins)), -127, 127).astype(np.int8)
    return found


def _merge(counts: NDArray[np.float64], contexts: int) -> NDArray[np.uint8]:
    """Bins [B, levels] to contexts, by twos where it costs the fewest bits; then each to the one that codes it best, until none moves."""
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
    for _ in range(20):
        sums = np.stack([counts[out == context].sum(0) + 0.2 for context in range(contexts)])
        moved = np.argmax(counts @ np.log2(sums / sums.sum(1, keepdims=True)).T, 1).astype(np.uint8)
        if (moved == out).all():
            break
        out = moved
    return out


def _bits(row: NDArray[np.float64]) -> float:
    return float(-(row * np.log2(row / row.sum())).sum())


__all__ = ["learn_contexts"]
