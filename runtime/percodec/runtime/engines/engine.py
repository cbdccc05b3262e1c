"""One loaded network on one backend. `Engine.bind` ties it to caller-owned arrays once; the returned call allocates nothing.

    encoder.bind(slot.image, slot.symbols) -> encode()        the array the encoder writes
    head.bind(slot.symbols, slot.labels)   -> predict()       is the array the head reads: no copy between them

Which backend? `ort` runs everywhere (ONNX Runtime, CPU), in the precision that was built into the bundle for CPUs, else as exported;
`ort:fp32` and `ort:int8` choose. `tensorrt` and `tensorrt_rtx` run the engines that were built into the bundle for this GPU
(`percodec build`), again with a precision behind a colon. What is asked for is what runs: there is no silent fallback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BACKENDS = ("ort", "tensorrt", "tensorrt_rtx")
EXPORTED = "fp32"  # the precision of the graphs as exported
POISON = 0xCD


@dataclass(frozen=True)
class TensorSpec:
    """Name and fixed shape of one uint8 network input or output."""

    name: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """A network with one uint8 input and one uint8 output of fixed shape."""

    backend: str
    precision: str
    limits: tuple[float, float] | None  # of this precision's self-test: most symbols that differ, least labels that agree
    source: TensorSpec
    destination: TensorSpec

    def bind(self, source: NDArray[np.uint8], destination: NDArray[np.uint8]) -> Callable[[], None]:
        """A call that reads `source`, writes `destination`, and allocates no buffer.

        Both arrays must be C-contiguous, have the specs' shapes and outlive the call. Different bindings of one engine may run
        at the same time; one binding may not. The call raises BackendError when the network fails.
        """


__all__ = ["BACKENDS", "EXPORTED", "POISON", "Engine", "TensorSpec"]
