"""Rate-distortion curves: our bundles next to classical codecs, bytes of whole packets and whole files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.evaluate.codecs import Codec, Picture
from percodec.export.evaluate.metrics import psnr, similarities
from percodec.export.evaluate.resized import resized
from percodec.export.onnx import run_ort
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec

Point = dict[str, Any]
Advance = Callable[[], None]


def crop8(picture: Picture) -> Picture:
    """Sides cut to multiples of 8: every codec is shown the same pixels."""
    return np.ascontiguousarray(picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8])


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


class BundleAtAnySize:
    """Encoder, coder and decoder of a bundle for pictures of whatever size. Only the last size's sessions are kept: they are large.

    `encoder`: the bundle's in another precision.
    """

    def __init__(self, bundle: Bundle, encoder: bytes | None = None) -> None:
        self.bundle = bundle
        self._graph = encoder or bundle.graph("encoder")
        self._size = (0, 0)

    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]:
        """Packet, and the picture decoded from it."""
        packet, symbols = self.symbols(picture)
        return packet, self._decoder(symbols[None])[0]

    def symbols(self, picture: Picture) -> tuple[bytes, NDArray[np.uint8]]:
        """Packet, and the latent decoded from it: uint8 [C,H/8,W/8]."""
        size = (picture.shape[0], picture.shape[1])
        if size != self._size:
            self._encoder, self._decoder = (run_ort(resized(g, *size)) for g in (self._graph, self.bundle.graph("decoder")))
            self._coder = PacketCodec(self.bundle.entropy_model, size[0] // 8, size[1] // 8)
            self._size = size
        packet = self._coder.encode(self._encoder(picture[None])[0], frame_id=0, timestamp_ns=0)
        return packet, self._coder.decode(packet)[1]


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


__all__ = ["BundleAtAnySize", "at_rate", "bundle_point", "crop8", "curve", "measure"]
