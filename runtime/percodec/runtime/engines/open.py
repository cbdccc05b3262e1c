"""From the word a user types to slots that run: `ort[:precision]`, `tensorrt[:precision]`, `tensorrt_rtx[:precision]`.

made = open_slots(bundle, backend="tensorrt:int8+fp16")      engines loaded; whoever asks runs their self-test
Pipeline(source, preprocess, made.make, ...)
made.close()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from percodec.runtime.engines.cuda import Cuda
from percodec.runtime.engines.cuda_open import shared_cuda
from percodec.runtime.engines.cuda_slots import CudaSlots
from percodec.runtime.engines.engine import BACKENDS, EXPORTED, Engine, TensorSpec
from percodec.runtime.engines.host_slots import host_slots
from percodec.runtime.engines.onnxruntime import OrtEngine
from percodec.runtime.engines.tensorrt import TrtEngine, load_tensorrt
from percodec.runtime.pipeline.slots import Slot
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import engines_in, read_engine
from percodec.sdk.bundle.onnx_ops import signature
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import BackendError, BundleError, EngineError, UsageError
from percodec.sdk.fit import CELL, MAX_SIDE
from percodec.sdk.targets import TARGETS

_BUILT_FOR_CPU = ("int8", "fp16")  # the first that a bundle holds is its CPU default
LOOSEST = 0.05  # share of symbols or labels that a precision may change in the self-test
PREFERENCES = ("psnr", "ms-ssim")  # what a decoded picture may be wanted nearest to the original in
MAX_THREADS = 64  # inside a network
GPU_PRECISIONS = ("int8+fp16", "fp16", "fp32")  # what is taken where nobody chose, the first that the bundle holds


@dataclass
class Made:
    """Engines of one backend and how to make slots over them. `about`: what really runs, for reports. `gpu`: slots made on a device."""

    encoder: Engine
    heads: dict[str, Engine]
    make: Callable[[int], list[Slot]]
    about: dict[str, Any]
    gpu: list[CudaSlots] = field(default_factory=list)

    def close(self) -> None:
        """Free what the slots hold on a device. The slots must no longer be used."""
        while self.gpu:
            self.gpu.pop().close()


def open_slots(
    bundle: Bundle,
    *,
    backend: str = "ort",
    heads: Sequence[str] = ("segmentation",),
    threads: int = 1,
    provider: str | None = None,
    camera: CameraFormat | None = None,
    transfer: str = "auto",
    priority: int = 0,
    graphs: bool = True,
    frame: tuple[int, int] | None = None,
) -> Made:
    """Encoder and `heads` of `bundle` on `backend`. On a GPU, `camera` pictures are prepared there. `frame`: as `open_engine`.

    Raises `BackendError` naming what is missing, `EngineError` for engines of another bundle or machine, `BundleError` for an unknown head.
    """
    name, _, precision = backend.partition(":")
    wanted = {bundle.head(head).name.removeprefix("head_"): bundle.head(head).name for head in heads}
    if name not in ("tensorrt", "tensorrt_rtx"):
        encoder = open_engine(bundle, "encoder", backend=backend, threads=threads, frame=frame)
        found = {head: open_engine(bundle, graph, backend=backend, threads=threads, frame=frame) for head, graph in wanted.items()}
        return Made(encoder, found, host_slots(encoder, found), _about(name, encoder, found))
    _refuse_size(backend, frame)
    cuda = gpu(name, provider)
    first = open_gpu_engine(bundle, "encoder", cuda, flavour=name, precision=precision)
    second = {head: open_gpu_engine(bundle, graph, cuda, flavour=name, precision=precision) for head, graph in wanted.items()}
    eye = open_gpu_engine(bundle, camera.graph, cuda, flavour=name, precision=precision) if camera is not None else None
    about = _about(name, first, second) | {"provider": cuda.name, "gpu": cuda.device.name, "capability": cuda.device.capability}
    made = Made(first, dict(second), lambda count: [], about)

    def make(count: int) -> list[Slot]:
        slots = CudaSlots(cuda, first, second, count, camera=eye, transfer=transfer, priority=priority, graphs=graphs)
        made.gpu.append(slots)
        about.update({"transfer": slots.transfer, "graphs": not slots.eager_because, "eager_because": slots.eager_because})
        return slots.slots

    made.make = make
    return made


def open_engine(bundle: Bundle, graph: str, *, backend: str = "ort", threads: int = 1, frame: tuple[int, int] | None = None) -> Engine:
    """Load `graph` of `bundle` on `backend`. `frame`: height and width, multiples of 8, where not those of the bundle; for `ort` only.

    Raises UsageError for `threads` outside 1..64 and for such a `frame`, BackendError naming what is missing when the backend cannot run
    here, BundleError when the bundle lacks the graph, or has it for its own frame only.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads inside a network are a whole number from 1 to {MAX_THREADS}, got {threads!r}")
    if frame is not None and not all(isinstance(side, int) and CELL <= side <= MAX_SIDE and side % CELL == 0 for side in frame):
        raise UsageError(f"frame is height and width, each a multiple of {CELL} up to {MAX_SIDE}; got {frame!r}")
    name, _, precision = backend.partition(":")
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}; this version knows {', '.join(BACKENDS)}, and ort:fp32, ort:int8")
    if name != "ort":
        _refuse_size(backend, frame)
        return open_gpu_engine(bundle, graph, gpu(name), flavour=name, precision=precision)
    source, outputs = graph_specs(bundle, graph, frame)
    model, chosen, limits = cpu_graph(bundle, graph, precision or None)
    if frame is not None and (bundle.graphs[graph].task == "array" or not takes_any_size(model)):
        raise BundleError(
            f"{bundle.name}/{graph} in {chosen} runs on frames of {bundle.frame_width}x{bundle.frame_height} only; where its layers "
            f"allow more, make a bundle of any size: percodec export {bundle.path} --any-size --out NEW"
        )
    return OrtEngine(model, source, outputs, threads=threads, what=f"{bundle.name}/{graph}", precision=chosen, limits=limits)


