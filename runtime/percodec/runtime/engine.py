"""One loaded network on one backend. `Engine.bind` ties it to caller-owned arrays once; the returned call allocates nothing.

    encoder.bind(slot.image, slot.symbols) -> encode()        the array the encoder writes
    head.bind(slot.symbols, slot.labels)   -> predict()       is the array the head reads: no copy between them

Which backend? `ort` runs everywhere (ONNX Runtime, CPU), in the precision that was built into the bundle for CPUs, else as exported;
`ort:fp32` and `ort:int8` choose. `tensorrt` and `tensorrt_rtx` run the engines that were built into the bundle for this GPU
(`percodec build`), again with a precision behind a colon. What is asked for is what runs: there is no silent fallback.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.bundle.engines import engines_in, read_engine
from percodec.sdk.bundle.onnx_ops import check_graph
from percodec.sdk.errors import BackendError, BundleError

if TYPE_CHECKING:
    from percodec.sdk.bundle import Bundle

BACKENDS = ("ort", "tensorrt", "tensorrt_rtx")
EXPORTED = "fp32"
_BUILT_FOR_CPU = ("int8", "fp16")  # the first that a bundle holds is its CPU default
POISON = 0xCD
_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class TensorSpec:
    """Name and fixed shape of one uint8 network input or output."""

    name: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """A network with one uint8 input and one uint8 output of fixed shape."""

    backend: str
    precision: str
    limits: tuple[float, float] | None  # of this precision's self-test: most symbols that differ, least labels that agree
    source: TensorSpec
    destination: TensorSpec

    def bind(self, source: NDArray[np.uint8], destination: NDArray[np.uint8]) -> Callable[[], None]:
        """A call that reads `source`, writes `destination`, and allocates no buffer.

        Both arrays must be C-contiguous, have the specs' shapes and outlive the call. Different bindings of one engine may run
        at the same time; one binding may not. The call raises BackendError when the network fails.
        """


def graph_specs(bundle: Bundle, graph: str) -> tuple[TensorSpec, TensorSpec]:
    """What `graph` must take and give for `bundle`: the contract that engines are checked against."""
    image = TensorSpec("image", (1, bundle.frame_height, bundle.frame_width, 3))
    symbols = TensorSpec("symbols", (1, *bundle.latent_shape))
    labels = TensorSpec("labels", (1, bundle.frame_height, bundle.frame_width))
    table = {"encoder": (image, symbols), "head_segmentation": (symbols, labels), "decoder": (symbols, image)}
    return table[graph]


def open_engine(bundle: Bundle, graph: str, *, backend: str = "ort", threads: int = 1) -> Engine:
    """Load `graph` of `bundle` on `backend`.

    Raises BackendError naming what is missing when the backend cannot run here, BundleError when the bundle lacks the graph.
    """
    name, _, precision = backend.partition(":")
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}; this version knows {', '.join(BACKENDS)}, and ort:fp32, ort:int8")
    if name != "ort":
        from percodec.runtime.backends import gpu, open_gpu_engine  # it stands on this module

        return open_gpu_engine(bundle, graph, gpu(name), flavour=name, precision=precision)
    source, destination = graph_specs(bundle, graph)
    model, chosen, limits = cpu_graph(bundle, graph, precision or None)
    return OrtEngine(model, source, destination, threads=threads, what=f"{bundle.name}/{graph}", precision=chosen, limits=limits)


def cpu_graph(bundle: Bundle, graph: str, precision: str | None) -> tuple[bytes, str, tuple[float, float] | None]:
    """ONNX bytes, their precision and their self-test limits. None: what the bundle holds for CPUs, else the graph as exported.

    Raises `EngineError` where what was asked for is missing, altered, or of another bundle.
    """
    there = {folder for folder, name in engines_in(bundle.path) if name == graph}
    built = next((p for p in _BUILT_FOR_CPU if f"host-{p}" in there), EXPORTED)
    chosen = precision or built
    if chosen == EXPORTED:
        return bundle.graph(graph), EXPORTED, None
    data, report = read_engine(bundle, "host", chosen, graph, {"flavour": "ort"})
    check_graph(data, f"engines/host-{chosen}/{graph}.onnx")
    return data, chosen, selftest_limits(report)


def selftest_limits(report: dict[str, Any]) -> tuple[float, float] | None:
    """What a built engine's report allows its self-test: most symbols that differ, least labels that agree; None where it says nothing."""
    limits = report.get("selftest", {})
    values = [limits.get(k) for k in ("max_symbol_disagreement", "min_label_agreement")]
    return (values[0], values[1]) if all(isinstance(v, float) and 0 <= v <= 1 for v in values) else None


