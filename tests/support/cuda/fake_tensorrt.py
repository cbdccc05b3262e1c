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


def engine_bytes(source: Any, *outputs: Any, scratch: int = 64) -> bytes:
    io = [[spec.name, list(spec.shape), spec.dtype] for spec in (source, *outputs)]
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
            self.kernels: dict[tuple[int, ...], Any] = {}

        def set_device_memory(self, address: int, size: int) -> None:
            self.scratch = (address, size)

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            if fails("enqueue"):
                return False
            places = [(self.addresses[name], size) for name, size in self.engine.sizes()]
            (source, n), *made = places
            key = tuple(address for address, _ in places)
            if key not in self.kernels:
                given = np.frombuffer((ctypes.c_uint8 * n).from_address(source & ~TAG), np.uint8)
                arrays = [np.frombuffer((ctypes.c_uint8 * m).from_address(address & ~TAG), np.uint8) for address, m in made]

                def kernel(_: Any) -> None:
                    for (name, _, dtype), array in zip(self.engine.io[1:], arrays, strict=True):
                        found = np.asarray(given[0] if trt.compute is None else trt.compute(name, given)).astype(dtype)
                        view = array.view(dtype)
                        view[:] = np.resize(found, view.size)

                self.kernels[key] = KERNEL(kernel)
            reads = (Range * 1)(Range(source, n))
            writes = (Range * (1 + len(made)))(*(Range(*place) for place in made), Range(*self.scratch))
            code = driver.fake_launch(ctypes.c_void_p(stream), self.kernels[key], None, reads, 1, writes, 1 + len(made))
            return bool(code == 0)

    class Engine:
        def __init__(self, entry: dict[str, Any]) -> None:
            self.io = [(name, tuple(shape), dtype) for name, shape, dtype in entry["io"]]
            self.device_memory_size_v2 = entry["scratch"]
            self.num_io_tensors = len(self.io)

        def get_tensor_name(self, index: int) -> str:
            return str(self.io[index][0])

        def get_tensor_mode(self, name: str) -> int:
            return trt.TensorIOMode.INPUT if name == self.io[0][0] else trt.TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return next(shape for n, shape, _ in self.io if n == name)

        def get_tensor_dtype(self, name: str) -> str:
            return {"uint8": "UINT8", "float32": "FLOAT"}[next(dtype for n, _, dtype in self.io if n == name)]

        def sizes(self) -> list[tuple[str, int]]:
            return [(name, int(np.prod(shape)) * np.dtype(dtype).itemsize) for name, shape, dtype in self.io]

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
    trt.DataType = types.SimpleNamespace(UINT8="UINT8", FLOAT="FLOAT")
    trt.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="USER_MANAGED")
    trt.faults, trt.counts, trt.compute, trt.strategies = faults, counts, None, []

    def with_own_graphs() -> None:
        trt.CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE", DISABLED="DISABLED")

    trt.with_own_graphs = with_own_graphs
    return trt
