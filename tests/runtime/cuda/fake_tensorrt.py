"""TensorRT's runtime without a GPU: the calls `percodec.runtime.engines.tensorrt` makes, on the fake driver's streams.

An engine file is JSON: the names and shapes of its tensors. What it computes is the input's first value, written everywhere, or
what `module.compute(output name, input)` says, repeated; it also writes its scratch memory, so that stages that share scratch without an
order between them are found.
"""

from __future__ import annotations

import ctypes
import json
import types
from typing import Any

import numpy as np

TAG = 1 << 52
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Range(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


def engine_bytes(source: Any, destination: Any, scratch: int = 64) -> bytes:
    io = [[spec.name, list(spec.shape)] for spec in (source, destination)]
    return json.dumps({"io": io, "scratch": scratch}).encode()


def fake_tensorrt(driver: Any) -> types.ModuleType:
    """A module to stand for `tensorrt`. `module.faults`: {"deserialize" | "context" | "enqueue": call number that fails, -1: all}."""
    trt = types.ModuleType("tensorrt")
    faults: dict[str, int] = {}
    counts: dict[str, int] = {}

    def fails(what: str) -> bool:
        counts[what] = counts.get(what, 0) + 1
        return faults.get(what) in (counts[what], -1)

    class ILogger:
        class Severity:
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None: ...

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine, self.addresses, self.scratch = engine, {}, (0, 0)
            self.kernels: dict[tuple[int, int], Any] = {}

        def set_device_memory(self, address: int, size: int) -> None:
            self.scratch = (address, size)

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            if fails("enqueue"):
                return False
            (source, n), (destination, m) = ((self.addresses[name], int(np.prod(shape))) for name, shape in self.engine.io)
            if (source, destination) not in self.kernels:
                given = np.frombuffer((ctypes.c_uint8 * n).from_address(source & ~TAG), np.uint8)
                made = np.frombuffer((ctypes.c_uint8 * m).from_address(destination & ~TAG), np.uint8)

                def kernel(_: Any) -> None:
                    found = given[0] if trt.compute is None else trt.compute(self.engine.io[1][0], given)
                    made[:] = np.resize(found, made.size)

                self.kernels[source, destination] = KERNEL(kernel)
            reads = (Range * 1)(Range(source, n))
            writes = (Range * 2)(Range(destination, m), Range(*self.scratch))
            code = driver.fake_launch(ctypes.c_void_p(stream), self.kernels[source, destination], None, reads, 1, writes, 2)
            return bool(code == 0)

    class Engine:
        def __init__(self, entry: dict[str, Any]) -> None:
            self.io = [(name, tuple(shape)) for name, shape in entry["io"]]
            self.device_memory_size_v2 = entry["scratch"]
            self.num_io_tensors = len(self.io)

        def get_tensor_name(self, index: int) -> str:
            return str(self.io[index][0])

        def get_tensor_mode(self, name: str) -> int:
            return trt.TensorIOMode.INPUT if name == self.io[0][0] else trt.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(dict(self.io)[name])

        def get_tensor_dtype(self, name: str) -> str:
            return "UINT8"

        def create_runtime_config(self) -> types.SimpleNamespace:
            config = types.SimpleNamespace(cuda_graph_strategy="DISABLED")
            config.set_execution_context_allocation_strategy = lambda strategy: None
            return config

        def create_execution_context(self, how: Any) -> Context | None:
            if isinstance(how, types.SimpleNamespace):
                trt.strategies.append(how.cuda_graph_strategy)
            return None if fails("context") else Context(self)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            if fails("deserialize"):
                self.logger.log(ILogger.Severity.ERROR, "the serialized engine is of another version")
                return None
            return Engine(json.loads(data))

    trt.__version__ = "10.3.0"
    trt.ILogger, trt.Runtime = ILogger, Runtime
    trt.TensorIOMode = types.SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
    trt.DataType = types.SimpleNamespace(UINT8="UINT8")
    trt.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="USER_MANAGED")
    trt.faults, trt.counts, trt.compute, trt.strategies = faults, counts, None, []

    def with_own_graphs() -> None:
        trt.CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE", DISABLED="DISABLED")

    trt.with_own_graphs = with_own_graphs
    return trt
