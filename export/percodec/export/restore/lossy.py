"""Codecs that yield images and measured bytes: ours, the classical ones at a rate, and a learned rival.

jpeg:0.1  avif:0.2  jpeg2000:0.1  webp:0.2  hevc:0.1     one quality for a whole set: the best whose mean rate is at most so many bpp
jpeg:q30                                                 a quality of the codec's own scale
percodec:BUNDLE                                          a bundle's encoder, coder and decoder; whole packets
hyperprior:CHECKPOINT                                    the mean-scale hyperprior of CompressAI, trained by its users
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from percodec.export.evaluate.any_size import filled
from percodec.export.evaluate.codecs import CODECS, Codec, Picture
from percodec.export.restore import FORMS
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import UsageError

LOOKED_AT = 24  # pictures a quality is chosen on


class Lossy(Protocol):
    """`round_trip(picture)` -> bytes that would be stored, picture that comes back, of the same size. `name` says codec and setting."""

    name: str

    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]: ...


class AtQuality:
    """A classical codec at one quality of its own scale."""

    def __init__(self, codec: Codec, quality: float) -> None:
        self.codec, self.quality, self.name = codec, quality, f"{codec.name} q{quality:g}"

    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]:
        data = self.codec.encode(picture, self.quality)
        return data, self.codec.decode(data, *picture.shape[:2])


class OfBundle:
    """A bundle's own codec, for pictures of any size: sides are filled up to multiples of 8 with the last row and column."""

    def __init__(self, bundle: Bundle) -> None:
        from percodec.export.evaluate.any_size import BundleAtAnySize

        self.inner, self.name = BundleAtAnySize(bundle), f"percodec {bundle.name}"

    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]:
        packet, restored = self.inner.round_trip(filled(picture, 8))
        return packet, np.ascontiguousarray(restored[: picture.shape[0], : picture.shape[1]])


def open_lossy(spec: str, pictures: Sequence[Picture] = ()) -> Lossy:
    """A codec by its spec; `pictures` are what a rate is aimed at. Raises `UsageError`, and what opening a bundle or checkpoint raises."""
    kind, _, setting = spec.partition(":")
    if kind == "percodec" and setting:
        return OfBundle(Bundle.open(Path(setting)))
    if kind == "hyperprior" and setting:
        from percodec.export.restore.hyperprior import Hyperprior

        return Hyperprior(Path(setting))
    if kind not in CODECS or not setting:
        raise UsageError(f"codec {spec!r}: write it as {FORMS}")
    quality = setting.removeprefix("q")
    try:
        value = float(quality)
        if not np.isfinite(value):
            raise ValueError
    except ValueError as e:
        raise UsageError(f"codec {spec!r}: {setting!r} is neither a rate in bits per pixel nor a quality like q30") from e
    codec = CODECS[kind]
    if quality != setting:
        low, high = codec.qualities[0], codec.qualities[-1]
        if not min(low, high, 0) <= value <= max(low, high, 100):
            raise UsageError(f"codec {spec!r}: quality {value:g} is not on the codec's scale, {low:g}..{high:g}")
        return AtQuality(codec, value)
    if not 0 < value <= 24:
        raise UsageError(f"codec {spec!r}: a rate is above 0 and at most 24 bits per pixel; for a quality write {kind}:q{setting}")
    if not pictures:
        raise UsageError(f"codec {spec!r} aims at a rate: it needs pictures to aim at, or a quality like {kind}:q30")
    return AtQuality(codec, quality_at(codec, value, pictures))


def quality_at(codec: Codec, bpp: float, pictures: Sequence[Picture]) -> float:
    """The best quality whose mean rate over (some of) the pictures is at most `bpp`; the lowest one where none is.

    Between two steps of the codec's ladder every whole number is tried, where its scale is one of whole numbers.
    """
    chosen = [pictures[k] for k in np.linspace(0, len(pictures) - 1, min(LOOKED_AT, len(pictures))).round().astype(int)]
    pixels = sum(p.shape[0] * p.shape[1] for p in chosen)

    def fits(quality: float) -> bool:
        return bool(8 * sum(len(codec.encode(p, quality)) for p in chosen) <= bpp * pixels)

    whole = all(float(q).is_integer() for q in codec.qualities)
    scale = list(range(int(codec.qualities[0]), int(codec.qualities[-1]) + 1)) if whole else list(codec.qualities)
    low, high = 0, len(scale) - 1
    while low < high:  # files grow along the scale
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(scale[middle]) else (low, middle - 1)
    return scale[low]


__all__ = ["LOOKED_AT", "AtQuality", "Lossy", "OfBundle", "open_lossy", "quality_at"]
