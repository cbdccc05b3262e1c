"""ONNX Runtime on the CPU, as everything here runs a graph. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.onnxruntime import onnxruntime

Array = NDArray[np.uint8]


def session(data: bytes, *, reference: bool = False, threads: int = 1) -> Callable[[Array], list[Any]]:
    """ONNX Runtime on the CPU: one array in, all outputs out.

    `reference`: graph optimisation off. Otherwise everything but WeightBiasQuantization, which mis-computes INT8+FP16 graphs.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if reference:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"])
    name = made.get_inputs()[0].name

    def run(array: Array) -> list[Any]:
        return list(made.run(None, {name: array}))

    return run


__all__ = ["session"]
