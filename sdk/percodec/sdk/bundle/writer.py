"""`write_bundle`: all parts in, a folder out that opens, or nothing. `extend_bundle`: the same from a bundle and what is added to it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from percodec.sdk.bundle.arrays import bytes_from_array
from percodec.sdk.bundle.bundle import Bundle
from percodec.sdk.bundle.engines import carry_engines
from percodec.sdk.bundle.graphs import Shapes, graph_from_name, json_from_graph, json_from_labels
from percodec.sdk.bundle.manifest import FORMAT, MAX_SUPERSEDED, VERSION
from percodec.sdk.bundle.onnx_ops import signature
from percodec.sdk.bundle.parts import GraphInfo, Label, SelfTest, Step
from percodec.sdk.codec import EntropyModel, StepsModel
from percodec.sdk.errors import BundleError
from percodec.sdk.familiarity import Familiarity


def write_bundle(
    folder: str | os.PathLike[str],
    *,
    name: str,
    frame_height: int,
    frame_width: int,
    fit: str,
    centers: ArrayLike = (),
    steps: Sequence[Step] = (),
    entropy_model: EntropyModel | StepsModel,
    graphs: Mapping[str, bytes],
    precision: Mapping[str, str],
    labels: Sequence[Label],
    selftest: SelfTest,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    infos: Mapping[str, GraphInfo] | None = None,
    stream_model: EntropyModel | StepsModel | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write beside, check by opening, then rename: no half-written bundle ever stands under the given name.

    `centers` of the latent, or `steps`, one for each channel. `infos`: of graphs that do not take and give what their
    name says (encoder, decoder, head_segmentation..., head_classification...).
    Raises `BundleError` where the parts do not fit together, the folder exists (unless `overwrite`), or cannot be written.
    """
    target = Path(folder)
    files = {f"{key}.onnx": data for key, data in graphs.items()}
    files["entropy.pcem"] = entropy_model.to_bytes()
    if stream_model is not None:
        files["stream.pcem"] = stream_model.to_bytes()
    for key in ("frames", "symbols", "labels"):
        files[f"selftest/{key}.npy"] = bytes_from_array(getattr(selftest, key))
    files.update(extra_files or {})
    latent = (entropy_model.channels, frame_height // 8, frame_width // 8)
    shapes = Shapes(frame_height, frame_width, latent)
    known = infos or {}
    described = {
        key: known.get(key) or graph_from_name(key, precision[key], signature(data, key), shapes, tuple(labels))
        for key, data in graphs.items()
    }
    manifest = {
        "format": FORMAT,
        "version": list(VERSION),
        "name": name,
        "frame": {"height": frame_height, "width": frame_width, "pixel_format": "rgb8"},
        "preprocess": {"resize": "area", "fit": fit},
        "latent": {
            "channels": latent[0],
            "levels": entropy_model.levels,
            "height": latent[1],
            "width": latent[2],
            **({"steps": [asdict(s) for s in steps]} if steps else {"centers": [float(c) for c in np.asarray(centers, np.float32)]}),
        },
        "graphs": {key: json_from_graph(info, f"{key}.onnx", labels) for key, info in described.items()},
        "entropy_model": {"file": "entropy.pcem", "profile": entropy_model.profile},
        **({} if stream_model is None else {"stream": {"file": "stream.pcem", "profile": stream_model.profile}}),
        "labels": json_from_labels(labels),
        "selftest": {
            **{key: f"selftest/{key}.npy" for key in ("frames", "symbols", "labels")},
            "max_symbol_disagreement": selftest.max_symbol_disagreement,
            "min_label_agreement": selftest.min_label_agreement,
        },
        "metrics": dict(metrics),
        "provenance": dict(provenance),
    }
    return _place(target, manifest, files, overwrite)


def extend_bundle(
    bundle: Bundle,
    folder: str | os.PathLike[str],
    *,
    heads: Sequence[tuple[GraphInfo, bytes]] = (),
    graphs: Mapping[str, bytes] | None = None,
    stream_model: EntropyModel | StepsModel | None = None,
    familiarity: Familiarity | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """A bundle with everything of `bundle`, byte for byte, and further heads, stream tables, a familiarity or other extra files; its
    engines come along.

    `graphs`: other bytes for some of its graphs, which compute the same; engines made from the old ones stay behind.
    The new one supersedes `bundle` and those which that supersedes, unless it has other stream tables. `provenance` is added to what
    is there.
    Raises `BundleError` as `write_bundle`, and for a head whose name is taken; `EngineError` for an engine that was altered.
    """
    files = {key: bundle.file(key) for key in bundle.manifest["files"]} | dict(extra_files or {})
    manifest = {**bundle.manifest, "version": list(VERSION), "name": name or bundle.name}
    del manifest["files"]  # the last of the new one
    manifest["provenance"] = {**manifest["provenance"], **(provenance or {})}
    files |= {manifest["graphs"][key]["file"]: data for key, data in (graphs or {}).items()}
    entries = {key: json_from_graph(info, manifest["graphs"][key]["file"], bundle.labels) for key, info in bundle.graphs.items()}
    for info, data in heads:
        file = f"{info.name}.onnx"
        if info.name in entries or file in files:
            raise BundleError(f"bundle {bundle.path} has {info.name} already; give the head another name")
        entries[info.name], files[file] = json_from_graph(info, file, bundle.labels), data
    manifest["graphs"] = entries
    replaced = stream_model is not None and bundle.stream_model not in (None, stream_model)
    manifest["supersedes"] = [] if replaced else [bundle.digest, *manifest.get("supersedes", ())][:MAX_SUPERSEDED]
    if stream_model is not None:
        if bundle.stream_model is not None:
            del files[bundle.manifest["stream"]["file"]]
        files["stream.pcem"] = stream_model.to_bytes()
        manifest["stream"] = {"file": "stream.pcem", "profile": stream_model.profile}
    if familiarity is not None:
        files["familiarity.f32"] = familiarity.to_bytes()
        manifest["familiarity"] = {"file": "familiarity.f32", "limit": familiarity.limit, "head": familiarity.head}
    return _place(Path(folder), manifest, files, overwrite, lambda made: carry_engines(bundle, made))


def _place(
    target: Path, manifest: dict[str, Any], files: dict[str, bytes], overwrite: bool, complete: Callable[[Bundle], None] = lambda made: None
) -> Bundle:
    if target.exists() and not overwrite:
        raise BundleError(f"bundle {target} exists; choose another folder or overwrite it on purpose")
    if target.exists() and not (target / "manifest.json").is_file():
        raise BundleError(f"{target} is there and no bundle; only a bundle is overwritten, choose another folder")
    outside = next((key for key in files if not set(key.split("/")).isdisjoint(("", ".", ".."))), None)
    if outside is not None:
        raise BundleError(f"bundle {target}: {outside!r} names no file in it; give names such as notes/made.txt")
    manifest["files"] = {key: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for key, data in sorted(files.items())}
    try:
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise BundleError(f"bundle {target}: metrics and provenance must be plain JSON values: {e}") from e
    files = {**files, "manifest.json": text.encode() + b"\n"}
    part = target.with_name(f".{target.name}.part-{os.getpid()}")
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    try:
        for key, data in files.items():
            _write(part / key, data)
        complete(Bundle.open(part))
        if target.exists():
            os.rename(target, old)
        os.rename(part, target)
        _sync(target.parent)
    except OSError as e:
        raise BundleError(f"bundle {target} cannot be written: {e.strerror or e}") from e
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return Bundle.open(target)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["extend_bundle", "write_bundle"]
