"""ONNX with explicit precision -> engine, on TensorRT 10.3 .. 11 or TensorRT-RTX, by what both have in common. No torch here.

    tensorrt_rtx   builds for a named GPU on any machine, also without one
    tensorrt       builds for the GPU it runs on

Strongly typed: the builder may choose kernels, never types. What it made is read back from its layer table, and an engine that was asked
for in INT8 and holds no INT8 convolution is refused.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto, numpy_helper

from percodec.export.engines.layer_table import Layer, histogram, layers_from_inspector, layers_from_log
from percodec.export.engines.onnx_graph import initializers, parse, serialized
from percodec.sdk.device import cuda, package
from percodec.sdk.errors import BackendError, ExportError
from percodec.sdk.targets import Target

FLAVOURS = ("tensorrt", "tensorrt_rtx")

Progress = Callable[[str, int, int], bool]  # phase, done, of -> go on?


@dataclass(frozen=True)
class Built:
    """An engine and what was read back from its build."""

    data: bytes
    layers: tuple[Layer, ...]
    flags: tuple[str, ...]
    profiles: tuple[str, ...]
    version: str
    seconds: float

    def report(self) -> dict[str, Any]:
        """For engine records: sizes, seconds, precision histogram, every layer."""
        return {
            "engine_bytes": len(self.data),
            "build_seconds": round(self.seconds, 3),
            "histogram": histogram(list(self.layers)),
            "dla_layers": sum(layer.dla for layer in self.layers),
            "layers": [layer.as_dict() for layer in self.layers],
        }


def load_flavour(name: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`. Raises `BackendError` that says how to get it."""
    if name not in FLAVOURS:
        raise BackendError(f"{name!r} builds no engines; there are {', '.join(FLAVOURS)}")
    how = {
        "tensorrt": "on a Jetson it comes with JetPack (make the environment with --system-site-packages); elsewhere pip install tensorrt",
        "tensorrt_rtx": "pip install tensorrt-rtx",
    }[name]
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise BackendError(f"{name} cannot be imported ({str(error).splitlines()[0][:120]}): {how}") from error
    if not hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        raise BackendError(f"{name} {module.__version__} has no strongly typed networks: TensorRT 10.3 (JetPack 6.1) or later is needed")
    return module


def build_engine(
    data: bytes,
    target: Target,
    precision: str,
    *,
    batches: Sequence[int] = (1,),
    level: int | None = None,
    dla_core: int | None = None,
    timing_cache: Path | None = None,
    progress: Progress = lambda phase, done, of: True,
) -> Built:
    """Build `data` (explicit precision) for `target`. `level`: builder optimization level 0..5. `batches`: one fixed profile each.

    Raises `BackendError` where the flavour is missing or the user stopped it, `ExportError` where it cannot parse or build the graph or
    built something else than was asked for.
    """
    trt = load_flavour(target.flavour)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    model = parse(data)
    if tuple(batches) != (1,):
        model = any_batch(model)
        data = serialized(model)
    _parse(trt, network, log, data)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flags = ["STRONGLY_TYPED", "DETAILED", "max_aux_streams=0"]
    config.max_aux_streams = 0
    if level is not None:
        config.builder_optimization_level = level
        flags.append(f"level={level}")
    if dla_core is not None:
        _use_dla(trt, builder, config, dla_core)
        flags += [f"dla={dla_core}", "GPU_FALLBACK"]
    if target.flavour == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, target), 0)
        flags.append(f"sm={target.capability}")
    profiles = _profiles(builder, config, model, batches)
    cache = _timing_cache(config, timing_cache) if target.flavour == "tensorrt" else None  # does nothing in TensorRT-RTX
    if hasattr(trt, "IProgressMonitor"):
        monitor = _monitor(trt, progress)
        config.progress_monitor = monitor
    began = time.monotonic()
    blob = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - began
    if blob is None:
        raise ExportError(f"{target.flavour} {trt.__version__} cannot build this graph for {target.name}: {log.first_error()}")
    engine = bytes(memoryview(blob))
    if cache is not None and timing_cache is not None:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        timing_cache.write_bytes(bytes(memoryview(config.get_timing_cache().serialize())))
    layers = _layers(trt, target, log, engine)
    built = Built(engine, tuple(layers), tuple(flags), profiles, str(trt.__version__), seconds)
    kind = precision.partition("+")[0]
    if kind in ("int8", "fp8") and not histogram(layers).get(kind):
        raise ExportError(
            f"{precision} was asked for and {target.flavour} built no {kind.upper()} convolution for {target.name}: "
            f"{histogram(layers)}; check the graph with `percodec build --dry-run`, or build fp16"
        )
    return built


