"""Rate-distortion curves: our bundles next to classical codecs, bytes of whole packets and whole files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from percodec.export.evaluate.any_size import BundleAtAnySize
from percodec.export.evaluate.codecs import Codec, Picture
from percodec.export.metrics.similarity import psnr, similarities
from percodec.sdk.bundle import Bundle

Point = dict[str, Any]
Advance = Callable[[], None]


def measure(original: Picture, restored: Picture) -> dict[str, float]:
    """PSNR in dB, SSIM, MS-SSIM of one picture."""
    a, b = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in (restored, original))
    scales = next((s for s in (5, 4, 3, 2, 1) if min(original.shape[:2]) >= 11 * 2 ** (s - 1)), 1)
    single, multi = similarities(a, b, scales)
    return {"psnr_db": psnr(a, b), "ssim": float(single), "ms_ssim": float(multi)}


def curve(codec: Codec, pictures: list[Picture], most_bpp: float = 1.6, every: int = 1, advance: Advance = lambda: None) -> list[Point]:
    """One point per `every`-th quality, averaged over the pictures as is usual: bits per pixel, PSNR, SSIM, MS-SSIM.

    The first point above `most_bpp` is the last.
    """
    points: list[Point] = []
    for quality in codec.qualities[::every]:
        bits, found = [], []
        for picture in pictures:
            data = codec.encode(picture, quality)
            bits.append(len(data) * 8 / (picture.shape[0] * picture.shape[1]))
            found.append(measure(picture, codec.decode(data, *picture.shape[:2])))
        points.append({"codec": codec.name, "quality": quality, "bpp": float(np.mean(bits)), **_means(found)})
        advance()
        if points[-1]["bpp"] > most_bpp:
            break
    return points


def bundle_point(bundle: Bundle, pictures: list[Picture], advance: Advance = lambda: None, encoder: bytes | None = None) -> Point:
    """Where a bundle stands; its bits are those of whole packets. `encoder`: the bundle's in another precision."""
    ours, bpp, found = BundleAtAnySize(bundle, encoder), [], []
    for picture in pictures:
        packet, restored = ours.round_trip(picture)
        bpp.append(len(packet) * 8 / (picture.shape[0] * picture.shape[1]))
        found.append(measure(picture, restored))
        advance()
    name = {"codec": f"percodec {bundle.name}", "bundle": bundle.digest}
    return {**name, "quality": bundle.manifest["latent"]["channels"], "bpp": float(np.mean(bpp)), **_means(found)}


def at_rate(points: list[Point], bpp: float, key: str) -> float | None:
    """Linear interpolation of a curve at a rate; None outside of what it reaches."""
    ordered = sorted((p["bpp"], p[key]) for p in points)
    if not ordered or not ordered[0][0] <= bpp <= ordered[-1][0]:
        return None
    return float(np.interp(bpp, [x for x, _ in ordered], [y for _, y in ordered]))


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    return {k: float(np.mean([f[k] for f in found])) for k in found[0]}


__all__ = ["at_rate", "bundle_point", "curve", "measure"]
