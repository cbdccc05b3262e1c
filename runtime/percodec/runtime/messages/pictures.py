"""Pixels of ROS images: `Image` and `CompressedImage` to arrays, and back to the encoding that came in.

| function                 | for                                                                                                |
|--------------------------|----------------------------------------------------------------------------------------------------|
| `picture_from_image`     | a `Frame`: what the preprocessing takes as it is (rgb8, bgr8, yuyv, nv12) is a view, nothing copied |
| `rgb_from_image`         | uint8 [H,W,3] RGB at the picture's own size                                                        |
| `rgb_from_compressed`    | the same of a JPEG or PNG                                                                          |
| `image_from_rgb`         | a picture in any of `ENCODINGS`                                                                    |

YUV is BT.601, limited range. A Bayer picture is interpolated; the way back takes each sample from its place. Alpha comes back opaque.
Other encodings (16 bits, floats: depth above all) are measurements and no pictures, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.images import decode_image
from percodec.runtime.capture.opencv import MAX_PIXELS, opencv
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.sdk.errors import MessageError, SourceError
from percodec.sdk.types import PixelFormat

_Array = NDArray[np.uint8]


class _Encoding(NamedTuple):
    channels: int  # bytes of a pixel in a row
    conversion: str | None  # cv2's to RGB
    pixel_format: PixelFormat | None = None  # as the preprocessing takes it
    even: str = ""  # axes whose pixels share colour


_BAYER = {f"bayer_{order}8": _Encoding(1, f"COLOR_Bayer{order.upper()}2RGB", even="hw") for order in ("rggb", "bggr", "gbrg", "grbg")}
_RGB, _BGR = _Encoding(3, None, PixelFormat.RGB8), _Encoding(3, "COLOR_BGR2RGB", PixelFormat.BGR8)
_GREY, _BGRA = _Encoding(1, "COLOR_GRAY2RGB"), _Encoding(4, "COLOR_BGRA2RGB")
_UYVY, _YUYV = _Encoding(2, "COLOR_YUV2RGB_UYVY", even="w"), _Encoding(2, "COLOR_YUV2RGB_YUY2", PixelFormat.YUYV, even="w")
_ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _RGB,
    "bgr8": _BGR,
    "8UC3": _BGR,
    "rgba8": _Encoding(4, "COLOR_RGBA2RGB"),
    "bgra8": _BGRA,
    "8UC4": _BGRA,
    "mono8": _GREY,
    "8UC1": _GREY,
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Encoding(1, "COLOR_YUV2RGB_NV12", PixelFormat.NV12, even="hw"),
    "nv21": _Encoding(1, "COLOR_YUV2RGB_NV21", even="hw"),
    **_BAYER,
}
ENCODINGS = tuple(_ENCODINGS)


def picture_from_image(image: Image) -> tuple[_Array, PixelFormat]:
    """A picture and its format, as a `Frame` takes them: a view of `image.data` where that is possible. Raises `MessageError`."""
    array, encoding = _samples(image)
    if encoding.pixel_format is not None:
        return array, encoding.pixel_format
    return _converted(array, encoding), PixelFormat.RGB8


def rgb_from_image(image: Image) -> _Array:
    """uint8 [H,W,3] RGB, C order, at the picture's own size; of rgb8 without padding a view. Raises `MessageError`."""
    array, encoding = _samples(image)
    return np.ascontiguousarray(array) if encoding.conversion is None else _converted(array, encoding)


def rgb_from_compressed(message: CompressedImage) -> _Array:
    """uint8 [H,W,3] RGB of a JPEG or PNG. Raises `MessageError` for anything else, depth included."""
    if "compressedDepth" in message.format:
        raise MessageError(f"compressed image of format {message.format[:60]!r} is depth, not a picture; leave the topic out")
    try:
        return decode_image(message.data.tobytes(), f"compressed image of format {message.format[:60]!r}")
    except SourceError as error:
        raise MessageError(str(error)) from error


def image_from_rgb(rgb: _Array, encoding: str, header: Header) -> Image:
    """A picture uint8 [H,W,3] RGB as a message in `encoding`, one of `ENCODINGS`, rows without padding. Raises `MessageError`."""
    height, width = rgb.shape[:2]
    known = _known(encoding, height, width)
    data = _FROM_RGB[encoding](rgb)
    return Image(header, height, width, encoding, width * known.channels, np.ascontiguousarray(data).reshape(-1))