def decoder_for(bundle: Bundle, prefer: str | None) -> str:
    """The graph that rebuilds what is preferred; the bundle's first decoder for None and `psnr`.

    Raises `UsageError` for an unknown preference, `BundleError` where the bundle has no decoder for it.
    """
    if prefer is not None and prefer not in PREFERENCES:
        raise UsageError(f"prefer is {' or '.join(PREFERENCES)}, got {prefer!r}")
    graph = "decoder_ms_ssim" if prefer == "ms-ssim" else "decoder"
    if graph != "decoder" and graph not in bundle.graphs:
        have = ", ".join(g for g, info in bundle.graphs.items() if info.task == "decoder") or "none"
        raise BundleError(
            f"bundle {bundle.name} has no {graph} (it has: {have}); decode without a preference for {prefer}, or export the bundle with "
            "--decoder ms_ssim=CHECKPOINT"
        )
    return graph


def gpu(backend: str, provider: str | None = None) -> Cuda:
    """The process's device for `backend`. Raises `BackendError` naming the backend and what is missing."""
    try:
        return shared_cuda(provider)
    except BackendError as error:
        raise BackendError(f"backend {backend} cannot run here: {error}; use --backend ort") from error


def open_gpu_engine(bundle: Bundle, graph: str, cuda: Cuda, *, flavour: str, precision: str = "") -> TrtEngine:
    """The engine that was built for this device, in `precision` or the bundle's first of `GPU_PRECISIONS`."""
    capability = cuda.device.capability
    here = {"flavour": flavour, "version": str(load_tensorrt(flavour).__version__), "capability": capability}
    fits = [t.name for t in TARGETS.values() if t.flavour == flavour and t.capability == capability]
    if not fits:
        raise BackendError(f"no target is known for {flavour} on compute capability {capability} ({cuda.device.name})")
    there = {folder for folder, name in engines_in(bundle.path) if name == graph}
    wanted = (precision,) if precision else GPU_PRECISIONS
    found = [(t, p) for p in wanted for t in fits if f"{t}-{p}" in there]
    if not found:
        again = f"percodec build {bundle.path} --target {fits[0]} --precision {wanted[0]}"
        raise EngineError(f"{bundle.name} holds no {graph} engine for {' or '.join(fits)} in {' or '.join(wanted)}; build it here: {again}")
    target, chosen = found[0]
    data, report = read_engine(bundle, target, chosen, graph, here)
    source, outputs = graph_specs(bundle, graph)
    what, limits = f"{bundle.name}/{graph}", selftest_limits(bundle, chosen, report)
    return TrtEngine(cuda, data, source, outputs, flavour=flavour, what=what, precision=chosen, limits=limits)


