"""Learns the tables of latents with uniform steps (`StepsModel`): which neighbours say how wide and where, classes, probabilities.

    per plane   place: least squares on earlier symbols, one neighbour after the other, kept where it explains something
                width: least squares on their |values|, weights above 0, each sample weighed by 1 / (expected |difference|)^2, which is
                what maximum likelihood does with a Laplace distribution
                classes: sums cut where the fewest bits are lost, from 256 bins down to 16

Everything here may use floating point; what leaves is integers (`percodec.sdk.codec.steps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.entropy_model import frequencies_from_counts
from percodec.sdk.codec.steps import CLASSES, ESCAPE, MAX_BANDS, PRECISION, TOKENS, Near, Plane, StepsModel, sums_and_places, tokens_of
from percodec.sdk.errors import EntropyModelError

Symbols = NDArray[np.uint8]
Floats = NDArray[np.float64]
Place = tuple[int, int, int]  # plane, dy, dx
Where = tuple[NDArray[np.intp], NDArray[np.intp]]
SAMPLES = 24_000
WIDTH, PLACE = 8, 6  # neighbours of a plane
_MOST_HEADS, _BAND = 8, 4
_SCREENED = 64  # neighbours that are looked at closely, for the place and for the width
_WORTH = 0.03  # of the variance, at least, is what a place explains
_AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
_ABOVE = ((-1, -1), (-1, 0), (-1, 1))


def learn_steps(
    latents: Sequence[Symbols] | Symbols,
    offsets: Sequence[int],
    levels: Sequence[int],
    *,
    temporal: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> StepsModel:
    """Tables for `latents`, uint8 [C,h,w] each, whose symbols are values + `offsets`, below `levels`. Same input, same bytes.

    `temporal`: of predicted packets, for latents [2C,h,w], the one before and then this one. Channels come in falling importance. Raises
    `EntropyModelError` where latents, offsets and levels do not fit each other.
    """
    symbols = [np.asarray(latent) for latent in latents]
    channels = len(offsets)
    given, most = channels * (2 if temporal else 1), np.array([*levels] * (2 if temporal else 1))
    if not symbols or len(levels) != channels or not channels:
        raise EntropyModelError(f"{len(symbols)} latents, {channels} offsets, {len(levels)} levels: as many of the latter, some of all")
    for s in symbols:
        if s.dtype != np.uint8 or s.ndim != 3 or s.shape[0] != given or (s.reshape(given, -1).max(1) >= most).any():
            raise EntropyModelError(f"a latent is {s.dtype} {list(s.shape)}: it must be uint8 [{given},h,w], symbols below their levels")
    learner = _Learner(symbols, [int(o) for o in offsets], [int(n) for n in levels], temporal, seed)
    planes = {}
    for plane in learner.order:
        planes[plane] = learner.plane(plane)
        say(f"plane {plane}: {len(planes[plane].width)} neighbours for the width, {len(planes[plane].place)} for the place")
    return StepsModel(tuple(planes[k] for k in sorted(planes)), learner.heads, learner.bands, temporal)


class _Learner:
    """`known`: each latent with its extents, and the one before with its own, uint8 [planes,h,w]; `places`: sampled ones of each.

    `flat`: uint8 [planes,all], all of them one after the other, each with a margin of its planes' offsets; `first`: where each begins.
    """

    def __init__(self, symbols: list[Symbols], offsets: list[int], levels: list[int], temporal: bool, seed: int) -> None:
        self.channels, self.temporal = len(offsets), temporal
        self.heads = _heads([s[-self.channels :] for s in symbols])
        count = min(MAX_BANDS, -(-(self.channels - self.heads) // _BAND))
        self.bands = tuple(self.heads + k * (self.channels - self.heads) // count for k in range(count))
        blank = _blank(offsets, levels, self.heads, self.bands)
        self.blank = StepsModel(blank, self.heads, self.bands, temporal)
        self.order = self.blank.order()
        self.offsets = self.blank.plane_offsets()
        self.known = [self.blank.known_of(s) for s in symbols]
        self.flat = np.concatenate([self._with_margin(known) for known in self.known], 1)
        self.first = np.cumsum([0, *((k.shape[1] + 2) * (k.shape[2] + 2) for k in self.known)])[:-1]
        rng = np.random.default_rng(seed)
        sizes = np.array([s[0].size for s in symbols])
        self.places = [np.sort(rng.choice(n, min(n, -(-int(n) * 4 * SAMPLES // int(sizes.sum()))), replace=False)) for n in sizes]

    def _with_margin(self, known: Symbols) -> Symbols:
        planes, height, width = known.shape
        out = np.empty((planes, height + 2, width + 2), np.uint8)
        out[:] = np.array(self.offsets[:planes], np.uint8)[:, None, None]
        out[:, 1:-1, 1:-1] = known
        return out.reshape(planes, -1)

    def _in_flat(self, of: list[NDArray[np.intp]]) -> Where:
        """Places of each latent, in raster order, as places in `flat`, and how far the next row is from each."""
        where, strides = [], []
        for known, first, at in zip(self.known, self.first, of, strict=True):
            width = known.shape[2]
            where.append(first + (at // width + 1) * (width + 2) + at % width + 1)
            strides.append(np.full(len(at), width + 2))
        return np.concatenate(where), np.concatenate(strides)

    def sampled(self, plane: int, dy: int, dx: int, of: Where) -> Floats:
        """Values, symbols less their offset, at `of` moved by (dy, dx)."""
        found: Floats = self.flat[plane][of[0] + dy * of[1] + dx].astype(np.float64) - self.offsets[plane]
        return found

    def plane(self, index: int) -> Plane:
        base, extents, tail = self.blank.planes[index], index == self.channels, self.heads <= index < self.channels
        coded = [self.blank.coded_at(known, index) for known in self.known]
        each = [at[where.ravel()[at]] for (where, _), at in zip(coded, self.places, strict=True)]
        if (size := sum(len(at) for at in each)) > SAMPLES:
            each = [at[:: -(-size // SAMPLES)] for at in each]
        of, few = self._in_flat(each), self._in_flat([at[::8] for at in each])
        earlier = range(self.heads) if extents else range(index)
        candidates = [(c, *d) for c in earlier for d in _AROUND]
        candidates += [(self.channels, *d) for d in _AROUND] if tail else [(index, *d) for d in _ABOVE]
        if self.temporal:
            first = self.channels + 1
            candidates += [(first + c, 0, 0) for c in range(self.channels) if c != index]
            candidates += [(plane, *d) for plane in {first + index, first + self.channels} for d in _AROUND if plane <= self.blank.last]
        place: list[Near] = []
        width: list[Near] = []
        shift, bias = 0, 64 * base.offset
        y = self.sampled(index, 0, 0, of)
        if len(y) >= 64 and float(np.abs(y).max()) > 0:
            signed, sized = self._screened(index, candidates, few)
            if not extents:
                place, y = self._place(signed, self._features(signed, of), y)
                bias -= sum(n.weight * self.offsets[n.plane] for n in place)
            width, shift = _width(sized, np.abs(self._features(sized, of)), np.abs(y))
        made = Plane(
            base.levels, base.offset, shift, tuple(width), tuple(place), (bias + 32768) % 65536 - 32768, base.borders, base.cdf, base.digits
        )
        return self._tables(index, made, coded)

    def _features(self, candidates: list[Place], of: Where) -> Floats:
        if not candidates:
            return np.zeros((len(of[0]), 0))
        return np.stack([self.sampled(*c, of) for c in candidates], 1)

    def _screened(self, index: int, candidates: list[Place], few: Where) -> tuple[list[Place], list[Place]]:
        """Those that go with the symbol, and those whose sizes go with its size, by an eighth of the samples."""
        y, features = self.sampled(index, 0, 0, few), self._features(candidates, few)
        extents = (self.channels, 2 * self.channels + 1)
        signed = np.abs(_correlations(features, y)) * np.array([c[0] not in extents for c in candidates])
        sized = _correlations(np.abs(features), np.abs(y))
        best = [[candidates[k] for k in np.argsort(-scores, kind="stable")[:_SCREENED] if scores[k] > 0] for scores in (signed, sized)]
        return best[0], best[1]

    def _place(self, candidates: list[Place], features: Floats, y: Floats) -> tuple[list[Near], Floats]:
        picked, weights = _pick(features, y, np.ones_like(y), PLACE, positive=False)
        whole = np.clip(np.rint(weights * 64), -64, 64).astype(int)
        near = [(k, w) for k, w in zip(picked, whole.tolist(), strict=True) if w]
        if not near:
            return [], y
        left = y - np.floor(features[:, [k for k, _ in near]] @ np.array([w for _, w in near]) / 64 + 0.5)
        if (left**2).mean() > (1 - _WORTH) * (y**2).mean():
            return [], y
        return [Near(*candidates[k], w) for k, w in near], left

    def _tables(self, index: int, plane: Plane, coded: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> Plane:
        extents = index == self.channels
        counts, digits = np.zeros((2, 256, TOKENS), np.int64), np.zeros((2, TOKENS), np.int64)
        for known, (where, must) in zip(self.known, coded, strict=True):
            sums, places = sums_and_places(plane, self.offsets, known)
            tokens, differences = tokens_of(known[index], places, extents)
            np.add.at(counts, (must[where].astype(int), sums[where], tokens[where]), 1)
            escaped = differences[where & (tokens == ESCAPE)]
            digits += np.stack([np.bincount(escaped >> 4, minlength=TOKENS), np.bincount(escaped & 15, minlength=TOKENS)])
        borders = _borders(counts.sum(0).astype(np.float64))
        which = np.searchsorted(borders, np.arange(256), "right")
        rows = np.zeros((2, CLASSES, TOKENS), np.int64)
        for row, count in zip(rows, counts, strict=True):
            np.add.at(row, which, count)
        rows = rows if self.heads <= index < self.channels else rows[:1]
        made = np.concatenate([_rows(part) for part in rows])
        found = None if extents else _cdf(digits * 16 + 1)
        return Plane(plane.levels, plane.offset, plane.shift, plane.width, plane.place, plane.bias, borders, made, found)


def _heads(symbols: list[Symbols]) -> int:
    """How many channels are coded everywhere: up to the last of the first that resembles what is above it."""
    heads = 1
    for c in range(min(_MOST_HEADS, symbols[0].shape[0])):
        pairs = [(s[c, :-1].ravel().astype(np.float64), s[c, 1:].ravel().astype(np.float64)) for s in symbols]
        a, b = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        a, b = a - a.mean() if a.size else a, b - b.mean() if b.size else b
        if float(a @ b) > 0.5 * float(np.sqrt((a @ a) * (b @ b))) > 0:
            heads = c + 1
    return heads


def _blank(offsets: list[int], levels: list[int], heads: int, bands: tuple[int, ...]) -> tuple[Plane, ...]:
    """Planes without neighbours and with even tables."""
    even = _cdf(np.ones((2 * CLASSES, TOKENS), np.int64))
    borders = np.full(CLASSES - 1, 255, np.uint8)
    planes = [
        Plane(n, o, 0, (), (), 64 * o, borders, even[: CLASSES if c < heads else 2 * CLASSES], even[:2])
        for c, (o, n) in enumerate(zip(offsets, levels, strict=True))
    ]
    return (*planes, Plane(len(bands) + 1, 0, 0, (), (), 0, borders, even[:CLASSES], None)) if bands else tuple(planes)


def _correlations(features: Floats, y: Floats) -> Floats:
    """Of each column with `y`; 0 for a column of one value."""
    f, t = features - features.mean(0) if len(y) else features, y - y.mean() if len(y) else y
    size = np.sqrt((f * f).sum(0) * (t @ t))
    found: Floats = np.divide(f.T @ t, size, out=np.zeros(f.shape[1]), where=size > 0)
    return found


def _pick(features: Floats, y: Floats, weights: Floats, most: int, positive: bool) -> tuple[list[int], Floats]:
    """Orthogonal matching pursuit: which columns, at most so many, and what of each adds up to `y` in the weighted least squares sense."""
    weighted = features * weights[:, None]
    gram, b = weighted.T @ features, weighted.T @ y
    gram += 1e-4 * np.diag(np.diag(gram)) + 1e-6 * np.eye(len(gram))
    picked: list[int] = []
    w: Floats = np.zeros(0)
    rest = b.copy()
    for _ in range(min(most, len(gram))):
        scores = rest / np.sqrt(np.diag(gram))
        scores = scores if positive else np.abs(scores)
        scores[picked] = -1
        if (best := int(np.argmax(scores))) in picked or scores[best] <= 1e-9:
            break
        picked.append(best)
        w = np.linalg.solve(gram[np.ix_(picked, picked)], b[picked])
        while positive and (w <= 0).any():  # what became useless leaves
            del picked[int(np.argmin(w))]
            w = np.linalg.solve(gram[np.ix_(picked, picked)], b[picked]) if picked else np.zeros(0)
        rest = b - gram[:, picked] @ w
    return picked, w


def _width(candidates: list[Place], features: Floats, y: Floats) -> tuple[list[Near], int]:
    """Neighbours whose weighted sum tells how large `y` is, all of it not negative, and the shift of the sum."""
    floor = 0.05 * float(y.mean()) + 1e-3
    expected = np.full_like(y, y.mean())
    ones = np.ones((len(y), 1))
    picked: list[int] = []
    w: Floats = np.zeros(0)
    for _ in range(3):
        columns = np.concatenate([features, ones], 1)
        picked, w = _pick(columns, y, 1 / (expected + floor) ** 2, WIDTH + 1, positive=True)
        expected = np.minimum(columns[:, picked] @ w, 4 * y.max())
    chosen = [(k, v) for k, v in zip(picked, w.tolist(), strict=True) if k < len(candidates)][:WIDTH]
    if not chosen:
        return [], 0
    scale = 63 / max(v for _, v in chosen)
    near = [(k, round(v * scale)) for k, v in chosen]
    near = [(k, v) for k, v in near if v]
    high = float(np.quantile(features[:, [k for k, _ in near]] @ np.array([v for _, v in near]), 0.995))
    shift = 0
    while shift < 7 and high / (1 << shift) > 240:
        shift += 1
    return [Near(*candidates[k], v) for k, v in near], shift


def _borders(counts: Floats) -> NDArray[np.uint8]:
    """Of bins [256, tokens]: bins merged with the next, where the fewest bits are lost, until 16 are left."""
    rows, ends = [counts[0] + 0.01], [1]
    for k in range(1, 256):
        if rows[-1].sum() < 32 or counts[k].sum() < 1:
            rows[-1] = rows[-1] + counts[k]
            ends[-1] = k + 1
        else:
            rows.append(counts[k] + 0.01)
            ends.append(k + 1)
    while len(rows) > CLASSES:
        lost = [_bits(a + b) - _bits(a) - _bits(b) for a, b in pairwise(rows)]
        k = int(np.argmin(lost))
        rows[k : k + 2] = [rows[k] + rows[k + 1]]
        del ends[k]
    return np.array([*ends[:-1], *[255] * (CLASSES - len(ends))], np.uint8)


def _bits(row: Floats) -> float:
    return float(-(row * np.log2(row / row.sum())).sum())


def _rows(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Of counts [rows, tokens]: what all rows say together counts as a few more symbols of each."""
    whole = counts.sum(0)
    share = whole * 64 // max(int(whole.sum()), 1)
    return _cdf(counts * 16 + share)


def _cdf(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    cdf = np.zeros((len(counts), TOKENS + 1), np.uint16)
    for k, row in enumerate(counts.tolist()):
        cdf[k, 1:] = np.cumsum(frequencies_from_counts(row, 1 << PRECISION))
    return cdf


__all__ = ["learn_steps"]
