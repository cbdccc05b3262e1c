"""What an engine gave is judged before anyone sees it: written at all, in range, not constant, not the last frame's.

A wrong output is delivered with valid = False and the reason; symbols nobody wrote are no latent, so that frame is lost. A picture that is
itself constant (a cap on the lens) is no fault of the engine; one that a live camera repeats is named as such.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import FrameLost, Slot

STEP = 16  # every 16th row and column of the picture tells whether it moved
MOVED = 4.0  # mean difference, in grey levels, that no sensor noise explains
REPEATS = 5  # equal pictures in a row that no live camera gives


class Guard:
    """`check` and `examine` from any thread; `follow` in capture order, from one thread at a time."""

    def __init__(self, levels: int, classes: int, *, live: bool = False) -> None:
        self._levels, self._classes, self._live = levels, classes, live
        self._picture: NDArray[np.int16] | None = None
        self._last = (0, 0)
        self._equal = 0

    def check(self, slot: Slot) -> None:
        """Raises `FrameLost` where a symbol is none: poison that the encoder did not overwrite, or an engine not to be trusted."""
        if int(slot.symbols.max()) >= self._levels:
            raise FrameLost(f"frame {slot.frame_id}: the encoder gave symbols outside 0..{self._levels - 1}; do not trust this engine")

    def examine(self, slot: Slot, record: FrameRecord, mask: NDArray[np.bool_]) -> None:
        """Fill in what `record` says of the labels. `mask`: scratch, bool, of the labels' shape."""
        labels = slot.labels
        record.class_pixels = np.array([np.count_nonzero(np.equal(labels, k, out=mask)) for k in range(self._classes)], np.int64)
        record.labels_crc = zlib.crc32(labels.data)
        record.latent_crc = zlib.crc32(slot.symbols.data)
        record.invalid = ""
        if int(record.class_pixels.sum()) != labels.size:
            record.invalid = "labels of no class: the head did not write all of its output"
        elif int(record.class_pixels.max()) == labels.size and int(slot.symbols.min()) == int(slot.symbols.max()) and _varies(slot.image):
            record.invalid = "latent and labels are constant, the picture is not"

    def follow(self, slot: Slot, record: FrameRecord) -> None:
        """Compare with the frame before: an output that stood still while the picture moved, or a picture that stands still."""
        picture = slot.image[0, ::STEP, ::STEP].astype(np.int16)
        before, self._picture = self._picture, picture
        outputs, self._last = self._last, (record.latent_crc, record.labels_crc)
        if before is None:
            return
        moved = float(np.abs(picture - before).mean())
        if record.latent_crc == outputs[0] and moved > MOVED:
            record.invalid = record.invalid or "the latent is the last frame's, the picture is not"
        self._equal = self._equal + 1 if moved == 0 else 0
        if self._live and self._equal >= REPEATS:
            record.invalid = record.invalid or "the camera repeats one picture"


def _varies(image: NDArray[np.uint8]) -> bool:
    return int(image.max()) - int(image.min()) > MOVED


__all__ = ["MOVED", "REPEATS", "STEP", "Guard"]
