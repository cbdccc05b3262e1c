"""The tiny bundle with engines of the fake TensorRT."""

from __future__ import annotations

import hashlib
from pathlib import Path

from percodec.runtime.engines.open import graph_specs
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, write_engine
from percodec.sdk.camera import CameraFormat
from support.cuda.fake_tensorrt import engine_bytes
from support.tiny_bundle import make_bundle

CAMERA = CameraFormat.from_text("nv12:128x96")


def bundle_with_engines(
    folder: Path, *, target: str = "orin-jp6", precision: str = "fp16", version: str = "10.3.0", graphs: tuple[str, ...] = ()
) -> Bundle:
    """Recorded as `percodec build` would."""
    bundle = Bundle.open(folder) if folder.exists() else make_bundle(folder)
    for graph in graphs or ("encoder", "head_segmentation"):
        taken, given = graph_specs(bundle, graph)
        source = "0" * 64 if graph == CAMERA.graph else hashlib.sha256(bundle.graph(graph)).hexdigest()
        key = EngineKey(
            bundle.digest, graph, source, "0" * 64, precision, target, "tensorrt", version, "8.7", "12.6", ("STRONGLY_TYPED",), ("fixed",)
        )
        write_engine(bundle.path, key, engine_bytes(taken, *given), {"layers": 1})
    return bundle


__all__ = ["CAMERA", "bundle_with_engines"]
