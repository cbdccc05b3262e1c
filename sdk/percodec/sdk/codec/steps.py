"""`StepsModel`: tables for latents of uniform steps, whose symbols are `value + offset`, most values 0. BITSTREAM.md, "Steps".

    heads      the first channels, coded everywhere: a symbol less its `place`, which is predicted from symbols around it
    extents    how many bands of the other channels say anything at each place of the latent
    tails      the other channels, coded where the extent reaches their band; 0 elsewhere

    neighbours' |values| --weights--> sum --borders--> one of 16 classes: how wide the symbol's distribution is

With `temporal` neighbours are also in the latent before (profile 5): arrays are uint8 [2C,h,w], that one first.

Which one should I use? This for a light encoder's latents, with a step of its own for each channel; `EntropyModel` for a few shared levels.
`percodec.export.bundles.steps_tables` learns one. Integers only: the same bytes on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.serialised import Serialised
from percodec.sdk.errors import EntropyModelError

PROFILE_STEPS, PROFILE_STEPS_TEMPORAL = 4, 5
CLASSES = 16
TOKENS = 16
ESCAPE = TOKENS - 1  # as a token: the difference does not fit -7 .. 7 and follows in two digits
HALF = 7
PRECISION = 14
MAX_BANDS = 15
MAX_WIDTH, MAX_PLACE = 16, 8  # neighbours
_SCALE = 1 << PRECISION
_MAGIC, _VERSION, _MAX_CHANNELS = b"PCEM", 1, 1024
_HEADER = struct.Struct("<4sBBBBHH")  # magic, version, profile, precision, classes, channels, the most levels of a channel
_LAYOUT = struct.Struct("<HB")  # heads, bands
_PLANE = struct.Struct("<BBBBBh")  # levels - 1, offset, shift, width neighbours, place neighbours, bias
_NEIGHBOUR = struct.Struct("<Hbbb")  # plane, dy, dx, weight


@dataclass(frozen=True)
class Near:
    """The symbol of `plane` at (y + dy, x + dx), and its weight in a sum.

    `plane`: a channel, or C: the extents; C + 1 + k is k of the latent before.
    """

    plane: int
    dy: int
    dx: int
    weight: int


@dataclass(frozen=True)
class Plane:
    """How one channel is coded, or the extents.

    `width`: what makes the class, weights 0..63; the sum of weight * |symbol - offset| is shifted right by `shift`, 0..7, and compared with
    `borders`, uint8 [15], not falling. `place`: what predicts the symbol, weights -64..64 in 1/64, beside `bias`, in 1/64 too.
    `cdf`: uint16 [rows, 17], 16 rows, of tails 32, each rising from 0 to 16384. `digits`: uint16 [2, 17], of escapes; extents have none.
    """

    levels: int
    offset: int
    shift: int
    width: tuple[Near, ...]
    place: tuple[Near, ...]
    bias: int
    borders: NDArray[np.uint8]
    cdf: NDArray[np.uint16]
    digits: NDArray[np.uint16] | None


class StepsModel(Serialised):
    """Checked and immutable. `planes`: one for each channel, then one of the extents where there are bands.

    The first `heads` channels are coded everywhere; `bands` are the first channels of each band of the others, rising, the first of them
    `heads`; none where all channels are heads. `temporal`: neighbours may lie in the latent before. Raises `EntropyModelError` for anything
    that a decoder could not follow exactly.
    """

    precision = PRECISION

    def __init__(self, planes: tuple[Plane, ...], heads: int, bands: tuple[int, ...], temporal: bool = False) -> None:
        channels = len(planes) - (1 if bands else 0)
        if not (1 <= channels <= _MAX_CHANNELS and 1 <= heads <= channels and len(bands) <= MAX_BANDS):
            raise EntropyModelError(f"{channels} channels, {heads} heads, {len(bands)} bands; at most {_MAX_CHANNELS}, {MAX_BANDS} bands")
        ends = (*bands, channels)
        if (bands[0] if bands else channels) != heads or any(a >= b for a, b in pairwise(ends)):
            raise EntropyModelError(f"bands begin at {list(bands)}: they must rise, from {heads}, the first channel that is no head")
        self.planes, self.heads, self.bands, self.temporal, self._channels = planes, heads, bands, temporal, channels
        for index in range(len(planes)):
            self._check(index)
        self._seal(self._packed())

    @property
    def channels(self) -> int:
        return self._channels

    @property
    def profile(self) -> int:
        return PROFILE_STEPS_TEMPORAL if self.temporal else PROFILE_STEPS

    @property
    def levels(self) -> int:
        """The most of any channel: all symbols are below it."""
        return max(plane.levels for plane in self.planes[: self._channels])

    @property
    def levels_per_channel(self) -> tuple[int, ...]:
        return tuple(plane.levels for plane in self.planes[: self._channels])

    @property
    def offsets(self) -> tuple[int, ...]:
        """The symbol of each channel that stands for 0."""
        return tuple(plane.offset for plane in self.planes[: self._channels])

    def band_of(self, channel: int) -> int | None:
        """None of a head."""
        found = sum(first <= channel for first in self.bands)
        return found - 1 if found else None

    @property
    def last(self) -> int:
        """The highest plane that a neighbour may be of."""
        return self._channels + (self._channels + 1 if self.temporal else 0) - (0 if self.bands else 1)

    def order(self) -> list[int]:
        """Planes in the order in which they are coded: heads, extents, tails."""
        extents = [self._channels] if self.bands else []
        return [*range(self.heads), *extents, *range(self.heads, self._channels)]

    def known_of(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [planes,h,w], each plane by its number: symbols and extents; behind them, if `temporal`, those of the latent before."""
        if not self.temporal:
            return self.with_extents(symbols)
        before, now = self.with_extents(symbols[: self._channels]), self.with_extents(symbols[self._channels :])
        without = np.zeros((self._channels + 1 - len(now), *symbols.shape[1:]), np.uint8)
        return np.concatenate([now, without, before, without])

    def with_extents(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [C+1,h,w]: symbols [C,h,w] and what their extents are; without bands the symbols alone."""
        if not self.bands:
            return symbols
        extents = np.zeros(symbols.shape[1:], np.uint8)
        for band, (first, end) in enumerate(zip(self.bands, (*self.bands[1:], self._channels), strict=True)):
            said = [symbols[c] != self.planes[c].offset for c in range(first, end)]
            extents[np.any(said, axis=0)] = band + 1
        return np.concatenate([symbols, extents[None]])

    def classes_and_places(self, known: NDArray[np.uint8], plane: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Of one plane of `known` [planes,h,w]: uint8 [h,w] each. Looks at planes before it in order, and at rows above in its own."""
        sums, places = sums_and_places(self.planes[plane], self.plane_offsets(), known)
        return np.searchsorted(self.planes[plane].borders, sums, "right").astype(np.uint8), places

    def plane_offsets(self) -> list[int]:
        """Of every plane of `known_of`; 0 of extents."""
        return [*self.offsets, 0] * 2

    def coded_at(self, known: NDArray[np.uint8], plane: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """bool [h,w]: where a plane's symbols are coded, and where at least one that is left of the band must not be 0."""
        everywhere = np.ones(known.shape[1:], bool)
        band = self.band_of(plane)
        if plane == self._channels or band is None:
            return everywhere, ~everywhere
        extents = known[self._channels]
        must = extents == band + 1
        for c in range(self.bands[band], plane):
            must &= known[c] == self.planes[c].offset
        return extents > band, must

    def cost_bits(self, symbols: NDArray[np.uint8]) -> float:
        """Ideal code length in bits of `symbols` [C,h,w], below their channel's levels, under these tables."""
        known = self.known_of(self.check(symbols))
        bits = 0.0
        for plane in self.order():
            classes, places = self.classes_and_places(known, plane)
            coded, must = self.coded_at(known, plane)
            cost = PRECISION - np.log2(np.diff(self.planes[plane].cdf.astype(np.float64), axis=1))
            tokens, differences = tokens_of(known[plane], places, plane == self._channels)
            bits += float(cost[classes + CLASSES * must, tokens][coded].sum())
            digits = self.planes[plane].digits
            if digits is not None:
                digit = PRECISION - np.log2(np.diff(digits.astype(np.float64), axis=1))
                escaped = differences[coded & (tokens == ESCAPE)]
                bits += float(digit[0, escaped >> 4].sum() + digit[1, escaped & 15].sum())
        return bits

    def check(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`symbols`, if they are uint8 [C,h,w], or [2C,h,w] if `temporal`, below their channel's levels; else `EntropyModelError`."""
        channels = self._channels * (2 if self.temporal else 1)
        if symbols.dtype != np.uint8 or symbols.ndim != 3 or symbols.shape[0] != channels:
            raise EntropyModelError(f"symbols must be uint8 [{channels},h,w], got {symbols.dtype} {list(symbols.shape)}")
        for c, levels in enumerate(self.levels_per_channel * (2 if self.temporal else 1)):
            if symbols[c].size and int(symbols[c].max()) >= levels:
                raise EntropyModelError(f"symbols of channel {c} reach {int(symbols[c].max())}, it has levels 0..{levels - 1}")
        return symbols

    def _check(self, index: int) -> None:
        plane, extents, tail = self.planes[index], index == self._channels, self.heads <= index < self._channels
        where = "extents" if extents else f"channel {index}"
        wanted = len(self.bands) + 1 if extents else plane.levels
        if not 1 <= plane.levels <= 256 or plane.levels != wanted or not 0 <= plane.offset < (1 if extents else plane.levels):
            raise EntropyModelError(f"{where}: {plane.levels} levels, offset {plane.offset}; at most 256, the offset below them")
        if len(plane.width) > MAX_WIDTH or len(plane.place) > (0 if extents else MAX_PLACE) or not 0 <= plane.shift <= 7:
            raise EntropyModelError(f"{where}: at most {MAX_WIDTH} and {MAX_PLACE} neighbours, none for the place of extents, shift 0..7")
        if not -(1 << 15) <= plane.bias < 1 << 15 or (extents and plane.bias):
            raise EntropyModelError(f"{where}: bias {plane.bias} does not fit 16 bits, or is not 0 for extents")
        for near, least, most in ((plane.width, 0, 63), (plane.place, -64, 64)):
            for n in near:
                own = n.plane == index and n.dy < 0 and not tail
                earlier = 0 <= n.plane < min(index, self.heads if extents else index)
                before = self._channels < n.plane <= self.last
                if not (own or earlier or before or (tail and n.plane == self._channels)) or abs(n.dy) > 1 or abs(n.dx) > 1:
                    raise EntropyModelError(f"{where}: ({n.plane}, {n.dy}, {n.dx}) is not a symbol that is known by then and near")
                if not least <= n.weight <= most:
                    raise EntropyModelError(f"{where}: a weight is {n.weight}, {least}..{most} are possible")
        if plane.borders.dtype != np.uint8 or plane.borders.shape != (CLASSES - 1,) or (np.diff(plane.borders.astype(int)) < 0).any():
            raise EntropyModelError(f"{where}: borders must be uint8 [{CLASSES - 1}], not falling")
        _check_cdf(plane.cdf, 2 * CLASSES if tail else CLASSES, where)
        if extents != (plane.digits is None):
            raise EntropyModelError(f"{where}: channels have tables of digits, extents none")
        if plane.digits is not None:
            _check_cdf(plane.digits, 2, where)

    def _packed(self) -> bytes:
        out = [_HEADER.pack(_MAGIC, _VERSION, self.profile, PRECISION, CLASSES, self._channels, self.levels)]
        out += [_LAYOUT.pack(self.heads, len(self.bands)), np.array(self.bands, "<u2").tobytes()]
        for plane in self.planes:
            sizes = (len(plane.width), len(plane.place))
            out.append(_PLANE.pack(plane.levels - 1, plane.offset, plane.shift, *sizes, plane.bias))
            out += [_NEIGHBOUR.pack(n.plane, n.dy, n.dx, n.weight) for n in (*plane.width, *plane.place)]
            out += [plane.borders.tobytes(), plane.cdf[:, 1:-1].astype("<u2").tobytes()]
            if plane.digits is not None:
                out.append(plane.digits[:, 1:-1].astype("<u2").tobytes())
        return b"".join(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> StepsModel:
        """Inverse of `to_bytes`. Raises `EntropyModelError` on anything but exactly one valid model."""
        at = 0

        def take(size: int) -> bytes:
            nonlocal at
            if at + size > len(data):
                raise EntropyModelError("the entropy model ends too early; write it again")
            at += size
            return data[at - size : at]

        def rows(count: int) -> NDArray[np.uint16]:
            inner = np.frombuffer(take(2 * count * (TOKENS - 1)), "<u2").reshape(count, TOKENS - 1)
            return np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, _SCALE))).astype(np.uint16)

        magic, version, profile, precision, classes, channels, levels = _HEADER.unpack(take(_HEADER.size))
        known = (PROFILE_STEPS, PROFILE_STEPS_TEMPORAL)
        if (magic, version, precision, classes) != (_MAGIC, _VERSION, PRECISION, CLASSES) or profile not in known:
            raise EntropyModelError(f"not an entropy model of profile {known[0]} or {known[1]}, version {_VERSION}; update percodec")
        heads, count = _LAYOUT.unpack(take(_LAYOUT.size))
        bands = tuple(np.frombuffer(take(2 * count), "<u2").tolist())
        planes = []
        for index in range(channels + (1 if count else 0)):
            top, offset, shift, width, place, bias = _PLANE.unpack(take(_PLANE.size))
            near = [Near(*_NEIGHBOUR.unpack(take(_NEIGHBOUR.size))) for _ in range(width + place)]
            borders = np.frombuffer(take(CLASSES - 1), np.uint8)
            cdf = rows(2 * CLASSES if heads <= index < channels else CLASSES)
            digits = rows(2) if index < channels else None
            planes.append(Plane(top + 1, offset, shift, tuple(near[:width]), tuple(near[width:]), bias, borders, cdf, digits))
        if at != len(data):
            raise EntropyModelError(f"{len(data) - at} bytes follow the entropy model; write it again")
        model = cls(tuple(planes), heads, bands, profile == PROFILE_STEPS_TEMPORAL)
        if model.levels != levels:
            raise EntropyModelError(f"the entropy model says {levels} levels, its channels have {model.levels}; write it again")
        return model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepsModel) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        shape = f"channels={self._channels}, levels={self.levels}, heads={self.heads}, profile={self.profile}"
        return f"StepsModel({shape}, digest={self._digest.hex()[:16]})"


