"""`percodec.runtime.engines.cuda` for projects built on pycuda: its device, its primary context, its memory.

pycuda knows neither graphs, nor stream priorities, nor other libraries' streams and events. Those calls go to the driver library
by handle, in the same context; arrays and buffers stay exchangeable with the project's own pycuda code.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from percodec.runtime.engines.cuda import KINDS, CudaError, Device, Memory
from percodec.sdk.errors import BackendError

_HOST_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PTR, _U64, _SIZE, _INT = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_int
_NON_BLOCKING, _BLOCKING_SYNC, _DISABLE_TIMING, _THREAD_LOCAL, _NOT_READY = 1, 1, 2, 1, 600


class PyCuda:
    """See `percodec.runtime.engines.cuda.Cuda`."""

    name = "pycuda"

    def __init__(self, device: int = 0) -> None:
        self._driver = importlib.import_module("pycuda.driver")
        try:
            self._driver.init()
            if not 0 <= device < self._driver.Device.count():
                raise BackendError(f"no GPU {device}: the driver sees {self._driver.Device.count()}")
            self._device = self._driver.Device(device)
            self._context = self._device.retain_primary_context()
        except self._driver.Error as error:
            raise BackendError(f"no usable CUDA driver: {error}") from error
        self._lib = ctypes.CDLL("libcuda.so.1")
        self._held: dict[int, Any] = {}
        self._handle = _PTR(int(self._context.handle))
        low, high = _INT(), _INT()
        self._call("cuCtxGetStreamPriorityRange", ctypes.byref(low), ctypes.byref(high))
        self._highest = high.value
        a = self._driver.device_attribute

        def attribute(name: str) -> int:
            return int(self._device.get_attribute(getattr(a, name))) if hasattr(a, name) else 0

        major, minor = self._device.compute_capability()
        self.device = Device(
            index=device,
            name=self._device.name(),
            capability=f"{major}.{minor}",
            integrated=bool(attribute("INTEGRATED")),
            can_map=bool(attribute("CAN_MAP_HOST_MEMORY")),
            concurrent_managed=bool(attribute("CONCURRENT_MANAGED_ACCESS")),
            total_bytes=int(self._device.total_memory()),
            driver=int(self._driver.get_driver_version()),
        )

    @contextlib.contextmanager
    def _pushed(self) -> Iterator[None]:
        """pycuda wants the context on its own stack of this thread, and aborts the process when a thread ends with one there."""
        try:
            self._context.push()
        except self._driver.Error as error:
            raise self._ours(error, "cuCtxPushCurrent") from error
        try:
            yield
        except self._driver.Error as error:
            raise self._ours(error, "pycuda") from error
        finally:
            self._context.pop()

    def _call(self, name: str, *args: Any) -> None:
        code = int(self._lib.cuCtxSetCurrent(self._handle)) or int(getattr(self._lib, name)(*args))
        if code:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorName(code, ctypes.byref(text))
            raise CudaError(name.split("_v")[0], code, (text.value or b"error").decode("ascii", "replace"))

    def _ours(self, error: Exception, call: str) -> CudaError:
        """pycuda's errors carry no code; the driver repeats a sticky one."""
        if isinstance(error, self._driver.MemoryError):
            return CudaError(call, 2, "CUDA_ERROR_OUT_OF_MEMORY")
        code = int(self._lib.cuCtxSynchronize())
        return CudaError(call, code or 999, str(error))

    def _made(self, name: str, *args: Any) -> int:
        handle = _PTR()
        self._call(name, ctypes.byref(handle), *args)
        return int(handle.value or 0)

    def allocate(self, nbytes: int, kind: str = "device") -> Memory:
        if kind not in KINDS:
            raise ValueError(f"memory kind must be one of {KINDS}, got {kind!r}")
        with self._pushed():
            if kind == "device":
                held: Any = self._driver.mem_alloc(nbytes)
                memory = Memory(kind, nbytes, int(held), 0)
            elif kind == "managed":
                held = self._driver.managed_empty(nbytes, np.uint8, mem_flags=self._driver.mem_attach_flags.GLOBAL)
                memory = Memory(kind, nbytes, int(held.ctypes.data), int(held.ctypes.data))
            else:
                flags = self._driver.host_alloc_flags.PORTABLE | (self._driver.host_alloc_flags.DEVICEMAP if kind == "mapped" else 0)
                held = self._driver.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
                device = int(held.base.get_device_pointer()) if kind == "mapped" else 0
                memory = Memory(kind, nbytes, device, int(held.ctypes.data))
        self._held[memory.device or memory.host] = held
        return memory

    def free(self, memory: Memory) -> None:
        held = self._held.pop(memory.device or memory.host)
        with self._pushed():
            (held if memory.kind == "device" else held.base).free()

    def copy(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        self._call("cuMemcpyAsync", _U64(destination), _U64(source), _SIZE(nbytes), _PTR(stream))

    def fill(self, address: int, value: int, nbytes: int, stream: int) -> None:
        self._call("cuMemsetD8Async", _U64(address), ctypes.c_ubyte(value), _SIZE(nbytes), _PTR(stream))

    def stream(self, priority: int = 0) -> int:
        return self._made("cuStreamCreateWithPriority", _NON_BLOCKING, max(priority, self._highest))

    def event(self, timing: bool = False) -> int:
        return self._made("cuEventCreate", _BLOCKING_SYNC | (0 if timing else _DISABLE_TIMING))

    def record(self, event: int, stream: int) -> None:
        self._call("cuEventRecord", _PTR(event), _PTR(stream))

    def wait(self, stream: int, event: int) -> None:
        self._call("cuStreamWaitEvent", _PTR(stream), _PTR(event), 0)

    def synchronize(self, event: int) -> None:
        self._call("cuEventSynchronize", _PTR(event))

    def done(self, event: int) -> bool:
        try:
            self._call("cuEventQuery", _PTR(event))
        except CudaError as error:
            if error.code == _NOT_READY:
                return False
            raise
        return True

    def elapsed_ms(self, begin: int, end: int) -> float:
        found = ctypes.c_float()
        self._call(
            "cuEventElapsedTime_v2" if hasattr(self._lib, "cuEventElapsedTime_v2") else "cuEventElapsedTime",
            ctypes.byref(found),
            _PTR(begin),
            _PTR(end),
        )
        return float(found.value)

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", _PTR(stream), _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        graph = _PTR()
        self._call("cuStreamEndCapture", _PTR(stream), ctypes.byref(graph))
        try:
            return self._made("cuGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
        finally:
            self._lib.cuGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", _PTR(graph), _PTR(stream))

    def call(self, stream: int, function: Callable[[], None]) -> None:
        wrapped = self._held.setdefault(id(function), (_HOST_CALL(lambda _: function()), function))[0]
        self._call("cuLaunchHostFunc", _PTR(stream), wrapped, _PTR(0))

    def memory_info(self) -> tuple[int, int]:
        with self._pushed():
            free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def destroy(self, stream: int = 0, event: int = 0, graph: int = 0) -> None:
        if graph:
            self._call("cuGraphExecDestroy", _PTR(graph))
        if event:
            self._call("cuEventDestroy_v2", _PTR(event))
        if stream:
            self._call("cuStreamDestroy_v2", _PTR(stream))

    def close(self) -> None:
        with self._pushed():
            self._held.clear()
        self._context.detach()


__all__ = ["PyCuda"]
