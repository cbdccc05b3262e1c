"""Any picture to the bundle's frame size, into a caller's buffer, by the bundle's declared `fit`.

| fit         | shape is kept by                                             | lost                     |
|-------------|--------------------------------------------------------------|--------------------------|
| `stretch`   | nothing: both axes are scaled on their own                   | aspect ratio             |
| `letterbox` | black bars, picture centred                                  | resolution               |
| `crop`      | cutting the longer axis equally on both sides                | the borders              |

Resampling: INTER_AREA when no axis grows (it averages, so nothing aliases), INTER_LINEAR as soon as one axis grows. A picture that
already has the right size is only reordered to RGB. cv2 everywhere; no per-pixel Python.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.vision import opencv
from percodec.sdk.errors import BundleError, SourceError
from percodec.sdk.types import Frame, PixelFormat

FITS = ("stretch", "letterbox", "crop")


class Preprocessor:
    """Callable: `preprocess(frame, out)` writes uint8 [H,W,3] RGB into `out` in place. One per thread: it owns scratch."""

    def __init__(self, height: int, width: int, fit: str) -> None:
        if fit not in FITS:
            raise BundleError(f"the bundle's preprocess.fit is {fit!r}; this version knows {', '.join(FITS)}")
        self.height, self.width, self.fit = height, width, fit
        self._cv2 = opencv()
        self._scratch: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
        self._inner: NDArray[np.uint8] | None = None

    def __call__(self, frame: Frame, out: NDArray[np.uint8]) -> None:
        image = frame.image
        if image.ndim == 2:
            image = self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2BGR)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise SourceError(f"frame {frame.frame_id}: expected uint8 [H,W,3], at least one pixel, got {image.dtype} {list(image.shape)}")
        if out.shape != (self.height, self.width, 3) or not out.flags.c_contiguous:
            raise ValueError(f"out must be contiguous [{self.height},{self.width},3], got {list(out.shape)}")
        swap = frame.pixel_format is PixelFormat.BGR8
        if self.fit == "crop":
            image = self._cropped(image)
        if image.shape == out.shape:
            self._place(image, out, swap)
        elif self.fit == "letterbox":
            self._letterbox(image, out, swap)
        else:
            self._place(self._resize(image, self._scratch), out, swap)

    def _cropped(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        keep_w = min(width, max(1, round(height * self.width / self.height)))
        keep_h = min(height, max(1, round(width * self.height / self.width)))
        y, x = (height - keep_h) // 2, (width - keep_w) // 2
        return image[y : y + keep_h, x : x + keep_w]

    def _letterbox(self, image: NDArray[np.uint8], out: NDArray[np.uint8], swap: bool) -> None:
        height, width = image.shape[:2]
        scale = min(self.height / height, self.width / width)
        inner_h, inner_w = min(self.height, max(1, round(height * scale))), min(self.width, max(1, round(width * scale)))
        if self._inner is None or self._inner.shape[:2] != (inner_h, inner_w):
            self._inner = np.empty((inner_h, inner_w, 3), np.uint8)
        inner = self._resize(image, self._inner)
        y, x = (self.height - inner_h) // 2, (self.width - inner_w) // 2
        self._scratch[:] = 0
        self._scratch[y : y + inner_h, x : x + inner_w] = inner
        self._place(self._scratch, out, swap)

    def _resize(self, image: NDArray[np.uint8], into: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = into.shape[:2]
        shrinks = width <= image.shape[1] and height <= image.shape[0]
        mode = self._cv2.INTER_AREA if shrinks else self._cv2.INTER_LINEAR
        resized: NDArray[np.uint8] = self._cv2.resize(image, (width, height), dst=into, interpolation=mode)
        return resized

    def _place(self, image: NDArray[np.uint8], out: NDArray[np.uint8], swap: bool) -> None:
        if not swap:
            np.copyto(out, image)
            return
        # cv2 writes in place when `dst` fits; should a build ever not, the copy keeps the promise.
        placed = self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB, dst=out)
        if placed.ctypes.data != out.ctypes.data:
            np.copyto(out, placed)


__all__ = ["FITS", "Preprocessor"]
