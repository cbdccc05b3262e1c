"""From the word a user types to slots that run: `ort[:precision]`, `tensorrt[:precision]`, `tensorrt_rtx[:precision]`.

made = open_slots(bundle, backend="tensorrt:int8+fp16")      engines loaded; whoever asks runs their self-test
Pipeline(source, preprocess, made.make, ...)
made.close()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from percodec.runtime.cuda import Cuda, shared_cuda
from percodec.runtime.cuda_slots import CudaSlots
from percodec.runtime.engine import Engine, TensorSpec, graph_specs, open_engine, selftest_limits
from percodec.runtime.slots import Slot, host_slots
from percodec.runtime.trt import TrtEngine, load_tensorrt
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import engines_in, read_engine
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import BackendError, EngineError
from percodec.sdk.targets import TARGETS

GPU_PRECISIONS = ("int8+fp16", "fp16", "fp32")  # what is taken where nobody chose, the first that the bundle holds


@dataclass
class Made:
    """Engines of one backend and how to make slots over them. `about`: what really runs, for reports. `gpu`: slots made on a device."""

    encoder: Engine
    head: Engine
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
    threads: int = 1,
    provider: str | None = None,
    camera: CameraFormat | None = None,
    transfer: str = "auto",
    priority: int = 0,
    graphs: bool = True,
) -> Made:
    """Encoder and segmentation head of `bundle` on `backend`. On a GPU, `camera` pictures are prepared there.

    Raises `BackendError` naming what is missing, `EngineError` for engines of another bundle or machine.
    """
    name, _, precision = backend.partition(":")
    if name not in ("tensorrt", "tensorrt_rtx"):
        encoder, head = (open_engine(bundle, g, backend=backend, threads=threads) for g in ("encoder", "head_segmentation"))
        return Made(encoder, head, host_slots(encoder, head), _about(name, encoder, head))
    cuda = gpu(name, provider)
    first = open_gpu_engine(bundle, "encoder", cuda, flavour=name, precision=precision)
    second = open_gpu_engine(bundle, "head_segmentation", cuda, flavour=name, precision=precision)
    eye = open_gpu_engine(bundle, camera.graph, cuda, flavour=name, precision=precision) if camera is not None else None
    about = _about(name, first, second) | {"provider": cuda.name, "gpu": cuda.device.name, "capability": cuda.device.capability}
    made = Made(first, second, lambda count: [], about)

    def make(count: int) -> list[Slot]:
        slots = CudaSlots(cuda, first, second, count, camera=eye, transfer=transfer, priority=priority, graphs=graphs)
        made.gpu.append(slots)
        about.update({"transfer": slots.transfer, "graphs": not slots.eager_because, "eager_because": slots.eager_because})
        return slots.slots

    made.make = make
    return made


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
    source, destination = _specs(bundle, graph)
    what, limits = f"{bundle.name}/{graph}", selftest_limits(report)
    return TrtEngine(cuda, data, source, destination, flavour=flavour, what=what, precision=chosen, limits=limits)


def _specs(bundle: Bundle, graph: str) -> tuple[TensorSpec, TensorSpec]:
    if not graph.startswith("camera_"):
        return graph_specs(bundle, graph)
    return TensorSpec("raw", (1, *CameraFormat.from_graph(graph).shape)), graph_specs(bundle, "encoder")[0]


def _about(backend: str, encoder: Engine, head: Engine) -> dict[str, Any]:
    return {"backend": backend, "precision": {"encoder": encoder.precision, "head": head.precision}}


__all__ = ["GPU_PRECISIONS", "Made", "gpu", "open_gpu_engine", "open_slots"]
