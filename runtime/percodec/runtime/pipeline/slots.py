"""The ring: every buffer a frame passes through, allocated once, and who holds it.

    slot.image --encode()--> slot.symbols --predict()--> slot.outputs, by head and output

On the CPU `encode` computes; on a GPU it queues the whole frame and returns, `ready` waits until the symbols are on the host, `predict`
until the outputs of all heads are. A slot is held by the stage that works on it and by each lane it was lent to (coding, view). The last
one to let go returns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.pipeline.records import FrameRecord
from percodec.sdk.errors import BackendError

POISON = 0xCD  # every byte of an output before a run: what nobody wrote shows


class FrameLost(BackendError):
    """This frame has no result; the next one may. The pipeline counts it as dropped and goes on."""


def _at_once() -> None:
    """The symbols are there when `encode` returns."""


@dataclass
class Slot:
    """One place in the ring. `image` uint8 [1,H,W,3] RGB, `symbols` uint8 [1,C,h,w].

    `outputs`: head -> output -> array with the batch of 1; a segmentation head has `labels` uint8 [1,H,W], a classification head `probs`
    float32 [1,K].

    `source` is what the capture thread's preprocessing fills: the image itself, or, where a GPU prepares the picture, what it takes.
    """

    index: int
    image: NDArray[np.uint8]
    symbols: NDArray[np.uint8]
    outputs: Mapping[str, Mapping[str, NDArray[Any]]]
    encode: Callable[[], None]
    predict: Callable[[], None]
    ready: Callable[[], None] = _at_once
    source: Any = None
    holders: int = 0
    awaits_prediction: bool = False
    origin_ns: int = 0
    frame_id: int = 0
    timestamp_ns: int = 0
    record: FrameRecord | None = None

    def __post_init__(self) -> None:
        self.source = self.image[0] if self.source is None else self.source


class SlotRing:
    """Who holds which slot. Not locked: its owner's lock guards it."""

    def __init__(self, slots: list[Slot]) -> None:
        self.slots = slots
        self._free: deque[Slot] = deque(slots)

    def take(self) -> Slot | None:
        """A free slot, held once, or None."""
        if not self._free:
            return None
        slot = self._free.popleft()
        slot.holders, slot.awaits_prediction, slot.record = 1, True, None
        return slot

    def release(self, slot: Slot) -> None:
        """One holder lets go."""
        slot.holders -= 1
        if slot.holders == 0:
            self._free.append(slot)

    @property
    def free(self) -> int:
        """Slots nobody holds."""
        return len(self._free)


__all__ = ["POISON", "FrameLost", "Slot", "SlotRing"]
