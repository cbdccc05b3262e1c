"""TensorRT 10.3 .. 11 and TensorRT-RTX engines, by what all of them have in common: execute_async_v3 on addresses.

    engine = TrtEngine(cuda, data, source, outputs, flavour="tensorrt", ...)
    lane = engine.lane(scratch)                 one execution context; scratch is the caller's and may serve stages that never overlap
    lane.enqueue(stream, source, *outputs)      device addresses; the host does not wait
    engine.bind(image, symbols)                 the `Engine` protocol on host arrays: upload, run, download, wait

An enqueue that returns False, an engine that does not load, a context that is not created: each is a typed error with TensorRT's own
last words, for TensorRT says why only to its logger.
"""

from __future__ import annotations

import hashlib
import importlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.cuda import Cuda, Memory
from percodec.runtime.engines.cuda_foreign import foreign_array
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.pipeline.slots import POISON
from percodec.sdk.errors import BackendError, EngineError, reason

_KINDS = {
    "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64", "float16": "HALF", "float32": "FLOAT", "bool": "BOOL",
}  # fmt: skip


class TrtEngine:
    """One deserialized engine. Lanes share its weights; one lane serves one stream."""

    def __init__(
        self,
        cuda: Cuda,
        data: bytes,
        source: TensorSpec,
        outputs: tuple[TensorSpec, ...],
        *,
        flavour: str,
        what: str,
        precision: str,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.backend, self.precision, self.limits, self.digest = flavour, precision, limits, hashlib.sha256(data).hexdigest()
        self.source, self.outputs = source, outputs
        self._cuda, self._what = cuda, what
        self._trt = load_tensorrt(flavour)
        self._words: deque[str] = deque(maxlen=20)
        self._logger = _logger(self._trt, self._words)
        self._runtime = self._trt.Runtime(self._logger)
        try:
            self._engine = self._runtime.deserialize_cuda_engine(data)
        except Exception as error:
            raise EngineError(f"{what}: {flavour} {self._trt.__version__} refuses the engine ({reason(error)}){self._last()}") from error
        if self._engine is None:
            raise EngineError(f"{what}: {flavour} {self._trt.__version__} refuses the engine{self._last()}")
        self._check_io()
        self._bound: _Bound | None = None

    @property
    def own_graphs(self) -> bool:
        """This TensorRT captures CUDA graphs by itself (TensorRT-RTX): nobody else should."""
        return hasattr(self._trt, "CudaGraphStrategy")

    @property
    def scratch_bytes(self) -> int:
        """Device memory a lane needs while it runs."""
        return int(self._engine.device_memory_size_v2)

    def lane(self, scratch: Memory) -> Lane:
        """An execution context on the caller's scratch memory. Raises `BackendError` when TensorRT cannot make one (memory, mostly)."""
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._words.clear()
        try:
            if self.own_graphs:
                config = self._engine.create_runtime_config()
                config.set_execution_context_allocation_strategy(strategy)
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                context = self._engine.create_execution_context(config)
            else:
                context = self._engine.create_execution_context(strategy)
        except Exception as error:
            raise BackendError(f"{self._what}: no execution context ({reason(error)}){self._last()}") from error
        if context is None:
            raise BackendError(f"{self._what}: no execution context; most often GPU memory is short{self._last()}")
        if scratch.nbytes < self.scratch_bytes:
            raise BackendError(f"{self._what}: needs {self.scratch_bytes} bytes of scratch memory, was given {scratch.nbytes}")
        if self.scratch_bytes:
            context.set_device_memory(scratch.device, scratch.nbytes)
        return Lane(context, self)

    def bind(self, source: NDArray[Any], *outputs: NDArray[Any]) -> Callable[[], None]:
        for array, spec in zip((source, *outputs), (self.source, *self.outputs), strict=True):
            spec.check(array, self._what)
        self._bound = self._bound or _Bound(self, self._cuda)
        bound = self._bound
        return lambda: bound.run(source, outputs)

    def run_foreign(self, source: Any, *outputs: NDArray[Any]) -> None:
        """Run on another library's device array, by `__cuda_array_interface__` or DLPack. Raises TypeError, ValueError, `BackendError`."""
        self._bound = self._bound or _Bound(self, self._cuda)
        self._bound.run(source, outputs)

    def _check_io(self) -> None:
        loaded, trt = self._engine, self._trt
        names = [loaded.get_tensor_name(k) for k in range(loaded.num_io_tensors)]
        modes = [trt.TensorIOMode.INPUT, *[trt.TensorIOMode.OUTPUT] * len(self.outputs)]
        for spec, mode in zip((self.source, *self.outputs), modes, strict=True):
            if spec.name not in names or loaded.get_tensor_mode(spec.name) != mode:
                raise EngineError(f"{self._what}: the engine has {', '.join(names)}; {spec.name} is missing")
            shape, kind = tuple(loaded.get_tensor_shape(spec.name)), loaded.get_tensor_dtype(spec.name)
            if shape != spec.shape or kind != getattr(trt.DataType, _KINDS.get(spec.dtype, ""), None):
                raise EngineError(f"{self._what}: {spec.name} must be {spec.dtype} {list(spec.shape)}, the engine has {kind} {list(shape)}")
        if len(names) != len(modes):
            raise EngineError(f"{self._what}: one input and {len(self.outputs)} outputs are needed, the engine has {', '.join(names)}")

    def _last(self) -> str:
        return f": {self._words[-1][:300]}" if self._words else ""


class Lane:
    """One execution context of an engine, for one stream at a time. Not to be used by two threads at once."""

    def __init__(self, context: Any, engine: TrtEngine) -> None:
        self._context, self._of = context, engine
        self._addresses: tuple[int, ...] = ()

    def enqueue(self, stream: int, *addresses: int) -> None:
        """Run on device addresses of the input and of every output, in `stream`'s order.

        Raises `BackendError` when TensorRT does not take the work.
        """
        engine = self._of
        if addresses != self._addresses:
            specs = (engine.source, *engine.outputs)
            if not all(self._context.set_tensor_address(s.name, a) for s, a in zip(specs, addresses, strict=True)):
                raise BackendError(f"{engine._what}: TensorRT does not accept the buffers' addresses{engine._last()}")
            self._addresses = addresses
        try:
            taken = self._context.execute_async_v3(stream)
        except Exception as error:
            raise BackendError(f"{engine._what}: the work was not queued ({reason(error)}){engine._last()}") from error
        if not taken:
            raise BackendError(f"{engine._what}: TensorRT did not queue the work{engine._last()}")


class _Bound:
    """Host arrays in, host arrays out, one stream: for self-tests, files and tools."""

    def __init__(self, engine: TrtEngine, cuda: Cuda) -> None:
        self._shape, self._cuda = engine.source.shape, cuda
        self._stream, self._event = cuda.stream(), cuda.event()
        sizes = [spec.nbytes for spec in (engine.source, *engine.outputs)]
        self._pinned = [cuda.allocate(n, "pinned") for n in sizes]
        self._device = [cuda.allocate(n) for n in sizes]
        self._lane = engine.lane(cuda.allocate(max(1, engine.scratch_bytes)))

    def run(self, source: Any, outputs: tuple[NDArray[Any], ...]) -> None:
        cuda, stream, pinned, device = self._cuda, self._stream, self._pinned, self._device
        if isinstance(source, np.ndarray):
            np.copyto(pinned[0].array(source.shape, source.dtype), source)
            cuda.copy(device[0].device, pinned[0].host, pinned[0].nbytes, stream)
        else:
            address, producer = foreign_array(source, self._shape, stream)
            if producer:
                cuda.record(self._event, producer)
                cuda.wait(stream, self._event)
            cuda.copy(device[0].device, address, device[0].nbytes, stream)
        for memory in device[1:]:
            cuda.fill(memory.device, POISON, memory.nbytes, stream)
        self._lane.enqueue(stream, *(memory.device for memory in device))
        for host, memory in zip(pinned[1:], device[1:], strict=True):
            cuda.copy(host.host, memory.device, memory.nbytes, stream)
        cuda.record(self._event, stream)
        cuda.synchronize(self._event)
        for array, host in zip(outputs, pinned[1:], strict=True):
            np.copyto(array, host.array(array.shape, array.dtype))


def load_tensorrt(flavour: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`. Raises `BackendError` that says how to get it."""
    how = {
        "tensorrt": "on a Jetson it comes with JetPack (make the environment with --system-site-packages); elsewhere pip install tensorrt",
        "tensorrt_rtx": "pip install tensorrt-rtx",
    }[flavour]
    try:
        module = importlib.import_module(flavour)
    except (ImportError, OSError) as error:
        raise BackendError(f"{flavour} cannot be imported ({reason(error)}): {how}") from error
    if not hasattr(module, "ExecutionContextAllocationStrategy"):
        raise BackendError(f"{flavour} {module.__version__} is too old: TensorRT 10.3 (JetPack 6.1) or later is needed")
    return module


def _logger(trt: Any, words: deque[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                words.append(message)

    return Logger()


__all__ = ["Lane", "TrtEngine", "load_tensorrt"]
