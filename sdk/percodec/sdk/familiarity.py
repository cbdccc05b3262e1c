"""How much a frame resembles what a bundle was made for, told from its latent: a monitor of the scene, not a safety mechanism.

    symbols [C,h,w] -> share of each level, of equal neighbours, for each channel --\\
    labels           -> share of each class (where the bundle's head is a part)  ----+-> features z -> distance from what was usual

A frame is far when its features are unusual in either direction, and together: the distance is Mahalanobis' with the covariance shrunk
towards its diagonal. Counts of symbols are all it needs, so a frame, its packet and its replay have the same distance to a rounding.
Symbols of uniform steps (`offsets`) have many levels, most of them rare: they are counted by sign and size, in the leading channels. There
it also counts where things are: how the upper half differs from the lower, the left from the right, and the classes of each quarter of the
rows. A road lies below and the sky above; a covered half of the lens is like no road.
Why not the cost of the symbols: a plain likelihood calls a simple strange picture likely (Nalisnick et al., arXiv 1906.02994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percodec.sdk.codec import _rans
from percodec.sdk.errors import BundleError, UsageError

SHRINKAGE = 0.5
BEYOND = 0.03  # of the frames that set the limit: the oddest of another drive say how odd a frame may be, not how far is too far
MAX_FEATURES = 4096
FARTHEST = 1e9
SIZES = 3  # of a value: 1, 2 and 3, 4 and more steps
LEADING = 8  # channels of uniform steps that are looked at: those of detail say more of one drive's textures than of the scene
BANDS = 4  # of the labels' rows, for which classes are counted
NOISE = 0.05  # of a feature, added to its spread: what hardly ever occurs among the usual frames must not decide alone


def kinds_of(levels: int, offsets: Sequence[int] = ()) -> int:
    """How many kinds of symbols of a channel are told apart: levels, or with `offsets` 0 and each sign's `SIZES`."""
    return 2 * SIZES + 1 if offsets else levels


def feature_count(channels: int, levels: int, classes: int, offsets: Sequence[int] = ()) -> int:
    """How many `features` there are."""
    per_channel = kinds_of(levels, offsets) + 2
    return 3 * min(channels, LEADING) * per_channel + BANDS * classes if offsets else channels * per_channel + classes


