"""One loaded network on one backend. `Engine.bind` ties it to caller-owned arrays once; the returned call allocates nothing.

    encoder.bind(slot.image, slot.symbols) -> encode()        the array the encoder writes
    head.bind(slot.symbols, labels)        -> predict()       is the array the heads read: no copy between them

Which backend? `ort` runs everywhere (ONNX Runtime, CPU), in the precision that was built into the bundle for CPUs, else as exported;
`ort:fp32` and `ort:int8` choose. `tensorrt` and `tensorrt_rtx` run the engines that were built into the bundle for this GPU
(`percodec build`), again with a precision behind a colon. What is asked for is what runs: there is no silent fallback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import BackendError

BACKENDS = ("ort", "tensorrt", "tensorrt_rtx")
EXPORTED = "fp32"  # the precision of the graphs as exported


@dataclass(frozen=True)
class TensorSpec:
    """Name, fixed shape (with the batch of 1) and numpy dtype of one network input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "uint8"

    @property
    def nbytes(self) -> int:
        """Of an array of this kind."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def empty(self) -> NDArray[Any]:
        """An array of zeros of this kind."""
        return np.zeros(self.shape, self.dtype)

    def check(self, array: NDArray[Any], what: str) -> None:
        """Raises BackendError unless `array` is C-contiguous and of this kind."""
        if array.dtype != np.dtype(self.dtype) or array.shape != self.shape or not array.flags.c_contiguous:
            found = f"{array.dtype} {list(array.shape)}"
            raise BackendError(f"{what}: {self.name} needs contiguous {self.dtype} {list(self.shape)}, got {found}")


class Engine(Protocol):
    """A network with one input and one or more outputs of fixed shape."""

    backend: str
    precision: str
    digest: str  # SHA-256 of the file it was loaded from: what a run records of it
    limits: tuple[float, float] | None  # of this precision's self-test: most symbols that differ, least labels that agree
    source: TensorSpec
    outputs: tuple[TensorSpec, ...]

    def bind(self, source: NDArray[Any], *outputs: NDArray[Any]) -> Callable[[], None]:
        """A call that reads `source`, writes `outputs` (one array for each of the engine's, in order), and allocates no buffer.

        All arrays must be C-contiguous, be of the specs' kind and outlive the call. Different bindings of one engine may run
        at the same time; one binding may not. The call raises BackendError when the network fails.
        """


__all__ = ["BACKENDS", "EXPORTED", "Engine", "TensorSpec"]
