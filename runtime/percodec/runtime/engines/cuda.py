"""CUDA as percodec needs it: some twenty calls of the driver, in one small interface, with two providers.

`cuda-python`  cuda.bindings.driver: wheels, stream priorities, graphs. The first choice.
`pycuda`       pycuda.driver: where a project already builds on it. It has no graphs and no priorities of its own; both go through
               the driver library with its stream handle, and `doctor` says so.

Streams, events and graphs are the driver's handles as integers, so what another library made (`__cuda_stream__`, TensorRT, torch)
is used as it is. There is one context: the device's primary one, which the CUDA runtime, TensorRT and torch share.

Which provider is there, and which one is opened: `cuda_open`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from percodec.sdk.errors import BackendError

KINDS = ("device", "pinned", "mapped", "managed")

# After one of these every later call of the process fails: only a new process helps (CUDA driver API, CUresult).
STICKY = frozenset({214, 220, 700, 702, 709, 713, 714, 715, 716, 717, 718, 719, 720, 999})
OUT_OF_MEMORY = 2


class CudaError(BackendError):
    """A driver call failed. `code` is its CUresult; `sticky`: this process can no longer use the GPU and has to be replaced."""

    def __init__(self, call: str, code: int, name: str) -> None:
        self.code, self.sticky = code, code in STICKY
        how = "the GPU is lost to this process; restart it" if self.sticky else "free GPU memory" if code == OUT_OF_MEMORY else ""
        super().__init__(f"{call} failed: {name} ({code})" + (f"; {how}" if how else ""))


@dataclass(frozen=True)
class Device:
    """What the driver says of a GPU. `integrated`: it shares its memory with the CPU (Jetson)."""

    index: int
    name: str
    capability: str
    integrated: bool
    can_map: bool
    concurrent_managed: bool
    total_bytes: int
    driver: int


@dataclass(frozen=True)
class Memory:
    """`nbytes` at `device` (0: not addressable there) and `host` (0: not addressable there)."""

    kind: str
    nbytes: int
    device: int
    host: int

    def array(self, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """The host side as an array; valid until the memory is freed. Raises ValueError for device memory or too large a shape."""
        kind = np.dtype(dtype)
        need = int(np.prod(shape)) * kind.itemsize
        if not self.host or need > self.nbytes:
            raise ValueError(
                f"{need} bytes asked of {self.nbytes} bytes of {self.kind} memory" if self.host else "device memory has no host side"
            )
        found: NDArray[Any] = np.ctypeslib.as_array((ctypes.c_uint8 * need).from_address(self.host))
        return found.view(kind).reshape(shape)


class Cuda(Protocol):
    """One device through one provider. Any thread may call; every call that fails raises `CudaError`."""

    name: str
    device: Device

    def allocate(self, nbytes: int, kind: str = "device") -> Memory:
        """`device`, page-locked `pinned`, page-locked and visible to the device (`mapped`), or `managed` memory."""

    def free(self, memory: Memory) -> None: ...
    def copy(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        """Asynchronous, between any two addresses; pageable host memory would make it synchronous."""

    def fill(self, address: int, value: int, nbytes: int, stream: int) -> None:
        """Asynchronous; bytes of device-addressable memory."""

    def stream(self, priority: int = 0) -> int:
        """A non-blocking stream. Lower numbers go first; out-of-range ones are clamped."""

    def event(self, timing: bool = False) -> int:
        """An event whose host waits sleep. `timing` makes `elapsed_ms` possible and costs a little."""

    def record(self, event: int, stream: int) -> None: ...
    def wait(self, stream: int, event: int) -> None:
        """Work put on `stream` from now on starts after `event`. No host wait."""

    def synchronize(self, event: int) -> None:
        """The host waits for `event`."""

    def done(self, event: int) -> bool: ...
    def elapsed_ms(self, begin: int, end: int) -> float: ...
    def begin_capture(self, stream: int) -> None:
        """Calls of this thread on `stream`, and on streams that wait for it, are recorded instead of run."""

    def end_capture(self, stream: int) -> int:
        """The recorded graph, ready to launch. After a failure the stream is usable again."""

    def launch(self, graph: int, stream: int) -> None: ...
    def call(self, stream: int, function: Callable[[], None]) -> None:
        """Run `function` on a driver thread when `stream` gets there. It must not call CUDA nor raise."""

    def memory_info(self) -> tuple[int, int]:
        """(free, total) bytes of the device."""

    def destroy(self, stream: int = 0, event: int = 0, graph: int = 0) -> None: ...
    def close(self) -> None:
        """Let go of the primary context. Everything made here must have been freed."""


__all__ = ["KINDS", "STICKY", "Cuda", "CudaError", "Device", "Memory"]
