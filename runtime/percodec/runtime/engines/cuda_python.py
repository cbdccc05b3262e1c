"""`percodec.runtime.engines.cuda` through cuda.bindings.driver (cuda-python)."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

from percodec.runtime.engines.cuda import KINDS, CudaError, Device, Memory
from percodec.sdk.errors import BackendError

_HOST_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _check(call: str, result: tuple[Any, ...]) -> Any:
    code = int(result[0])
    if code:
        raise CudaError(call, code, getattr(result[0], "name", "error"))
    return result[1] if len(result) == 2 else result[1:]


class CudaPython:
    """See `percodec.runtime.engines.cuda.Cuda`."""

    name = "cuda-python"

    def __init__(self, device: int = 0) -> None:
        self._driver = driver = importlib.import_module("cuda.bindings.driver")
        try:
            _check("cuInit", self._driver.cuInit(0))
        except CudaError as error:
            raise BackendError(f"no usable CUDA driver: {error}") from error
        except RuntimeError as error:  # cuda.bindings found no libcuda
            raise BackendError("this machine has no CUDA driver (libcuda.so.1)") from error
        count = _check("cuDeviceGetCount", self._driver.cuDeviceGetCount())
        if not 0 <= device < count:
            raise BackendError(f"no GPU {device}: the driver sees {count}")
        self._device = _check("cuDeviceGet", self._driver.cuDeviceGet(device))
        self._context = _check("cuDevicePrimaryCtxRetain", self._driver.cuDevicePrimaryCtxRetain(self._device))
        self._calls: dict[int, Any] = {}
        self._enter()
        _, self._highest = _check("cuCtxGetStreamPriorityRange", self._driver.cuCtxGetStreamPriorityRange())

        def attribute(which: Any) -> int:
            return int(_check("cuDeviceGetAttribute", self._driver.cuDeviceGetAttribute(which, self._device)))

        name = _check("cuDeviceGetName", self._driver.cuDeviceGetName(128, self._device))
        major, minor = (
            attribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            attribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        )
        self.device = Device(
            index=device,
            name=name.split(b"\0")[0].decode("ascii", "replace"),
            capability=f"{major}.{minor}",
            integrated=bool(attribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED)),
            can_map=bool(attribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)),
            concurrent_managed=bool(attribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS)),
            total_bytes=int(_check("cuDeviceTotalMem", self._driver.cuDeviceTotalMem(self._device))),
            driver=int(_check("cuDriverGetVersion", self._driver.cuDriverGetVersion())),
        )

    def _enter(self) -> None:
        """The context is per thread; setting it again costs less than asking which one is set."""
        _check("cuCtxSetCurrent", self._driver.cuCtxSetCurrent(self._context))

    def allocate(self, nbytes: int, kind: str = "device") -> Memory:
        self._enter()
        if kind == "device":
            return Memory(kind, nbytes, int(_check("cuMemAlloc", self._driver.cuMemAlloc(nbytes))), 0)
        if kind == "managed":
            flags = self._driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
            address = int(_check("cuMemAllocManaged", self._driver.cuMemAllocManaged(nbytes, flags)))
            return Memory(kind, nbytes, address, address)
        if kind not in KINDS:
            raise ValueError(f"memory kind must be one of {KINDS}, got {kind!r}")
        flags = self._driver.CU_MEMHOSTALLOC_PORTABLE | (self._driver.CU_MEMHOSTALLOC_DEVICEMAP if kind == "mapped" else 0)
        host = int(_check("cuMemHostAlloc", self._driver.cuMemHostAlloc(nbytes, flags)))
        device = int(_check("cuMemHostGetDevicePointer", self._driver.cuMemHostGetDevicePointer(host, 0))) if kind == "mapped" else 0
        return Memory(kind, nbytes, device, host)

    def free(self, memory: Memory) -> None:
        self._enter()
        if memory.kind in ("pinned", "mapped"):
            _check("cuMemFreeHost", self._driver.cuMemFreeHost(memory.host))
        else:
            _check("cuMemFree", self._driver.cuMemFree(memory.device))

    def copy(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        self._enter()
        _check("cuMemcpyAsync", self._driver.cuMemcpyAsync(destination, source, nbytes, stream))

    def fill(self, address: int, value: int, nbytes: int, stream: int) -> None:
        self._enter()
        _check("cuMemsetD8Async", self._driver.cuMemsetD8Async(address, value, nbytes, stream))

    def stream(self, priority: int = 0) -> int:
        self._enter()
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        return int(_check("cuStreamCreateWithPriority", self._driver.cuStreamCreateWithPriority(flags, max(priority, self._highest))))

    def event(self, timing: bool = False) -> int:
        self._enter()
        flags = self._driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC.value
        flags |= 0 if timing else self._driver.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
        return int(_check("cuEventCreate", self._driver.cuEventCreate(flags)))

    def record(self, event: int, stream: int) -> None:
        self._enter()
        _check("cuEventRecord", self._driver.cuEventRecord(event, stream))

    def wait(self, stream: int, event: int) -> None:
        self._enter()
        _check("cuStreamWaitEvent", self._driver.cuStreamWaitEvent(stream, event, 0))

    def synchronize(self, event: int) -> None:
        self._enter()
        _check("cuEventSynchronize", self._driver.cuEventSynchronize(event))

    def done(self, event: int) -> bool:
        self._enter()
        found = self._driver.cuEventQuery(event)
        if found[0] == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _check("cuEventQuery", found)
        return True

    def elapsed_ms(self, begin: int, end: int) -> float:
        self._enter()
        return float(_check("cuEventElapsedTime", self._driver.cuEventElapsedTime(begin, end)))

    def begin_capture(self, stream: int) -> None:
        self._enter()
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _check("cuStreamBeginCapture", self._driver.cuStreamBeginCapture(stream, mode))

    def end_capture(self, stream: int) -> int:
        self._enter()
        graph = _check("cuStreamEndCapture", self._driver.cuStreamEndCapture(stream))
        try:
            return int(_check("cuGraphInstantiate", self._driver.cuGraphInstantiate(graph, 0)))
        finally:
            self._driver.cuGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        self._enter()
        _check("cuGraphLaunch", self._driver.cuGraphLaunch(graph, stream))

    def call(self, stream: int, function: Callable[[], None]) -> None:
        self._enter()
        wrapped = self._calls.setdefault(id(function), (_HOST_CALL(lambda _: function()), function))[0]
        pointer = self._driver.CUhostFn(_ptr=ctypes.addressof(wrapped))
        _check("cuLaunchHostFunc", self._driver.cuLaunchHostFunc(stream, pointer, 0))

    def memory_info(self) -> tuple[int, int]:
        self._enter()
        free, total = _check("cuMemGetInfo", self._driver.cuMemGetInfo())
        return int(free), int(total)

    def destroy(self, stream: int = 0, event: int = 0, graph: int = 0) -> None:
        self._enter()
        if graph:
            _check("cuGraphExecDestroy", self._driver.cuGraphExecDestroy(graph))
        if event:
            _check("cuEventDestroy", self._driver.cuEventDestroy(event))
        if stream:
            _check("cuStreamDestroy", self._driver.cuStreamDestroy(stream))

    def close(self) -> None:
        _check("cuDevicePrimaryCtxRelease", self._driver.cuDevicePrimaryCtxRelease(self._device))


__all__ = ["CudaPython"]