def sums_and_places(plane: Plane, offsets: Sequence[int], known: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What makes the classes, and the places: uint8 [h,w] each, of `known` [planes,h,w]. `offsets`: of all planes."""
    height, width = known.shape[1:]

    def at(n: Near) -> NDArray[np.int64]:
        padded = np.pad(known[n.plane].astype(np.int64), 1, constant_values=offsets[n.plane])
        return padded[1 + n.dy : 1 + n.dy + height, 1 + n.dx : 1 + n.dx + width]

    total, place = np.zeros((height, width), np.int64), np.full((height, width), plane.bias, np.int64)
    for n in plane.width:
        total += n.weight * np.abs(at(n) - offsets[n.plane])
    for n in plane.place:
        place += n.weight * at(n)
    sums = np.minimum(np.minimum(total, 32767) >> plane.shift, 255)
    return sums.astype(np.uint8), (place + 32 >> 6 & 255).astype(np.uint8)


def tokens_of(symbols: NDArray[np.uint8], places: NDArray[np.uint8], extents: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What is coded of symbols, and their differences from their places, modulo 256. Extents are tokens themselves."""
    if extents:
        return symbols, symbols
    differences = symbols - places
    tokens: NDArray[np.uint8] = np.minimum(differences + np.uint8(HALF), ESCAPE).astype(np.uint8)
    return tokens, differences


def _check_cdf(cdf: NDArray[np.uint16], rows: int, where: str) -> None:
    if cdf.dtype != np.uint16 or cdf.shape != (rows, TOKENS + 1):
        raise EntropyModelError(f"{where}: tables must be uint16 [{rows}, {TOKENS + 1}], got {cdf.dtype} {list(cdf.shape)}")
    wide = cdf.astype(np.int64)
    if (wide[:, 0] != 0).any() or (wide[:, -1] != _SCALE).any() or (np.diff(wide, axis=1) < 1).any():
        raise EntropyModelError(f"{where}: a table does not rise strictly from 0 to {_SCALE}")


__all__ = [
    "CLASSES",
    "ESCAPE",
    "HALF",
    "MAX_BANDS",
    "MAX_PLACE",
    "MAX_WIDTH",
    "PRECISION",
    "PROFILE_STEPS",
    "PROFILE_STEPS_TEMPORAL",
    "TOKENS",
    "Near",
    "Plane",
    "StepsModel",
    "sums_and_places",
    "tokens_of",
]
