"""Where a picture of one size lands in a frame of another: the geometry of a bundle's `preprocess.fit`, shared by CPU and GPU.

| fit         | shape is kept by                                             | lost                     |
|-------------|--------------------------------------------------------------|--------------------------|
| `stretch`   | nothing: both axes are scaled on their own                   | aspect ratio             |
| `letterbox` | black bars, picture centred                                  | resolution               |
| `crop`      | cutting the longer axis equally on both sides                | the borders              |

`pad` is none of these: the picture stays at its own size, its last row and column repeated up to whole cells of `CELL` pixels.

`percodec.runtime.capture.preprocess` (cv2) and `percodec.export.engines.camera_graph` (a graph for the device) both resample `source` to
`target` and nothing else, so that they cannot differ in where a pixel goes.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from percodec.sdk.errors import UsageError

FITS = ("stretch", "letterbox", "crop")
PAD = "pad"
MAX_SIDE = 16384  # pixels
CELL = 8  # pixels of a latent's cell along each axis


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    y: int
    x: int
    height: int
    width: int


class Placement(NamedTuple):
    """`source` is cut out of the picture and resampled to the size of `target`, a rectangle of the frame; around it the frame is black."""

    source: Box
    target: Box

    @property
    def averages(self) -> bool:
        """No axis grows: every source pixel counts by its area (INTER_AREA). Otherwise both axes are INTER_LINEAR."""
        return self.target.height <= self.source.height and self.target.width <= self.source.width


def placement(fit: str, height: int, width: int, frame_height: int, frame_width: int) -> Placement:
    """Of a picture `height` x `width` in a frame. `fit` is one of `FITS`, all sizes at least 1. Raises ValueError for another fit."""
    if fit not in FITS:
        raise ValueError(f"fit is {fit!r}; there are {', '.join(FITS)}")
    source, target = Box(0, 0, height, width), Box(0, 0, frame_height, frame_width)
    if fit == "crop":
        keep_h = min(height, max(1, round(width * frame_height / frame_width)))
        keep_w = min(width, max(1, round(height * frame_width / frame_height)))
        source = Box((height - keep_h) // 2, (width - keep_w) // 2, keep_h, keep_w)
    elif fit == "letterbox":
        scale = min(frame_height / height, frame_width / width)
        inner_h, inner_w = min(frame_height, max(1, round(height * scale))), min(frame_width, max(1, round(width * scale)))
        target = Box((frame_height - inner_h) // 2, (frame_width - inner_w) // 2, inner_h, inner_w)
    return Placement(source, target)


def padded(side: int) -> int:
    """A side in pixels, up to whole cells."""
    return -(-side // CELL) * CELL


def size_of(size: Any) -> tuple[int, int]:
    """Width and height of pictures, from whoever gave them. Raises `UsageError` unless they are two whole numbers from 1 to `MAX_SIDE`."""
    try:
        width, height = map(operator.index, size)
    except (TypeError, ValueError):
        width = height = 0
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UsageError(f"size is width and height in pixels, each 1..{MAX_SIDE}; got {size!r}")
    return width, height


__all__ = ["CELL", "FITS", "MAX_SIDE", "PAD", "Box", "Placement", "padded", "placement", "size_of"]
