"""Image codecs to compare with, through maintained libraries, at the size of their whole files.

    jpeg      Pillow (libjpeg-turbo), optimised tables, 4:2:0        avif      Pillow (libavif), speed 6, 4:2:0
    jpeg2000  Pillow (OpenJPEG), irreversible wavelet                hevc      pillow-heif (x265), one intra picture; stands for BPG
    webp      Pillow (libwebp), method 4                             resize    the picture made smaller, lossless WebP, made large again

Which one should I use? `CODECS[name]` for a curve over its quality ladder, `at_most` for a budget of bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from percodec.sdk.errors import BackendError, UsageError

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Codec:
    """`encode(picture, quality)` -> file bytes, `decode(bytes, height, width)` -> picture; `qualities` from small files to large ones."""

    name: str
    qualities: tuple[float, ...]
    encode: Callable[[Picture, float], bytes]
    decode: Callable[[bytes, int, int], Picture]


def _pillow(format: str, **options: Any) -> Callable[[Picture, float], bytes]:
    def encode(picture: Picture, quality: float) -> bytes:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, format, quality=int(quality), **options)
        return out.getvalue()

    return encode


def _jpeg2000(picture: Picture, quality: float) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[1 / quality])
    return out.getvalue()


def _hevc(picture: Picture, quality: float) -> bytes:
    heif = _heif()
    out = io.BytesIO()
    heif.from_pillow(Image.fromarray(picture)).save(out, quality=int(quality), chroma=420)
    return out.getvalue()


def _heif() -> Any:
    try:
        import pillow_heif
    except ImportError as e:
        raise BackendError("the codec hevc needs pillow-heif; install with: pip install 'percodec[export]'") from e
    pillow_heif.register_heif_opener()
    return pillow_heif


def _decode(data: bytes, height: int, width: int) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _decode_hevc(data: bytes, height: int, width: int) -> Picture:
    _heif()
    return _decode(data, height, width)[:height, :width]


def _resize(picture: Picture, quality: float) -> bytes:
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((max(1, round(width * quality)), max(1, round(height * quality))), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", lossless=True, method=4)
    return out.getvalue()


def _decode_resized(data: bytes, height: int, width: int) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


_LADDER = (1, 3, 5, 8, 11, 15, 20, 25, 30, 36, 43, 50, 58, 66, 74, 82, 90, 95)
CODECS: dict[str, Codec] = {
    c.name: c
    for c in (
        Codec("jpeg", _LADDER, _pillow("JPEG", optimize=True, subsampling=2), _decode),
        # Share of the raw 24 bit per pixel.
        Codec("jpeg2000", tuple(float(f"{0.0015 * 1.3**k:.3g}") for k in range(19)), _jpeg2000, _decode),
        Codec("webp", (0, *_LADDER), _pillow("WEBP", method=4), _decode),
        Codec("avif", (5, *range(10, 91, 5)), _pillow("AVIF", speed=6, subsampling="4:2:0"), _decode),
        Codec("hevc", (2, 5, *range(10, 81, 5)), _hevc, _decode_hevc),
        Codec("resize", tuple(k / 40 for k in range(1, 41)), _resize, _decode_resized),
    )
}


def codec_of(name: str) -> Codec:
    """Raises `UsageError` for a name that is not in `CODECS`."""
    if name not in CODECS:
        raise UsageError(f"no codec {name!r}; known: {', '.join(CODECS)}")
    return CODECS[name]


def at_most(codec: Codec, picture: Picture, budget: float) -> tuple[Picture, int]:
    """The best quality of the ladder whose file has at most `budget` bytes: restored picture and true size.

    Where even the smallest file is larger, that one with its size.
    """
    low, high = 0, len(codec.qualities) - 1
    best = codec.encode(picture, codec.qualities[0])
    while low < high:  # files grow along the ladder
        middle = (low + high + 1) // 2
        data = codec.encode(picture, codec.qualities[middle])
        if len(data) <= budget:
            low, best = middle, data
        else:
            high = middle - 1
    return codec.decode(best, *picture.shape[:2]), len(best)


__all__ = ["CODECS", "Codec", "Picture", "at_most", "codec_of"]
