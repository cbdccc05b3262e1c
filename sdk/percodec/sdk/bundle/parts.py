"""What a bundle holds, as plain values: classes, tensors, graphs, self-test vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Label:
    """One class: its id in the label maps or its place among the probabilities, its name, its RGB colour."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """How one channel of a latent is quantized: `symbol - offset` in units of `step`, and symbols below `levels`."""

    step: float
    offset: int
    levels: int


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a graph. `dtype`: numpy's name; `shape`: without the batch dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One graph of a bundle. `task`: "encoder", "decoder", "segmentation", "classification" or "array".

    encoder         image uint8 [H,W,3] -> symbols uint8 [C,h,w]
    decoder         symbols -> image
    segmentation    symbols -> labels uint8 [H,W], ids of `labels`
    classification  symbols -> probs float32 [K], one for each of `labels` where there are any
    array           symbols -> any arrays, by name
    """

    name: str
    task: str
    precision: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class SelfTest:
    """Inputs and expected outputs an engine must reproduce before it is trusted.

    `frames` uint8 [N,H,W,3], `symbols` uint8 [N,C,h,w], `labels` uint8 [N,H,W]; limits are shares in 0..1.
    """

    frames: NDArray[np.uint8]
    symbols: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    max_symbol_disagreement: float
    min_label_agreement: float


__all__ = ["GraphInfo", "Label", "SelfTest", "Step", "TensorInfo"]
