"""What the latent saves, shown: the same pictures through three ways to a prediction, alternating frame by frame in one thread.

    latent         picture -> encoder -> latent -> compressed-domain head                 (what percodec runs)
    decode-first   picture -> encoder -> latent -> decoder -> picture -> RGB network      (a codec, and perception that wants pictures)
    rgb            picture -> RGB network                                                 (perception alone: nothing to log or send)

The RGB network is any ONNX file from pictures to labels at the bundle's frame size; it runs on ONNX Runtime, FP32 unless quantized.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.engines.engine import Engine
from percodec.runtime.engines.onnxruntime import OrtEngine
from percodec.runtime.engines.open import graph_specs, open_engine
from percodec.runtime.measure.load_generator import Pictures
from percodec.runtime.measure.statistics import distribution
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import UsageError
from percodec.sdk.files import read_file
from percodec.sdk.types import Frame

REFERENCES = ("decode-first", "rgb")
WARM_UP = 3


def rgb_network(bundle: Bundle, path: Path | None, threads: int = 1) -> Engine:
    """The network in `path`: ONNX, image uint8 [1,H,W,3] -> labels uint8 [1,H,W]. Raises `UsageError`, `BundleError`."""
    if path is None:
        raise UsageError("decode-first and rgb need a network that reads pictures: --rgb NETWORK.onnx (percodec export makes one)")
    try:
        data = read_file(path)
    except OSError as error:
        raise UsageError(f"--rgb {path}: {error.strerror or 'cannot be read'}") from error
    image, labels = graph_specs(bundle, "encoder")[0], graph_specs(bundle, "head_segmentation")[1]  # the picture in, the labels out
    return OrtEngine(data, image, labels, threads=threads, what=path.name)


def compare_paths(
    bundle: Bundle, pictures: Pictures, backends: list[str], references: list[str], network: Engine, *, frames: int, threads: int
) -> dict[str, Any]:
    """Time per step and path. `ratio`: of a path's median total to that of `rgb`, else of the first path."""
    paths: dict[str, list[tuple[str, Callable[[], None]]]] = {}
    bench = _Bench(bundle, pictures)
    for backend in backends:
        paths[f"latent on {backend}"] = bench.latent(backend, threads)
    if "decode-first" in references:
        first = next((b for b in backends if b.partition(":")[0] == "ort"), "ort")
        paths["decode-first"] = bench.decode_first(first, network, threads)
    if "rgb" in references:
        paths["rgb"] = bench.rgb(network)
    times: dict[str, dict[str, list[float]]] = {p: {name: [] for name, _ in steps} for p, steps in paths.items()}
    cpu: dict[str, float] = dict.fromkeys(paths, 0.0)
    order = list(paths)
    for k in range(WARM_UP + frames):
        for path in order[k % len(order) :] + order[: k % len(order)]:
            bench.number = k
            begin_cpu = time.process_time()
            for name, step in paths[path]:
                begin = time.perf_counter()
                step()
                if k >= WARM_UP:
                    times[path][name].append(1000 * (time.perf_counter() - begin))
            cpu[path] += time.process_time() - begin_cpu if k >= WARM_UP else 0.0
    out: dict[str, Any] = {"frames": frames, "rgb_precision": network.precision, "paths": {}}
    totals = {path: np.sum([np.array(v) for v in steps.values()], axis=0) for path, steps in times.items()}
    base = float(np.median(totals["rgb" if "rgb" in totals else order[0]]))
    for path, steps in times.items():
        out["paths"][path] = {
            "steps_ms": {name: distribution(values) for name, values in steps.items()},
            "total_ms": distribution(totals[path]),
            "cpu_ms_per_frame": round(1000 * cpu[path] / frames, 3),
            "precision": bench.precision[path],
            "ratio": round(float(np.median(totals[path])) / base, 4),
        }
    return out


class _Bench:
    """Buffers, and the steps of each path over them. `number`: which picture is worked on."""

    def __init__(self, bundle: Bundle, pictures: Pictures) -> None:
        self.number = 0
        self.precision: dict[str, str] = {}
        self._bundle, self._pictures = bundle, pictures
        image, (symbols,) = graph_specs(bundle, "encoder")
        (labels,) = graph_specs(bundle, "head_segmentation")[1]
        self._image, self._symbols, self._labels, self._rebuilt = (spec.empty() for spec in (image, symbols, labels, image))
        self._fit = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
        self._codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])

    def latent(self, backend: str, threads: int) -> list[tuple[str, Callable[[], None]]]:
        encoder, head = (open_engine(self._bundle, g, backend=backend, threads=threads) for g in ("encoder", "head_segmentation"))
        self.precision[f"latent on {backend}"] = f"{encoder.precision} + {head.precision}"
        run = [("encode", encoder.bind(self._image, self._symbols)), ("predict", head.bind(self._symbols, self._labels))]
        return [("preprocess", self._prepare), *run, ("code", self._code)]

    def decode_first(self, backend: str, network: Engine, threads: int) -> list[tuple[str, Callable[[], None]]]:
        encoder, decoder = (open_engine(self._bundle, g, backend=backend, threads=threads) for g in ("encoder", "decoder"))
        self.precision["decode-first"] = f"{encoder.precision} + {decoder.precision} + {network.precision}"
        run = [
            ("encode", encoder.bind(self._image, self._symbols)),
            ("decode", decoder.bind(self._symbols, self._rebuilt)),
            ("predict", network.bind(self._rebuilt, self._labels)),
        ]
        return [("preprocess", self._prepare), *run, ("code", self._code)]

    def rgb(self, network: Engine) -> list[tuple[str, Callable[[], None]]]:
        self.precision["rgb"] = network.precision
        return [("preprocess", self._prepare), ("predict", network.bind(self._image, self._labels))]

    def _prepare(self) -> None:
        images = self._pictures.images
        self._fit(Frame(images[self.number % len(images)], self.number, 0, self._pictures.pixel_format), self._image[0])

    def _code(self) -> None:
        self._codec.encode(self._symbols[0], self.number, 0)


__all__ = ["REFERENCES", "compare_paths", "rgb_network"]
