"""Is a precision good enough? Each one against FP32, in the task's own words, on real frames. No torch here.

    symbols differ    share of latent symbols that change: what the coder sends, not an error by itself
    bpp change        coded bytes of whole packets, relative
    psnr drop         dB, decoder in this precision on this precision's symbols
    miou drop         or top-1: heads on this precision's symbols

The chain is judged as it runs: heads and decoder get the symbols of the encoder in the same precision. Sessions: `reference` (graph
optimisation off) says what the graph means, `fast` what ONNX Runtime makes of it; TensorRT engines join where there is a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.engines.graph_function import graph_function
from percodec.export.metrics.scores import Confusion
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec

Array = NDArray[np.uint8]
Advance = Callable[[int, int], None]

# What a precision may cost, as shares (psnr_drop: dB). A bundle may state its own under metrics.limits.
LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"symbols_differ": 1e-3, "bpp_change": 1e-3, "psnr_drop": 0.01, "miou_drop": 1e-3},
    "fp16": {"symbols_differ": 1e-3, "bpp_change": 2e-3, "psnr_drop": 0.05, "miou_drop": 2e-3},
    "int8": {"symbols_differ": 5e-2, "bpp_change": 2e-2, "psnr_drop": 0.5, "miou_drop": 1e-2},
    "int8+fp16": {"symbols_differ": 5e-2, "bpp_change": 2e-2, "psnr_drop": 0.5, "miou_drop": 1e-2},
    "fp8+fp16": {"symbols_differ": 0.1, "bpp_change": 5e-2, "psnr_drop": 1.0, "miou_drop": 2e-2},
}


@dataclass
class Chain:
    """What one set of graphs makes of the frames: one entry per frame, and the score over all."""

    symbols: list[Array] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    labels: list[Array] = field(default_factory=list)
    probs: list[NDArray[np.float32]] = field(default_factory=list)
    miou: float | None = None
    seconds: float = 0.0


def run_chain(
    bundle: Bundle,
    graphs: dict[str, bytes],
    frames: Sequence[Array],
    truth: Sequence[Array] = (),
    *,
    reference: bool = False,
    advance: Advance = lambda done, of: None,
) -> Chain:
    """Encoder, coder, heads and decoder over frames [H,W,3]; `graphs` by their names in the bundle, an encoder among them."""
    runs = {name: graph_function(data, optimize=not reference) for name, data in graphs.items()}
    _, h, w = bundle.latent_shape
    coder, chain = PacketCodec(bundle.entropy_model, h, w), Chain()
    confusion = Confusion(len(bundle.labels)) if truth and "head_segmentation" in runs else None
    began = time.process_time()
    for k, frame in enumerate(frames):
        symbols = runs["encoder"](np.ascontiguousarray(frame[None]))
        chain.symbols.append(symbols)
        chain.sizes.append(len(coder.encode(symbols[0], frame_id=k, timestamp_ns=0)))
        if "head_segmentation" in runs:
            labels = runs["head_segmentation"](symbols)[0]
            chain.labels.append(labels)
            if confusion is not None:
                confusion.add(labels, truth[k])
        if "head_classification" in runs:
            chain.probs.append(runs["head_classification"](symbols)[0])
        if "decoder" in runs:
            error = runs["decoder"](symbols)[0].astype(np.float32) - frame
            chain.psnr.append(float(10 * np.log10(255**2 / max(float((error**2).mean()), 1e-9))))
        advance(k + 1, len(frames))
    chain.seconds = time.process_time() - began
    chain.miou = confusion.miou() if confusion is not None else None
    return chain


def compare(precision: str, name: str, chain: Chain, base: Chain) -> dict[str, Any]:
    """One row: what this chain costs against the FP32 one."""
    row: dict[str, Any] = {
        "precision": precision,
        "session": name,
        "symbols_differ": float(np.mean([(a != b).mean() for a, b in zip(chain.symbols, base.symbols, strict=True)])),
        "bpp_change": float(np.sum(chain.sizes) / np.sum(base.sizes) - 1),
    }
    if base.psnr:
        row |= {"psnr": float(np.mean(chain.psnr)), "psnr_drop": float(np.mean(base.psnr) - np.mean(chain.psnr))}
    if base.labels:
        row["labels_differ"] = float(np.mean([(a != b).mean() for a, b in zip(chain.labels, base.labels, strict=True)]))
    if base.miou is not None and chain.miou is not None:
        row |= {"miou": chain.miou, "miou_drop": base.miou - chain.miou}
    if base.probs:
        row["probs_error"] = float(np.max([np.abs(a - b).max() for a, b in zip(chain.probs, base.probs, strict=True)]))
        row["top1_differ"] = float(np.mean([a.argmax() != b.argmax() for a, b in zip(chain.probs, base.probs, strict=True)]))
    row["cpu_seconds"] = round(chain.seconds, 3)
    return row


def limits_of(bundle: Bundle, precision: str) -> dict[str, float]:
    """The bundle's own limits over the general ones."""
    stated = bundle.manifest["metrics"].get("limits", {}).get(precision, {})
    return {**LIMITS[precision], **{k: float(v) for k, v in stated.items()}}


def broken(row: dict[str, Any], limits: dict[str, float]) -> list[str]:
    """Which limits a row breaks; a rate may change either way."""
    out = []
    for key, limit in limits.items():
        value = row.get(key)
        if value is not None and (abs(value) if key == "bpp_change" else value) > limit:
            out.append(f"{key} {value:.4g} (limit {limit:g})")
    return out


__all__ = ["LIMITS", "Chain", "broken", "compare", "limits_of", "run_chain"]
