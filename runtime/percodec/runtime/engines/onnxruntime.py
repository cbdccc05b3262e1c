"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.engine import EXPORTED, POISON, TensorSpec
from percodec.sdk.errors import BackendError, BundleError, reason

_PROVIDER = "CPUExecutionProvider"


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


def _check_io(what: str, side: str, found: list[Any], spec: TensorSpec) -> None:
    if len(found) != 1:
        raise BundleError(f"{what}: expected one {side}, the graph has {len(found)}")
    name, kind, shape = found[0].name, found[0].type, tuple(found[0].shape)
    if name != spec.name or kind != "tensor(uint8)" or shape != spec.shape:
        raise BundleError(
            f"{what}: {side} must be uint8 {spec.name!r} {list(spec.shape)} by the manifest, the graph has {kind} {name!r} {list(shape)}"
        )


__all__ = ["OrtEngine", "onnxruntime"]
