"""Any picture to the bundle's frame size, into a caller's buffer, by the bundle's declared `fit` (`percodec.sdk.fit` has the geometry).

Resampling: INTER_AREA when no axis grows (it averages, so nothing aliases), INTER_LINEAR as soon as one axis grows. A picture that
already has the right size is only reordered to RGB. NV12 and YUYV become RGB first, at full size (BT.601, limited range). cv2
everywhere; no per-pixel Python. On a GPU a camera graph (`percodec build --camera`) does the same on the device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import opencv
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import BundleError, SourceError
from percodec.sdk.fit import FITS, placement
from percodec.sdk.types import Frame, PixelFormat

_Array = NDArray[np.uint8]


class Preprocessor:
    """Callable: `preprocess(frame, out)` writes uint8 [H,W,3] RGB into `out` in place. One per thread: it owns scratch.

    Takes every `PixelFormat`, and [H,W] for grey pictures that say RGB or BGR. Raises `SourceError` for an image that is not what its
    format says (shape, dtype, odd sizes), ValueError for an `out` of another shape.
    """

    def __init__(self, height: int, width: int, fit: str) -> None:
        if fit not in FITS:
            raise BundleError(f"the bundle's preprocess.fit is {fit!r}; this version knows {', '.join(FITS)}")
        self.height, self.width, self.fit = height, width, fit
        self._cv2 = opencv()
        self._scratch: _Array = np.empty((height, width, 3), np.uint8)
        self._inner: _Array = np.empty((0, 0, 3), np.uint8)
        self._rgb: _Array = np.empty((0, 0, 3), np.uint8)

    def __call__(self, frame: Frame, out: _Array) -> None:
        if out.shape != (self.height, self.width, 3) or not out.flags.c_contiguous:
            raise ValueError(f"out must be contiguous [{self.height},{self.width},3], got {list(out.shape)}")
        image, swap = self._three_channels(frame), frame.pixel_format is PixelFormat.BGR8
        place = placement(self.fit, image.shape[0], image.shape[1], self.height, self.width)
        source, target = place
        image = image[source.y : source.y + source.height, source.x : source.x + source.width]
        if image.shape == out.shape:
            self._place(image, out, swap)
        elif (target.height, target.width) == (self.height, self.width):
            self._place(self._resize(image, self._scratch, place.averages), out, swap)
        else:
            self._inner = _sized(self._inner, target.height, target.width)
            inner = self._resize(image, self._inner, place.averages)
            self._scratch[:] = 0
            self._scratch[target.y : target.y + target.height, target.x : target.x + target.width] = inner
            self._place(self._scratch, out, swap)

    def _three_channels(self, frame: Frame) -> _Array:
        """[H,W,3]: the frame's own image, or its RGB in scratch."""
        image, kind = frame.image, frame.pixel_format
        if kind is PixelFormat.NV12 or kind is PixelFormat.YUYV:
            return self._from_yuv(frame)
        if image.ndim == 2:
            image = self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2BGR)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise SourceError(f"frame {frame.frame_id}: expected uint8 [H,W,3], at least one pixel, got {image.dtype} {list(image.shape)}")
        return image

    def _from_yuv(self, frame: Frame) -> _Array:
        image, shape = frame.image, frame.image.shape
        if frame.pixel_format is PixelFormat.NV12:
            whole, wanted = len(shape) == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0, "[H*3/2,W], H and W even"
            height, code = shape[0] * 2 // 3 if shape else 0, self._cv2.COLOR_YUV2RGB_NV12
        else:
            whole, wanted = len(shape) == 3 and shape[2] == 2 and shape[1] % 2 == 0, "[H,W,2], W even"
            height, code = shape[0] if shape else 0, self._cv2.COLOR_YUV2RGB_YUY2
        if not whole or image.dtype != np.uint8 or 0 in shape:
            name = frame.pixel_format.name
            raise SourceError(f"frame {frame.frame_id}: {name} is uint8 {wanted}, at least one pixel, got {image.dtype} {list(shape)}")
        self._rgb = _sized(self._rgb, height, shape[1])
        converted: _Array = self._cv2.cvtColor(image, code, dst=self._rgb)
        return converted

    def _resize(self, image: _Array, into: _Array, averages: bool) -> _Array:
        height, width = into.shape[:2]
        mode = self._cv2.INTER_AREA if averages else self._cv2.INTER_LINEAR
        resized: _Array = self._cv2.resize(image, (width, height), dst=into, interpolation=mode)
        return resized

    def _place(self, image: _Array, out: _Array, swap: bool) -> None:
        if not swap:
            np.copyto(out, image)
            return
        # cv2 writes in place when `dst` fits; should a build ever not, the copy keeps the promise.
        placed = self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB, dst=out)
        if placed.ctypes.data != out.ctypes.data:
            np.copyto(out, placed)


def _sized(scratch: _Array, height: int, width: int) -> _Array:
    """`scratch`, or a new one where it has another size."""
    return scratch if scratch.shape[:2] == (height, width) else np.empty((height, width, 3), np.uint8)


class Padding:
    """For whole pictures: `pad(frame, out)` writes one of `height` x `width` as RGB, its last row and column repeated up to whole cells.

    `out`: uint8 [H,W,3], H and W the next multiples of 8. Raises `SourceError` for a picture of another size.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._inner = Preprocessor(height, width, "stretch")
        self._picture: _Array = np.empty((height, width, 3), np.uint8)

    def __call__(self, frame: Frame, out: _Array) -> None:
        height, width = frame.image.shape[:2]
        height = height * 2 // 3 if frame.pixel_format is PixelFormat.NV12 else height
        if (height, width) != (self.height, self.width):
            raise SourceError(f"frame {frame.frame_id} is {width}x{height}, the session was opened for {self.width}x{self.height}")
        self._inner(frame, self._picture)
        out[: self.height, : self.width] = self._picture
        out[self.height :, : self.width] = out[self.height - 1, : self.width]
        out[:, self.width :] = out[:, self.width - 1 : self.width]


class RawCopy:
    """For slots whose camera graph prepares the picture on the device: `preprocess(frame, out)` only checks and copies what came."""

    def __init__(self, camera: CameraFormat) -> None:
        self._camera = camera

    def __call__(self, frame: Frame, out: _Array) -> None:
        image, camera = frame.image, self._camera
        if frame.pixel_format is not camera.pixel_format or image.shape != camera.shape or image.dtype != np.uint8:
            got = f"{frame.pixel_format.name.lower()} {image.dtype} {list(image.shape)}"
            raise SourceError(f"frame {frame.frame_id}: the engine was built for {camera}, the source gives {got}")
        np.copyto(out, image)


__all__ = ["FITS", "Padding", "Preprocessor", "RawCopy"]