def cpu_graph(bundle: Bundle, graph: str, precision: str | None) -> tuple[bytes, str, tuple[float, float] | None]:
    """ONNX bytes, their precision and their self-test limits. None: what the bundle holds for CPUs, else the graph as exported.

    Those of an engine are as they were recorded: `OrtEngine` checks what it runs. Raises `EngineError` where what was asked for is
    missing, altered, or of another bundle.
    """
    there = {folder for folder, name in engines_in(bundle.path) if name == graph}
    built = next((p for p in _BUILT_FOR_CPU if f"host-{p}" in there), EXPORTED)
    chosen = precision or built
    if chosen == EXPORTED:
        return bundle.graph(graph), EXPORTED, None
    data, report = read_engine(bundle, "host", chosen, graph, {"flavour": "ort"})
    return data, chosen, selftest_limits(bundle, chosen, report)


def takes_any_size(model: bytes) -> bool:
    """Whether height and width of an ONNX model's input are free."""
    inputs, _ = signature(model, "graph")
    sides = (inputs[0][1][1] or ()) if inputs else ()
    return len(sides) == 4 and (sides[1:3] == (None, None) or sides[2:] == (None, None))


def graph_specs(bundle: Bundle, graph: str, frame: tuple[int, int] | None = None) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    """What `graph` must take and give for `bundle`, by its manifest: the contract that engines are checked against.

    `frame`: height and width of the pictures, multiples of 8, where not the bundle's own.
    Raises `BundleError` naming the graphs there are for one that is not.
    """
    if graph.startswith("camera_"):
        return TensorSpec("raw", (1, *CameraFormat.from_graph(graph).shape)), (graph_specs(bundle, "encoder")[0],)
    info = bundle.graphs.get(graph)
    if info is None:
        raise BundleError(f"bundle {bundle.path} has no graph {graph!r} (it has: {', '.join(bundle.graphs)}); give one of those")
    sized = dict(zip(("image", "symbols", "labels"), _shapes(bundle, frame), strict=True)) if frame else {}
    source, *outputs = (TensorSpec(i.name, (1, *sized.get(i.name, i.shape)), i.dtype) for i in (*info.inputs, *info.outputs))
    return source, tuple(outputs)


def _shapes(bundle: Bundle, frame: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    height, width = frame
    return (height, width, 3), (bundle.latent_shape[0], height // CELL, width // CELL), (height, width)


def _refuse_size(backend: str, frame: tuple[int, int] | None) -> None:
    if frame is not None:
        raise UsageError(f"backend {backend} has engines for the bundle's own frame only; other sizes run on ort")


def selftest_limits(bundle: Bundle, precision: str, report: dict[str, Any]) -> tuple[float, float] | None:
    """What a built engine's report allows its self-test: most symbols that differ, least labels that agree; None where it says nothing.

    A report can only tighten what the manifest allows (`metrics.limits`, by precision: `symbols_differ`, `labels_differ`), else `LOOSEST`:
    whoever can write a record beside a bundle cannot switch the self-test off.
    """
    limits = report.get("selftest")
    asked = [limits.get(k) for k in ("max_symbol_disagreement", "min_label_agreement")] if isinstance(limits, dict) else []
    shares = [float(v) for v in asked if isinstance(v, int | float) and 0 <= v <= 1]
    if len(shares) != 2:
        return None
    said = bundle.manifest["metrics"].get("limits", {})
    said = said.get(precision) if isinstance(said, dict) else None
    most = [said.get(k) if isinstance(said, dict) else None for k in ("symbols_differ", "labels_differ")]
    symbols, labels = (float(v) if isinstance(v, int | float) and 0 <= v <= 1 else LOOSEST for v in most)
    return min(shares[0], symbols), max(shares[1], 1 - labels)


def _about(backend: str, encoder: Engine, heads: Mapping[str, Engine]) -> dict[str, Any]:
    engines = {"encoder": encoder, **heads}
    return {
        "backend": backend,
        "precision": {name: engine.precision for name, engine in engines.items()},
        "engines": {name: engine.digest for name, engine in engines.items()},
    }


__all__ = [
    "GPU_PRECISIONS",
    "LOOSEST",
    "PREFERENCES",
    "Made",
    "cpu_graph",
    "decoder_for",
    "gpu",
    "graph_specs",
    "open_engine",
    "open_gpu_engine",
    "open_slots",
    "selftest_limits",
    "takes_any_size",
]
