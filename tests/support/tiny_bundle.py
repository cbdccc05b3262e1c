"""A real bundle, small and deterministic: three ONNX graphs with hand-made weights, run by the real ONNX Runtime.

encoder   8x8 block means of luma and colour, plus gradients -> 4 channels, 6 levels
head      1x1 convolution -> 3 class scores -> nearest 8x -> argmax
decoder   block means back to RGB, every pixel of a block alike
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.bundle import Bundle, Label, SelfTest, Step, write_bundle
from percodec.sdk.codec import EntropyModel
from support.onnx_bytes import KINDS, model, node, tensor_info

HEIGHT, WIDTH, CHANNELS, LEVELS = 64, 96, 4, 6
CENTERS = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
LABELS = (Label(0, "Sky", (128, 128, 128)), Label(1, "Building", (128, 0, 0)), Label(2, "Road", (128, 64, 128)))


def _u8(name: str, shape: tuple[int, ...]) -> bytes:
    return tensor_info(name, "uint8", shape)


def _cast(source: str, destination: str, kind: str) -> bytes:
    return node("Cast", [source], [destination], to=KINDS[kind])


def encoder_graph(height: int = HEIGHT, width: int = WIDTH, gain: float = 1.0) -> bytes:
    """image uint8 [1,H,W,3] -> symbols uint8 [1,4,H/8,W/8]."""
    weight = np.zeros((CHANNELS, 3, 8, 8), np.float32)
    weight[0] = 1.0 / 192
    weight[1, 0], weight[1, 2] = 1.0 / 64, -1.0 / 64
    weight[2] = np.linspace(-1, 1, 8, dtype=np.float32)[None, :, None] / 96
    weight[3] = np.linspace(-1, 1, 8, dtype=np.float32)[None, None, :] / 96
    scale = np.array([5 / 255, 5 / 120, 5 / 80, 5 / 80], np.float32).reshape(1, CHANNELS, 1, 1) * np.float32(gain)
    shift = np.array([-2.5, 0, 0, 0], np.float32).reshape(1, CHANNELS, 1, 1)
    midpoints = (CENTERS[1:] + CENTERS[:-1]) / 2
    nodes = [
        _cast("image", "float", "float32"),
        node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "weight"], ["blocks"], kernel_shape=[8, 8], strides=[8, 8]),
        node("Mul", ["blocks", "scale"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["z"]),
    ]
    constants: dict[str, NDArray[Any]] = {"weight": weight, "scale": scale, "shift": shift}
    total = ""
    for k, midpoint in enumerate(midpoints):
        constants[f"m{k}"] = np.array(midpoint, np.float32)
        nodes += [node("Greater", ["z", f"m{k}"], [f"g{k}"]), _cast(f"g{k}", f"c{k}", "float32")]
        nodes += [node("Add", [total, f"c{k}"], [f"s{k}"])] if total else []
        total = f"s{k}" if total else f"c{k}"
    nodes.append(_cast(total, "symbols", "uint8"))
    return model(
        "encoder", nodes, [_u8("image", (1, height, width, 3))], [_u8("symbols", (1, CHANNELS, height // 8, width // 8))], constants
    )


def head_graph(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """symbols -> labels uint8 [1,H,W]: bright is sky, reddish is building, the rest is road."""
    weight = np.array([[1.0, 0, 0, 0], [0.1, 1.2, 0, 0], [-1.0, 0, 0, 0]], np.float32).reshape(3, CHANNELS, 1, 1)
    bias = np.array([-2.5, -3.2, 2.5], np.float32)
    nodes = [
        _cast("symbols", "float", "float32"),
        node("Conv", ["float", "weight", "bias"], ["scores"], kernel_shape=[1, 1]),
        node(
            "Resize", ["scores", "", "zoom"], ["large"], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        ),
        node("ArgMax", ["large"], ["winner"], axis=1, keepdims=0),
        _cast("winner", "labels", "uint8"),
    ]
    constants: dict[str, NDArray[Any]] = {"weight": weight, "bias": bias, "zoom": np.array([1, 1, 8, 8], np.float32)}
    return model("head", nodes, [_u8("symbols", (1, CHANNELS, height // 8, width // 8))], [_u8("labels", (1, height, width))], constants)


def decoder_graph(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """symbols -> image uint8 [1,H,W,3]: luma from channel 0, red minus blue from channel 1."""
    weight = np.array([[51, 12, 0, 0], [51, 0, 0, 0], [51, -12, 0, 0]], np.float32).reshape(3, CHANNELS, 1, 1)
    bias = np.array([-30, 0, 30], np.float32)
    nodes = [
        _cast("symbols", "float", "float32"),
        node("Conv", ["float", "weight", "bias"], ["blocks"], kernel_shape=[1, 1]),
        node("Clip", ["blocks", "low", "high"], ["clipped"]),
        node(
            "Resize", ["clipped", "", "zoom"], ["large"], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        ),
        node("Transpose", ["large"], ["pixels"], perm=[0, 2, 3, 1]),
        _cast("pixels", "image", "uint8"),
    ]
    constants: dict[str, NDArray[Any]] = {
        "weight": weight,
        "bias": bias,
        "low": np.array(0, np.float32),
        "high": np.array(255, np.float32),
        "zoom": np.array([1, 1, 8, 8], np.float32),
    }
    return model(
        "decoder", nodes, [_u8("symbols", (1, CHANNELS, height // 8, width // 8))], [_u8("image", (1, height, width, 3))], constants
    )


def classification_graph(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """symbols -> probs float32 [1,3]: softmax of the first three channels' means."""
    nodes = [
        _cast("symbols", "float", "float32"),
        node("GlobalAveragePool", ["float"], ["means"]),
        node("Flatten", ["means"], ["flat"]),
        node("Slice", ["flat", "from", "to", "axis"], ["three"]),
        node("Softmax", ["three"], ["probs"], axis=1),
    ]
    constants: dict[str, NDArray[Any]] = {"from": np.array([0]), "to": np.array([3]), "axis": np.array([1])}
    probs = tensor_info("probs", "float32", [1, 3])
    return model("classes", nodes, [_u8("symbols", (1, CHANNELS, height // 8, width // 8))], [probs], constants)


def array_graph(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """symbols -> depth float32 [1,h,w], mean float32 [1,4]: what a user's own network may give."""
    nodes = [
        _cast("symbols", "float", "float32"),
        node("ReduceMean", ["float", "axis"], ["depth"], keepdims=0),
        node("GlobalAveragePool", ["float"], ["means"]),
        node("Flatten", ["means"], ["mean"]),
    ]
    constants: dict[str, NDArray[Any]] = {"axis": np.array([1])}
    gives = [
        tensor_info("depth", "float32", [1, height // 8, width // 8]),
        tensor_info("mean", "float32", [1, CHANNELS]),
    ]
    return model("arrays", nodes, [_u8("symbols", (1, CHANNELS, height // 8, width // 8))], gives, constants)


def frames(count: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [N,H,W,3] RGB: smooth moving gradients, so that symbols vary but compress."""
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    out = np.empty((count, height, width, 3), np.uint8)
    for k in range(count):
        for c in range(3):
            out[k, ..., c] = 127 + 120 * np.sin(y / 17 + c + phase[c] + k / 5) * np.cos(x / 23 + phase[(c + 1) % 3] - k / 7)
    return out


def run_graph(graph: bytes, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One plain ONNX Runtime call on a batch of one: the reference for every other way of running it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    result: NDArray[np.uint8] = session.run(None, {session.get_inputs()[0].name: array})[0]
    return result


def make_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    height: int = HEIGHT,
    width: int = WIDTH,
    fit: str = "stretch",
    gain: float = 1.0,
    expected_labels: NDArray[np.uint8] | None = None,
    leave_out: tuple[str, ...] = (),
    selftest: SelfTest | None = None,
    metrics: dict[str, object] | None = None,
    steps: Sequence[Step] = (),
) -> Bundle:
    """Write a bundle to `folder`. `gain` changes what the encoder computes, `expected_labels` what the self-test expects.

    `steps`: what the manifest says of the channels, instead of centers.

    With a `selftest` nothing is computed, and ONNX Runtime is not needed.
    """
    graphs = {
        "encoder": encoder_graph(height, width, gain),
        "head_segmentation": head_graph(height, width),
        "decoder": decoder_graph(height, width),
    }
    if selftest is None:
        vectors = frames(2, height, width, seed=9)
        symbols = np.concatenate([run_graph(graphs["encoder"], vectors[k : k + 1]) for k in range(2)])
        labels = np.concatenate([run_graph(graphs["head_segmentation"], symbols[k : k + 1]) for k in range(2)])
        selftest = SelfTest(vectors, symbols, labels if expected_labels is None else expected_labels, 0.001, 0.999)
    counts = np.stack([np.bincount(selftest.symbols[:, c].ravel(), minlength=LEVELS) for c in range(CHANNELS)])
    for left_out in leave_out:
        del graphs[left_out]
    return write_bundle(
        folder,
        name=name,
        frame_height=height,
        frame_width=width,
        fit=fit,
        centers=() if steps else CENTERS,
        steps=steps,
        entropy_model=EntropyModel.from_counts(counts),
        graphs=graphs,
        precision=dict.fromkeys(graphs, "fp32"),
        labels=LABELS,
        selftest=selftest,
        metrics=metrics or {},
        provenance={"data": [], "split": "none", "commit": "none", "seed": 0, "command": "tests/support/tiny_bundle.py", "config": {}},
    )
