"""A bundle whose graphs take any batch and, where their layers allow it, any size, from one whose graphs are bound to its frame. No torch.

Nothing is computed differently, so logs of the old bundle are read with the new one, and what was measured on its engines' ranges holds.
Engines for ONNX Runtime are freed in the same way; those of TensorRT are built again from the new bundle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os

from percodec.export.engines.calibrate import Ranges, graph_digest
from percodec.export.engines.free_shapes import freed
from percodec.export.engines.onnx_graph import plain
from percodec.export.engines.tensorrt import io_of
from percodec.sdk.bundle import Bundle, extend_bundle
from percodec.sdk.bundle.engines import EngineKey, engines_in, read_engine, write_engine


def freed_bundle(bundle: Bundle, folder: str | os.PathLike[str], *, name: str | None = None, overwrite: bool = False) -> Bundle:
    """Write it. Raises `ExportError` for a graph that no batch can be freed of, `BundleError` and `EngineError` as `extend_bundle`."""
    graphs = {graph: freed(bundle.graph(graph)) for graph in bundle.graphs}
    engines = [(place.removeprefix("host-"), graph) for place, graph in engines_in(bundle.path) if place.startswith("host-")]
    read = [(precision, graph, *read_engine(bundle, "host", precision, graph, {})) for precision, graph in engines]
    ranges = {path.name: Ranges.load(path) for path in sorted((bundle.path / "engines" / "calibration").glob("*.json"))}
    made = extend_bundle(bundle, folder, graphs=graphs, name=name, overwrite=overwrite)
    for precision, graph, data, report in read:
        data = freed(data)
        digest, source = (hashlib.sha256(part).hexdigest() for part in (data, graphs[graph]))
        key = EngineKey(made.digest, graph, source, digest, precision, "host", "ort", "onnx", "", "", ("activations=uint8",), ())
        write_engine(made.path, key, data, {**report, "io": io_of(data)})
    for file, kept in ranges.items():
        graph = file.rpartition("-")[0]
        if kept is not None and graph in graphs:
            now = dataclasses.replace(kept, graph_sha256=graph_digest(plain(graphs[graph])))
            now.save(made.path / "engines" / "calibration" / file)
    return made


__all__ = ["freed_bundle"]
