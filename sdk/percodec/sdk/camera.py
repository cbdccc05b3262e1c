"""What a camera gives, as one value: pixel format and size, `nv12:1920x1080` on the command line, `camera_nv12_1920x1080` as an engine.

| format | array of one picture, uint8 | what it is                                                                |
|--------|-----------------------------|---------------------------------------------------------------------------|
| `nv12` | [H*3/2, W], H and W even    | H rows of Y, then H/2 rows of U and V in turn, each for 2x2 pixels        |
| `yuyv` | [H, W, 2], W even           | Y0 U Y1 V: U and V in turn, each for 2 pixels                             |
| `bgr`  | [H, W, 3]                   | OpenCV's order                                                            |
| `rgb`  | [H, W, 3]                   | the encoder's order                                                       |

YUV is BT.601, limited range (Y 16..235), as V4L2 and cv2 take it unless told otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from percodec.sdk.errors import UsageError
from percodec.sdk.types import PixelFormat

FORMATS: dict[str, PixelFormat] = {
    "nv12": PixelFormat.NV12,
    "yuyv": PixelFormat.YUYV,
    "bgr": PixelFormat.BGR8,
    "rgb": PixelFormat.RGB8,
}
MIN_SIDE, MAX_SIDE = 16, 8192
_PREFIX = "camera_"
_TEXT = re.compile(r"([a-z0-9]{1,8}):([0-9]{1,6})x([0-9]{1,6})")


@dataclass(frozen=True)
class CameraFormat:
    """Pixel format (a key of `FORMATS`) and size in pixels of a camera's pictures, checked at construction.

    Raises `UsageError` for an unknown format, a side outside 16..8192, or an odd one where colour is shared by pixels.
    """

    format: str
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"camera format {self.format[:20]!r} is not known; there are {', '.join(FORMATS)}")
        for name, side in (("height", self.height), ("width", self.width)):
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise UsageError(f"camera {name} must be from {MIN_SIDE} to {MAX_SIDE}, got {side}")
        odd = [name for name, side in (("height", self.height), ("width", self.width)) if side % 2 and name in _EVEN[self.format]]
        if odd:
            raise UsageError(f"{self.format} has an even {' and '.join(odd)}, got {self.width}x{self.height}")

    @classmethod
    def from_text(cls, text: str) -> CameraFormat:
        """From `nv12:1920x1080`, width before height as cameras say it. Raises `UsageError`."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UsageError(f"camera {text[:40]!r}: write FORMAT:WIDTHxHEIGHT, for example nv12:1920x1080; formats: {', '.join(FORMATS)}")
        return cls(match[1], int(match[3]), int(match[2]))

    @classmethod
    def from_graph(cls, graph: str) -> CameraFormat:
        """From an engine's name, `camera_nv12_1920x1080`. Raises `UsageError`."""
        return cls.from_text(graph.removeprefix(_PREFIX).replace("_", ":", 1))

    def __str__(self) -> str:
        return f"{self.format}:{self.width}x{self.height}"

    @property
    def pixel_format(self) -> PixelFormat:
        """As frames carry it."""
        return FORMATS[self.format]

    @property
    def graph(self) -> str:
        """The engine's name in a bundle."""
        return _PREFIX + str(self).replace(":", "_")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture, uint8, C order; the graph's input `raw` has 1 in front."""
        if self.format == "nv12":
            return (self.height * 3 // 2, self.width)
        return (self.height, self.width, 2 if self.format == "yuyv" else 3)


def is_camera_graph(graph: str) -> bool:
    """Whether an engine of this name turns a camera's pictures into frames (no graph of a manifest has such a name)."""
    return graph.startswith(_PREFIX)


_EVEN = {"nv12": ("height", "width"), "yuyv": ("width",), "bgr": (), "rgb": ()}

__all__ = ["FORMATS", "MAX_SIDE", "MIN_SIDE", "CameraFormat", "is_camera_graph"]