def _known(encoding: str, height: int, width: int) -> _Encoding:
    known = _ENCODINGS.get(encoding)
    if known is None:
        raise MessageError(f"images of encoding {encoding[:40]!r} are not coded; pictures are {', '.join(ENCODINGS)}")
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise MessageError(f"an image of {width}x{height} pixels; there are from 1 to {MAX_PIXELS}")
    if ("h" in known.even and height % 2) or ("w" in known.even and width % 2):
        raise MessageError(f"an image {encoding} of {width}x{height} pixels; colour is shared by two, so the sides must be even")
    return known


def _samples(image: Image) -> tuple[_Array, _Encoding]:
    """A view: [H,W,n], [H,W] for one byte a pixel, [H*3/2,W] for NV12 and NV21."""
    height, width, step = image.height, image.width, image.step
    known = _known(image.encoding, height, width)
    rows = height * 3 // 2 if image.encoding in ("nv12", "nv21") else height
    row = width * known.channels
    if step < row or image.data.size < rows * step:
        raise MessageError(
            f"an image {image.encoding} of {width}x{height} pixels has step {step} and {image.data.size} bytes; "
            f"it needs a step of at least {row}, and {rows} rows of it"
        )
    array = image.data[: rows * step].reshape(rows, step)[:, :row]
    return (array if known.channels == 1 else array.reshape(rows, width, known.channels)), known


def _converted(array: _Array, encoding: _Encoding) -> _Array:
    cv2: Any = opencv()
    rgb: _Array = cv2.cvtColor(array, getattr(cv2, str(encoding.conversion)))
    return rgb


def _coloured(name: str) -> Callable[[_Array], _Array]:
    def convert(rgb: _Array) -> _Array:
        cv2: Any = opencv()
        made: _Array = cv2.cvtColor(rgb, getattr(cv2, name))
        return made

    return convert


def _mosaic(order: str) -> Callable[[_Array], _Array]:
    def convert(rgb: _Array) -> _Array:
        made = np.empty(rgb.shape[:2], np.uint8)
        for place, channel in enumerate("rgb".index(letter) for letter in order):
            y, x = divmod(place, 2)
            made[y::2, x::2] = rgb[y::2, x::2, channel]
        return made

    return convert


def _yuv(rgb: _Array, rows: int) -> tuple[_Array, _Array, _Array]:
    """Y [H,W]; U and V, each of 2 pixels across and `rows` down. BT.601, limited range."""
    weights = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32) / 255
    yuv = rgb.astype(np.float32) @ weights.T + np.array([16, 128, 128], np.float32)
    height, width = rgb.shape[:2]
    chroma = yuv[:, :, 1:].reshape(height // rows, rows, width // 2, 2, 2).mean(axis=(1, 3))
    y, c = (np.clip(np.rint(part), 0, 255).astype(np.uint8) for part in (yuv[:, :, 0], chroma))
    return y, c[:, :, 0], c[:, :, 1]


def _packed(first_is_luma: bool) -> Callable[[_Array], _Array]:
    def convert(rgb: _Array) -> _Array:
        y, u, v = _yuv(rgb, 1)
        luma = 0 if first_is_luma else 1
        made = np.empty((*y.shape, 2), np.uint8)
        made[:, :, luma], made[:, 0::2, 1 - luma], made[:, 1::2, 1 - luma] = y, u, v
        return made

    return convert


def _planar(u_first: bool) -> Callable[[_Array], _Array]:
    def convert(rgb: _Array) -> _Array:
        y, u, v = _yuv(rgb, 2)
        pair = np.stack((u, v) if u_first else (v, u), axis=2)
        return np.concatenate((y, pair.reshape(u.shape[0], -1)))

    return convert


_FROM_RGB: dict[str, Callable[[_Array], _Array]] = {
    "rgb8": lambda rgb: rgb,
    **dict.fromkeys(("bgr8", "8UC3"), _coloured("COLOR_RGB2BGR")),
    "rgba8": _coloured("COLOR_RGB2RGBA"),
    **dict.fromkeys(("bgra8", "8UC4"), _coloured("COLOR_RGB2BGRA")),
    **dict.fromkeys(("mono8", "8UC1"), _coloured("COLOR_RGB2GRAY")),
    **dict.fromkeys(("yuv422", "uyvy"), _packed(False)),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), _packed(True)),
    "nv12": _planar(True),
    "nv21": _planar(False),
    **{f"bayer_{order}8": _mosaic(order) for order in ("rggb", "bggr", "gbrg", "grbg")},
}

__all__ = ["ENCODINGS", "image_from_rgb", "picture_from_image", "rgb_from_compressed", "rgb_from_image"]