def band_pixels(labels: NDArray[np.uint8], classes: int, mask: NDArray[np.bool_] | None = None, bands: int = BANDS) -> NDArray[np.int64]:
    """int64 [bands, classes]: pixels of each class in each band of the rows of labels [...,H,W]. `mask`: bool, scratch."""
    counts, height = np.zeros((bands, classes), np.int64), labels.shape[-2]
    for k in range(classes):
        here = np.equal(labels, k, out=mask)
        for band in range(bands):
            counts[band, k] = np.count_nonzero(here[..., height * band // bands : height * (band + 1) // bands, :])
    return counts


def features(symbols: NDArray[np.uint8], levels: int, pixels: ArrayLike = (), offsets: tuple[int, ...] = ()) -> NDArray[np.float64]:
    """float64 [`feature_count`] of a latent uint8 [C,h,w], C-contiguous, and of `band_pixels` of its labels.

    `offsets` [C]: the symbols that stand for 0, of uniform steps, whose first `LEADING` channels count alone. Square roots of shares: their
    spread is about the same whether a level is common or rare.
    """
    classes = np.asarray(pixels, np.float64).reshape(BANDS, -1) if np.size(pixels) else np.zeros((BANDS, 0))
    if not offsets:
        counts, total = np.zeros((len(symbols), levels + 2), np.uint32), classes.sum(0)
        _rans.latent_statistics(symbols, counts)
        shares = np.sqrt(counts / _sizes(levels, symbols.shape[1:]))
        return np.concatenate([shares.ravel(), np.sqrt(total / max(1.0, float(total.sum())))])
    bands = np.sqrt(classes / np.maximum(1, classes.sum(1, keepdims=True)))
    return np.concatenate([*_of_halves(symbols[:LEADING], offsets[:LEADING]), bands.ravel()])


def _of_halves(symbols: NDArray[np.uint8], offsets: tuple[int, ...]) -> tuple[NDArray[np.float64], ...]:
    """Shares of the whole, upper less lower, left against right."""
    channels, height, width = symbols.shape
    row, column, borders = height // 2, width // 2, _borders(offsets)
    parts = symbols[:, : max(1, row)], symbols[:, row:], symbols[:, :, : max(1, column)], symbols[:, :, column:]
    last, kinds = borders.shape[1], borders.shape[1] + 1
    every = np.empty((4, channels, last + 2), np.uint32)
    for part, into in zip(parts, every, strict=True):
        _rans.latent_statistics_below(np.ascontiguousarray(part), borders, into)
    counts = np.empty((5, channels, kinds + 2))
    counts[:4, :, :last], counts[:4, :, kinds:] = every[:, :, :last], every[:, :, last:]
    counts[:4, :, last] = [[part[0].size] for part in parts]
    counts[:4, :, 1:kinds] -= every[:, :, :last]
    counts[4] = counts[0]
    if row:  # the whole: two halves, and what lies on both sides of their border
        counts[4] += counts[1]
        counts[4, :, -1] += (symbols[:, row - 1] == symbols[:, row]).sum(1)
    upper, lower, left, right, whole = np.sqrt(counts / _sizes(kinds, *(part.shape[1:] for part in (*parts, symbols))))
    return whole.ravel(), (upper - lower).ravel(), np.abs(left - right).ravel()


@lru_cache(8)
def _sizes(kinds: int, *shapes: tuple[int, int]) -> NDArray[np.float64]:
    """[shapes, 1, kinds + 2]: how many symbols, right neighbours and lower neighbours there are in h x w."""
    sizes = [[h * w] * kinds + [max(1, h * (w - 1)), max(1, (h - 1) * w)] for h, w in shapes]
    return np.array(sizes, np.float64)[:, None]


@lru_cache(8)
def _borders(offsets: tuple[int, ...]) -> NDArray[np.uint16]:
    """[C, kinds - 1]: the symbol at which each kind but the first begins."""
    sizes = 2 ** np.arange(SIZES)
    values = np.concatenate([1 - sizes[:0:-1], [0], sizes])  # -3, -1, 0, 1, 2, 4
    borders: NDArray[np.uint16] = np.maximum(values + np.array(offsets)[:, None], 0).astype(np.uint16)
    return borders


class Familiarity:
    """What is usual for a bundle: mean and spread of each feature, and how they go together. Immutable.

    `distance` of a frame is 1.0 at the limit of what is familiar, 0 for the most usual one there could be.
    """

    def __init__(
        self,
        mean: ArrayLike,
        spread: ArrayLike,
        inverse: ArrayLike,
        limit: float,
        levels: int,
        classes: int,
        head: str | None = None,
        offsets: Sequence[int] = (),
    ) -> None:
        """`mean`, `spread` [F], `inverse` [F,F] of the shrunk correlation; `limit`: the distance that is 1.0. Raises `BundleError`.

        `head`: the name of the segmentation head that the `classes` are of. `offsets`: as in `features`.
        """
        self.mean, self.spread, self.inverse = (np.array(a, np.float32) for a in (mean, spread, inverse))
        self.limit, self.levels, self.classes, self.head, self.offsets = float(limit), levels, classes, head, tuple(offsets)
        count = self.mean.size
        finite = all(np.isfinite(a).all() for a in (self.mean, self.spread, self.inverse))
        if self.mean.shape != (count,) or self.spread.shape != (count,) or self.inverse.shape != (count, count) or not finite:
            raise BundleError("a familiarity is finite mean [F], spread [F] and inverse [F,F]; make it again")
        if not (float(self.spread.min()) > 0 and math.isfinite(self.limit) and self.limit > 0):
            raise BundleError("a familiarity's spreads and limit are above 0; make it again")
        channels = len(self.offsets) or max(1, (count - classes) // (levels + 2))
        if not 0 < count <= MAX_FEATURES or count != feature_count(channels, levels, classes, self.offsets):
            raise BundleError(f"a familiarity of {levels} levels and {classes} classes cannot have {count} features; make it again")
        for array in (self.mean, self.spread, self.inverse):
            array.setflags(write=False)

    @classmethod
    def fit(
        cls,
        usual: ArrayLike,
        limit_from: ArrayLike,
        levels: int,
        classes: int,
        head: str | None = None,
        offsets: Sequence[int] = (),
    ) -> Familiarity:
        """From features [N,F] of frames that the bundle was made for, and of other frames [M,F] as usual, which set the limit.

        The oddest of those (`BEYOND`) lie beyond it. Raises `UsageError` for too few frames.
        """
        known, others = np.asarray(usual, np.float64), np.asarray(limit_from, np.float64)
        if known.ndim != 2 or len(known) < 32 or others.ndim != 2 or len(others) < 32:
            raise UsageError("a familiarity needs at least 32 frames to be made from, and 32 others for its limit; give more pictures")
        mean, spread = known.mean(0), np.hypot(known.std(0), NOISE)
        z = (known - mean) / spread
        inverse = np.linalg.inv((1 - SHRINKAGE) * (z.T @ z) / len(z) + SHRINKAGE * np.eye(z.shape[1]))
        made = cls(mean, spread, inverse, 1.0, levels, classes, head, offsets)
        limit = float(np.quantile([made.distance_of(row) for row in others], 1 - BEYOND))
        return cls(mean, spread, inverse, limit, levels, classes, head, offsets)

    @classmethod
    def from_bytes(
        cls, data: bytes, limit: float, channels: int, levels: int, classes: int, head: str | None, offsets: Sequence[int] = ()
    ) -> Familiarity:
        """Of `to_bytes`. Raises `BundleError`."""
        count = feature_count(channels, levels, classes, offsets)
        if len(data) != 4 * count * (count + 2):
            raise BundleError(f"a familiarity of {count} features has {4 * count * (count + 2)} bytes, got {len(data)}; make it again")
        rows = np.frombuffer(data, "<f4").reshape(count + 2, count)
        return cls(rows[0], rows[1], rows[2:], limit, levels, classes, head, offsets)

    def to_bytes(self) -> bytes:
        """float32 [F + 2, F], little-endian: mean, spread, inverse. The limit is kept beside it."""
        return np.concatenate([self.mean[None], self.spread[None], self.inverse]).astype("<f4").tobytes()

    def distance(self, symbols: NDArray[np.uint8], pixels: ArrayLike = ()) -> float:
        """Of a latent uint8 [C,h,w] and, where `classes` is not 0, the `band_pixels` [4, classes] of its labels.

        Above 1.0 the frame is unfamiliar. Raises `UsageError` where the latent or the classes are others.
        """
        classes = np.asarray(pixels)
        channels = len(self.offsets) or (self.mean.size - self.classes) // (self.levels + 2)
        if classes.size != BANDS * self.classes or symbols.ndim != 3 or symbols.shape[0] != channels:
            raise UsageError(
                f"this familiarity is of {channels} channels and {self.classes} classes, "
                f"got a latent {list(symbols.shape)} and {classes.size // BANDS} classes"
            )
        return self.distance_of(features(np.ascontiguousarray(symbols), self.levels, classes, self.offsets))

    def distance_of(self, found: NDArray[np.float64]) -> float:
        """`distance` from the `features` of a frame, `FARTHEST` at most: what cannot be computed must not pass for usual."""
        with np.errstate(over="ignore", invalid="ignore"):
            z = ((found - self.mean) / self.spread).astype(np.float32)
            square = float(z @ self.inverse @ z)
        return min(math.sqrt(max(0.0, square) / z.size) / self.limit, FARTHEST) if math.isfinite(square) else FARTHEST


__all__ = ["BANDS", "BEYOND", "FARTHEST", "MAX_FEATURES", "Familiarity", "band_pixels", "feature_count", "features", "kinds_of"]
