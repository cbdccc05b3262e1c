"""The ring: every buffer a frame passes through, allocated once, and who holds it.

    slot.image --encode()--> slot.symbols --predict()--> slot.labels

A slot is held by the stage that works on it and by each lane it was lent to (coding, view). The last one to let go returns it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.accounting import FrameRecord
from percodec.runtime.engine import Engine


@dataclass
class Slot:
    """One place in the ring. `image` uint8 [1,H,W,3] RGB, `symbols` uint8 [1,C,h,w], `labels` uint8 [1,H,W]."""

    index: int
    image: NDArray[np.uint8]
    symbols: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    encode: Callable[[], None]
    predict: Callable[[], None]
    holders: int = 0
    awaits_prediction: bool = False
    origin_ns: int = 0
    frame_id: int = 0
    timestamp_ns: int = 0
    record: FrameRecord | None = None


class SlotRing:
    """`count` slots with engines bound to their buffers. Not locked: its owner's lock guards it."""

    def __init__(self, encoder: Engine, head: Engine, count: int) -> None:
        if encoder.destination.shape != head.source.shape:
            raise ValueError(f"the encoder gives {encoder.destination.shape}, the head takes {head.source.shape}")
        self.slots: list[Slot] = []
        for index in range(count):
            image = np.zeros(encoder.source.shape, np.uint8)
            symbols = np.zeros(encoder.destination.shape, np.uint8)
            labels = np.zeros(head.destination.shape, np.uint8)
            slot = Slot(index, image, symbols, labels, encoder.bind(image, symbols), head.bind(symbols, labels))
            self.slots.append(slot)
        self._free: deque[Slot] = deque(self.slots)

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


__all__ = ["Slot", "SlotRing"]
