"""Slots of arrays in this process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from percodec.runtime.engines.engine import Engine
from percodec.runtime.pipeline.slots import Slot


def host_slots(encoder: Engine, head: Engine) -> Callable[[int], list[Slot]]:
    """Makes slots of arrays in this process, with engines bound to them. Raises ValueError for networks that do not fit together."""
    if encoder.destination.shape != head.source.shape:
        raise ValueError(f"the encoder gives {encoder.destination.shape}, the head takes {head.source.shape}")

    def make(count: int) -> list[Slot]:
        slots = []
        for index in range(count):
            image = np.zeros(encoder.source.shape, np.uint8)
            symbols = np.zeros(encoder.destination.shape, np.uint8)
            labels = np.zeros(head.destination.shape, np.uint8)
            slots.append(Slot(index, image, symbols, labels, encoder.bind(image, symbols), head.bind(symbols, labels)))
        return slots

    return make


__all__ = ["host_slots"]
