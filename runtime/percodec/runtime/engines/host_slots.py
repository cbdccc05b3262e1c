"""Slots of arrays in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from percodec.runtime.engines.engine import Engine
from percodec.runtime.pipeline.slots import Slot


def host_slots(
    encoder: Engine, heads: Mapping[str, Engine], arrays: Sequence[Sequence[NDArray[Any]]] | None = None
) -> Callable[[int], list[Slot]]:
    """Makes slots of arrays in this process, with engines bound to them. Raises ValueError for networks that do not fit together.

    `arrays`: those of each slot: image, symbols, then the outputs of each head in order. None: new ones.
    """
    check_fit(encoder, heads)
    specs = [encoder.source, encoder.outputs[0], *(spec for head in heads.values() for spec in head.outputs)]

    def make(count: int) -> list[Slot]:
        slots = []
        for index in range(count):
            image, symbols, *results = [spec.empty() for spec in specs] if arrays is None else arrays[index]
            rest = iter(results)
            outputs = {name: {spec.name: next(rest) for spec in head.outputs} for name, head in heads.items()}
            calls = [head.bind(symbols, *outputs[name].values()) for name, head in heads.items()]
            slots.append(Slot(index, image, symbols, outputs, encoder.bind(image, symbols), _one_after_the_other(calls)))
        return slots

    return make


def check_fit(encoder: Engine, heads: Mapping[str, Engine]) -> None:
    """Raises ValueError where a head does not take what the encoder gives."""
    for name, head in heads.items():
        if encoder.outputs[0].shape != head.source.shape:
            raise ValueError(f"the encoder gives {encoder.outputs[0].shape}, the head {name} takes {head.source.shape}")


def _one_after_the_other(calls: list[Callable[[], None]]) -> Callable[[], None]:
    if len(calls) == 1:
        return calls[0]

    def predict() -> None:
        for call in calls:
            call()

    return predict


__all__ = ["check_fit", "host_slots"]
