"""The words every part shares: frames in, latents between, predictions out.

Arrays are plain numpy. A `Frame`, `Latent` or `Prediction` handed out by a pipeline is a view of one of its
slots unless its producer says otherwise: copy what must outlive the slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import SourceError, UsageError


class PixelFormat(Enum):
    """What the bytes of a `Frame`'s image are. All uint8; H and W count pixels of the picture.

    `RGB8`, `BGR8`: [H,W,3]. `NV12`: [H*3/2,W], H rows of Y, then H/2 rows of U and V in turn, each for 2x2 pixels; H and W are even.
    `YUYV`: [H,W,2], Y in [...,0], U and V in turn in [...,1], each for 2 pixels; W is even. YUV is BT.601, limited range.
    """

    RGB8 = "rgb8"
    BGR8 = "bgr8"
    NV12 = "nv12"
    YUYV = "yuyv"


@dataclass(frozen=True, eq=False)
class Frame:
    """One captured image. `image`: uint8, its shape as `pixel_format` says; `timestamp_ns`: start of exposure, monotonic clock."""

    image: NDArray[np.uint8]
    frame_id: int
    timestamp_ns: int
    pixel_format: PixelFormat = PixelFormat.RGB8

    def __post_init__(self) -> None:
        if not isinstance(self.pixel_format, PixelFormat):  # "bgr8" is neither RGB8 nor BGR8
            try:
                object.__setattr__(self, "pixel_format", PixelFormat(self.pixel_format))
            except ValueError:
                known = ", ".join(kind.value for kind in PixelFormat)
                raise SourceError(f"frame {self.frame_id}: unknown pixel format {self.pixel_format!r}; there are {known}") from None


@dataclass(frozen=True, eq=False)
class Latent:
    """Quantized symbols, uint8 [C,h,w], values 0..L-1, h = H/8, w = W/8."""

    symbols: NDArray[np.uint8]
    frame_id: int
    timestamp_ns: int


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one head says of a frame. `outputs`: its arrays by name, without the batch; `valid` is False when it must not be acted on.

    A segmentation head has the output `labels` uint8 [H,W], class ids; a classification head `probs` float32 [K].
    """

    head: str
    outputs: Mapping[str, NDArray[Any]]
    frame_id: int
    timestamp_ns: int
    valid: bool = True

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Class ids uint8 [H,W] of a segmentation head. Raises `UsageError` for another one."""
        return self._output("labels")

    @property
    def probs(self) -> NDArray[np.float32]:
        """Probabilities float32 [K] of a classification head. Raises `UsageError` for another one."""
        return self._output("probs")

    def _output(self, name: str) -> NDArray[Any]:
        if name not in self.outputs:
            raise UsageError(f"the head {self.head} has no output {name!r}; it gives {', '.join(self.outputs)}")
        return self.outputs[name]


__all__ = ["Frame", "Latent", "PixelFormat", "Prediction"]
