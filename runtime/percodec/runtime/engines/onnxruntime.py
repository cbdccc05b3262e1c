"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.engine import EXPORTED, TensorSpec
from percodec.runtime.engines.limits import memory_bounded
from percodec.runtime.pipeline.slots import POISON
from percodec.sdk.bundle.graphs import FREE_SIDES
from percodec.sdk.bundle.onnx_ops import checked_graph
from percodec.sdk.errors import BackendError, BundleError, reason

_PROVIDER = "CPUExecutionProvider"
_KINDS = {f"tensor({name})": name for name in ("uint8", "int8", "int16", "int32", "int64", "float16", "bool")}
_KINDS["tensor(float)"] = "float32"


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
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
        what: str = "graph",
        precision: str = EXPORTED,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.precision, self.limits, self.digest = precision, limits, hashlib.sha256(model).hexdigest()
        self.source, self.outputs, self._what = source, outputs, what
        self._ort = onnxruntime()
        self._session = open_session(checked_graph(model, what), threads=threads, what=what, sides=_sides((source, *outputs)))
        _check_io(what, "input", self._session.get_inputs(), (source,))
        _check_io(what, "output", self._session.get_outputs(), outputs)
        self._prove_binding()

    def bind(self, source: NDArray[Any], *outputs: NDArray[Any]) -> Callable[[], None]:
        for array, spec in zip((source, *outputs), (self.source, *self.outputs), strict=True):
            spec.check(array, self._what)
        # On the CPU an OrtValue made from a numpy array is a view of it.
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self.source.name, self._ort.OrtValue.ortvalue_from_numpy(source))
        for array, spec in zip(outputs, self.outputs, strict=True):
            binding.bind_ortvalue_output(spec.name, self._ort.OrtValue.ortvalue_from_numpy(array))
        return _Bound(self._session, binding, source, outputs, self._what)

    def _prove_binding(self) -> None:
        """Bound arrays must really be the ones computed on: a poisoned output has to come back equal to a plain run's."""
        source = self.source.empty()
        outputs = [spec.empty() for spec in self.outputs]
        try:
            with memory_bounded():
                self.bind(source, *outputs)()
                plain = self._session.run([spec.name for spec in self.outputs], {self.source.name: source})
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(f"{self._what}: the first run failed ({reason(error)})") from error
        if not all(a.tobytes() == b.tobytes() for a, b in zip(plain, outputs, strict=True)):
            raise BackendError(f"{self._what}: ONNX Runtime {self._ort.__version__} did not write into the bound outputs")


class _Bound:
    """One binding. Keeps the arrays alive for as long as ONNX Runtime holds their addresses."""

    def __init__(self, session: Any, binding: Any, source: NDArray[Any], outputs: tuple[NDArray[Any], ...], what: str) -> None:
        self._run, self._binding, self._what = session.run_with_iobinding, binding, what
        self._arrays = (source, *outputs)
        self._bytes = [array.reshape(-1).view(np.uint8) for array in outputs]

    def __call__(self) -> None:
        # A run that reports success but writes nothing must not pass as the previous frame's result.
        for array in self._bytes:
            array.fill(POISON)
        try:
            self._run(self._binding)
        except Exception as error:
            raise BackendError(f"{self._what}: ONNX Runtime failed ({reason(error)})") from error


def onnxruntime() -> Any:
    """The `onnxruntime` module, its telemetry off unless `ORT_DISABLE_TELEMETRY` says otherwise.

    Raises BackendError where it is not installed.
    Left alone, it makes a device id and an event store under HOME at its first import, and queues events for its maker's servers.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BackendError(f"ONNX Runtime cannot be imported ({reason(error)}): run `pip install percodec[ort]`") from error
    return ort


def open_session(
    model: bytes, *, threads: int = 1, optimize: bool = True, what: str = "graph", sides: Mapping[str, int] | None = None
) -> Any:
    """An `InferenceSession` on the CPU and nothing else, as every part of percodec runs a graph there.

    `threads` never spin. `optimize`: off for what the graph says, to compare with. `sides`: numbers for free sides of the graph, by name;
    it is optimized for these then, and takes no others. Raises BackendError, also where loading takes more than `limits.MEMORY`.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Bytes say by themselves which of two formats they are; only one of them is checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for name, side in (sides or {}).items():
        options.add_free_dimension_override_by_name(name, side)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        with memory_bounded(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            # WeightBiasQuantization mis-computes INT8+FP16 Q/DQ graphs on the CPU.
            session = ort.InferenceSession(model, options, providers=[_PROVIDER], disabled_optimizers=["WeightBiasQuantization"])
    except Exception as error:
        raise BackendError(f"{what}: ONNX Runtime {ort.__version__} cannot load the graph ({reason(error)})") from error
    providers = list(session.get_providers())
    if providers != [_PROVIDER]:
        raise BackendError(f"{what}: asked ONNX Runtime for {_PROVIDER}, got {providers}")
    return session


def _sides(specs: tuple[TensorSpec, ...]) -> dict[str, int]:
    """The numbers of the sides that bundles leave free (`FREE_SIDES`)."""
    found: dict[str, int] = {}
    for spec in specs:
        found |= {name: side for name, side in zip(FREE_SIDES.get(spec.name, ("batch",)), spec.shape, strict=False) if name}
    return found


def _check_io(what: str, side: str, found: list[Any], specs: tuple[TensorSpec, ...]) -> None:
    if sorted(f.name for f in found) != sorted(spec.name for spec in specs):
        names = " by the manifest, ".join(", ".join(sorted(x.name for x in side_of)) or "none" for side_of in (specs, found))
        raise BundleError(f"{what}: its {side}s are {names} in the graph")
    by_name = {f.name: f for f in found}
    for spec in specs:
        kind, shape = by_name[spec.name].type, tuple(by_name[spec.name].shape)
        same = len(shape) == len(spec.shape) and all(n == want or not isinstance(n, int) for n, want in zip(shape, spec.shape, strict=True))
        if _KINDS.get(kind) != spec.dtype or not same:
            raise BundleError(
                f"{what}: {side} must be {spec.dtype} {spec.name!r} {list(spec.shape)} by the manifest, "
                f"the graph has {kind} {spec.name!r} {list(shape)}"
            )


__all__ = ["OrtEngine", "onnxruntime", "open_session"]
