"""CUDA as percodec needs it: some twenty calls of the driver, in one small interface, with two providers.

`cuda-python`  cuda.bindings.driver: wheels, stream priorities, graphs. The first choice.
`pycuda`       pycuda.driver: where a project already builds on it. It has no graphs and no priorities of its own; both go through
               the driver library with its stream handle, and `doctor` says so.

Streams, events and graphs are the driver's handles as integers, so what another library made (`__cuda_stream__`, TensorRT, torch)
is used as it is. There is one context: the device's primary one, which the CUDA runtime, TensorRT and torch share.

A provider is asked for by name, or is the first of `PROVIDERS` that is installed; there is no fallback after that.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from percodec.runtime.engine import reason
from percodec.sdk.errors import BackendError

PROVIDERS = ("cuda-python", "pycuda")
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


def open_cuda(provider: str | None = None, device: int = 0) -> Cuda:
    """Device `device` through `provider`, or the first one installed. Raises `BackendError` saying what is missing."""
    if provider is not None and provider not in PROVIDERS:
        raise BackendError(f"unknown CUDA provider {provider!r}; known: {', '.join(PROVIDERS)}")
    missing = []
    for name in (provider,) if provider else PROVIDERS:
        try:
            if name == "pycuda":
                from percodec.runtime.cuda_pycuda import PyCuda

                return PyCuda(device)
            from percodec.runtime.cuda_bindings import CudaPython

            return CudaPython(device)
        except ImportError as error:
            package = {"cuda-python": "cuda-bindings", "pycuda": "pycuda"}[str(name)]
            missing.append(f"{name}: {reason(error)} (pip install {package})")
    raise BackendError("no CUDA provider can be used: " + "; ".join(missing))


@functools.cache
def shared_cuda(provider: str | None = None, device: int = 0) -> Cuda:
    """The process's device, opened once: cameras, engines and tools share its context. Raises like `open_cuda`."""
    return open_cuda(provider, device)


def foreign_stream(stream: object) -> int:
    """The handle of a stream of another library: an integer, or an object with `__cuda_stream__` (version 0)."""
    if isinstance(stream, int):
        return stream
    method = getattr(stream, "__cuda_stream__", None)
    if method is None:
        raise TypeError(f"{type(stream).__name__} is no CUDA stream: it has no __cuda_stream__")
    version, handle = method()
    if version != 0:
        raise TypeError(f"__cuda_stream__ protocol version {version} is not known, only 0")
    return int(handle)


def foreign_array(array: Any, shape: tuple[int, ...], stream: int = 0) -> tuple[int, int]:
    """Address of another library's C-contiguous uint8 device array, and the stream its work must be awaited on (0: nothing to await).

    By `__cuda_array_interface__` (version 3 names the stream) or by DLPack, which is told our `stream` and orders itself. A leading
    dimension of 1 may be missing. The caller keeps `array` alive. Raises TypeError, ValueError.
    """
    producer = 0
    found = getattr(array, "__cuda_array_interface__", None)
    if found is not None:
        kind, sizes, strides, address = found["typestr"], tuple(found["shape"]), found.get("strides"), int(found["data"][0])
        plain = kind in ("|u1", "<u1") and (strides is None or tuple(strides) == _c_strides(sizes))
        producer = int(found.get("stream") or 0)
    elif hasattr(array, "__dlpack__"):
        address, sizes, plain = _dlpack(array, stream)
    else:
        raise TypeError(f"{type(array).__name__} has neither __cuda_array_interface__ nor __dlpack__")
    if not plain or sizes not in (shape, shape[1:] if shape[:1] == (1,) else shape):
        wrong = "" if plain else ", not plain uint8"
        raise ValueError(f"a C-contiguous uint8 array of {list(shape)} on the GPU is needed, got {list(sizes)}{wrong}")
    return address, producer


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))


class _DLTensor(ctypes.Structure):
    """dlpack.h, struct DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DEVICE_TYPES = frozenset({2, 3, 13})  # kDLCUDA, kDLCUDAHost, kDLCUDAManaged


def _dlpack(array: Any, stream: int) -> tuple[int, tuple[int, ...], bool]:
    device, _ = array.__dlpack_device__()
    if device not in _DEVICE_TYPES:
        raise ValueError(f"the array is not on a CUDA device (DLPack device type {device})")
    capsule = array.__dlpack__(stream=stream) if stream else array.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    t = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    sizes = tuple(t.shape[k] for k in range(t.ndim))
    dense = not t.strides or tuple(t.strides[k] for k in range(t.ndim)) == _c_strides(sizes)
    return int(t.data or 0) + t.byte_offset, sizes, dense and (t.code, t.bits, t.lanes) == (1, 8, 1)


def check_provider(name: str) -> str:
    """ "" when a provider can be imported, else why not. Starts no context."""
    module = {"cuda-python": "cuda.bindings.driver", "pycuda": "pycuda.driver"}[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"{module} cannot be imported ({reason(error)})"
    return ""


__all__ = [
    "KINDS",
    "PROVIDERS",
    "STICKY",
    "Cuda",
    "CudaError",
    "Device",
    "Memory",
    "check_provider",
    "foreign_array",
    "foreign_stream",
    "open_cuda",
    "shared_cuda",
]