def any_batch(model: ModelProto) -> ModelProto:
    """A copy whose batch axis is dynamic; everything else stays fixed."""
    out = ModelProto()
    out.CopyFrom(model)
    for value in (*out.graph.input, *out.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del out.graph.value_info[:]
    weights = initializers(out)
    for node in out.graph.node:
        if node.op_type == "Reshape" and node.input[1] in weights:
            shape = numpy_helper.to_array(weights[node.input[1]]).copy()
            if -1 not in shape and (shape.size == 1 or shape[0] == 1):
                shape[0] = -1
                weights[node.input[1]].CopyFrom(numpy_helper.from_array(shape, node.input[1]))
    return out


def cuda_of(flavour: str) -> str:
    """The CUDA that this flavour's package was made for ("12", "13"), else the toolkit's here."""
    return ".".join(map(str, package(flavour)[2] or cuda()))


def _parse(trt: Any, network: Any, log: Any, data: bytes) -> None:
    parser = trt.OnnxParser(network, log)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as f:
        f.write(data)
        f.flush()
        parsed = parser.parse_from_file(f.name)
    if not parsed:
        errors = [parser.get_error(k) for k in range(parser.num_errors)]
        first = " ".join(errors[0].desc().split())[:300] if errors else log.first_error()
        name = errors[0].node_name() if errors and hasattr(errors[0], "node_name") else ""
        raise ExportError(f"TensorRT's parser refuses the graph{' at ' + name if name else ''}: {first}")


def _use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if builder.num_DLA_cores <= core:
        raise BackendError(f"DLA core {core} was asked for, this machine has {builder.num_DLA_cores}")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _capability(trt: Any, target: Target) -> Any:
    name = f"SM{target.capability.replace('.', '')}"
    if not hasattr(trt.ComputeCapability, name):
        raise BackendError(f"TensorRT-RTX {trt.__version__} has no code for compute capability {target.capability} ({target.name})")
    return getattr(trt.ComputeCapability, name)


def _profiles(builder: Any, config: Any, model: ModelProto, batches: Sequence[int]) -> tuple[str, ...]:
    """One per batch size, minimum = optimum = maximum: each gets kernels of its own."""
    names = []
    for batch in batches:
        profile = builder.create_optimization_profile()
        parts = []
        for value in model.graph.input:
            dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
            shape = (batch, *dims[1:])
            profile.set_shape(value.name, shape, shape, shape)
            parts.append(f"{value.name} {'x'.join(map(str, shape))}")
        if tuple(batches) != (1,):
            config.add_optimization_profile(profile)
        names.append(", ".join(parts))
    return tuple(names)


def _timing_cache(config: Any, path: Path | None) -> Any:
    if path is None or not hasattr(config, "create_timing_cache"):
        return None
    stored = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, False):  # of another device or version: begin anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _layers(trt: Any, target: Target, log: Any, engine: bytes) -> list[Layer]:
    if target.flavour == "tensorrt_rtx":
        return layers_from_log(log.messages)
    loaded = trt.Runtime(log).deserialize_cuda_engine(engine)
    if loaded is None:
        raise ExportError(f"the engine was built and cannot be loaded here: {log.first_error()}")
    return layers_from_inspector(loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _logger(trt: Any) -> Any:
    """Keeps every message: the layer table of TensorRT-RTX comes as one."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append(message)
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(message)

        def first_error(self) -> str:
            return " ".join((self.errors or ["it gives no reason"])[0].split())[:300]

    return Log()


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def io_of(data: bytes) -> list[dict[str, Any]]:
    """Names, types and shapes at the network's border."""
    graph, out = parse(data).graph, []
    for side, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            kind = value.type.tensor_type
            dtype = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}.get(kind.elem_type, str(kind.elem_type))
            out.append({"name": value.name, "side": side, "dtype": dtype, "shape": [int(d.dim_value) for d in kind.shape.dim]})
    return out


__all__ = ["FLAVOURS", "Built", "any_batch", "build_engine", "cuda_of", "io_of", "load_flavour"]