class OrtEngine:
    """ONNX Runtime on the CPU, verified to be that and nothing else.

    `threads` is the number of intra-op threads. They never spin: on a vehicle a core that waits busily is a core the rest of
    the stack does not get, and with one thread per engine (the default) there is nobody to wait for.
    """

    backend = "ort"

    def __init__(
        self,
        model: bytes,
        source: TensorSpec,
        destination: TensorSpec,
        *,
        threads: int = 1,
        what: str = "graph",
        precision: str = EXPORTED,
        limits: tuple[float, float] | None = None,
    ) -> None:
        ort = onnxruntime()
        self.precision, self.limits = precision, limits
        self.source, self.destination, self._what = source, destination, what
        self._ort = ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                # WeightBiasQuantization mis-computes INT8+FP16 Q/DQ graphs on the CPU.
                self._session = ort.InferenceSession(model, options, providers=[_PROVIDER], disabled_optimizers=["WeightBiasQuantization"])
        except Exception as error:
            raise BackendError(f"{what}: ONNX Runtime {ort.__version__} cannot load the graph ({reason(error)})") from error
        providers = list(self._session.get_providers())
        if providers != [_PROVIDER]:
            raise BackendError(f"{what}: asked ONNX Runtime for {_PROVIDER}, got {providers}")
        _check_io(what, "input", self._session.get_inputs(), source)
        _check_io(what, "output", self._session.get_outputs(), destination)
        self._prove_binding()

    def bind(self, source: NDArray[np.uint8], destination: NDArray[np.uint8]) -> Callable[[], None]:
        for array, spec in ((source, self.source), (destination, self.destination)):
            if array.dtype != np.uint8 or array.shape != spec.shape or not array.flags.c_contiguous:
                raise BackendError(
                    f"{self._what}: {spec.name} needs contiguous uint8 {list(spec.shape)}, got {array.dtype} {list(array.shape)}"
                )
        # On the CPU an OrtValue made from a numpy array is a view of it.
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self.source.name, self._ort.OrtValue.ortvalue_from_numpy(source))
        binding.bind_ortvalue_output(self.destination.name, self._ort.OrtValue.ortvalue_from_numpy(destination))
        return _Bound(self._session, binding, (source, destination), self._what)

    def _prove_binding(self) -> None:
        """Bound arrays must really be the ones computed on: a poisoned output has to come back equal to a plain run's."""
        source = np.zeros(self.source.shape, np.uint8)
        destination = np.full(self.destination.shape, POISON, np.uint8)
        try:
            self.bind(source, destination)()
            plain = self._session.run([self.destination.name], {self.source.name: source})[0]
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"{self._what}: the first run failed ({reason(error)})") from error
        if not np.array_equal(plain, destination):
            raise BackendError(f"{self._what}: ONNX Runtime {self._ort.__version__} did not write into the bound output")


class _Bound:
    """One binding. Keeps the arrays alive for as long as ONNX Runtime holds their addresses."""

    def __init__(self, session: Any, binding: Any, arrays: tuple[NDArray[np.uint8], NDArray[np.uint8]], what: str) -> None:
        self._run, self._binding, self._arrays, self._what = session.run_with_iobinding, binding, arrays, what

    def __call__(self) -> None:
        # A run that reports success but writes nothing must not pass as the previous frame's result.
        self._arrays[1].fill(POISON)
        try:
            self._run(self._binding)
        except Exception as error:
            raise BackendError(f"{self._what}: ONNX Runtime failed ({reason(error)})") from error


def onnxruntime() -> Any:
    """The `onnxruntime` module. Raises BackendError where it is not installed."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(f"ONNX Runtime cannot be imported ({reason(error)}): run `pip install percodec[ort]`") from error
    return ort


def reason(error: BaseException) -> str:
    """The first line of an exception, short enough for one line of output."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _check_io(what: str, side: str, found: list[Any], spec: TensorSpec) -> None:
    if len(found) != 1:
        raise BundleError(f"{what}: expected one {side}, the graph has {len(found)}")
    name, kind, shape = found[0].name, found[0].type, tuple(found[0].shape)
    if name != spec.name or kind != "tensor(uint8)" or shape != spec.shape:
        raise BundleError(
            f"{what}: {side} must be uint8 {spec.name!r} {list(spec.shape)} by the manifest, the graph has {kind} {name!r} {list(shape)}"
        )


__all__ = [
    "BACKENDS",
    "POISON",
    "Engine",
    "OrtEngine",
    "TensorSpec",
    "cpu_graph",
    "graph_specs",
    "onnxruntime",
    "open_engine",
    "reason",
    "selftest_limits",
]
