"""A graph as a function, on the very sessions the vehicle runs. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from percodec.runtime.engines.onnxruntime import open_session

Array = NDArray[Any]


def graph_function(graph: bytes, *, optimize: bool = True, threads: int = 1) -> Callable[[Array], Array]:
    """ONNX Runtime on the CPU: the graph's input -> its first output. `optimize`: off for what the graph says. Raises `BackendError`."""
    session = open_session(graph, threads=threads, optimize=optimize)
    name, wanted = session.get_inputs()[0].name, [session.get_outputs()[0].name]

    def call(array: Array) -> Array:
        out: Array = session.run(wanted, {name: array})[0]
        return out

    return call


__all__ = ["graph_function"]
