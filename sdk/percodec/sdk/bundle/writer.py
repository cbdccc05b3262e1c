"""`write_bundle`: all parts in, a folder out that opens, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from percodec.sdk.bundle.arrays import bytes_from_array
from percodec.sdk.bundle.bundle import Bundle
from percodec.sdk.bundle.manifest import FORMAT, VERSION, Label, SelfTest
from percodec.sdk.codec import EntropyModel
from percodec.sdk.errors import BundleError


def write_bundle(
    folder: str | os.PathLike[str],
    *,
    name: str,
    frame_height: int,
    frame_width: int,
    fit: str,
    centers: ArrayLike,
    entropy_model: EntropyModel,
    graphs: Mapping[str, bytes],
    precision: Mapping[str, str],
    labels: Sequence[Label],
    selftest: SelfTest,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write beside, check by opening, then rename: no half-written bundle ever stands under the given name.

    Raises `BundleError` where the parts do not fit together, the folder exists (unless `overwrite`), or cannot be written.
    """
    target = Path(folder)
    if target.exists() and not overwrite:
        raise BundleError(f"bundle {target} exists; choose another folder or overwrite it on purpose")
    files = {f"{key}.onnx": data for key, data in graphs.items()}
    files["entropy.pcem"] = entropy_model.to_bytes()
    for key in ("frames", "symbols", "labels"):
        files[f"selftest/{key}.npy"] = bytes_from_array(getattr(selftest, key))
    files.update(extra_files or {})
    manifest = {
        "format": FORMAT,
        "version": list(VERSION),
        "name": name,
        "frame": {"height": frame_height, "width": frame_width, "pixel_format": "rgb8"},
        "preprocess": {"resize": "area", "fit": fit},
        "latent": {
            "channels": entropy_model.channels,
            "levels": entropy_model.levels,
            "height": frame_height // 8,
            "width": frame_width // 8,
            "centers": [float(c) for c in np.asarray(centers, np.float32)],
        },
        "graphs": {key: {"file": f"{key}.onnx", "precision": precision[key]} for key in graphs},
        "entropy_model": {"file": "entropy.pcem", "profile": entropy_model.profile},
        "labels": [{"id": label.id, "name": label.name, "color": list(label.color)} for label in labels],
        "selftest": {
            **{key: f"selftest/{key}.npy" for key in ("frames", "symbols", "labels")},
            "max_symbol_disagreement": selftest.max_symbol_disagreement,
            "min_label_agreement": selftest.min_label_agreement,
        },
        "metrics": dict(metrics),
        "provenance": dict(provenance),
        "files": {key: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for key, data in sorted(files.items())},
    }
    try:
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise BundleError(f"bundle {target}: metrics and provenance must be plain JSON values: {e}") from e
    files["manifest.json"] = text.encode() + b"\n"
    part = target.with_name(f".{target.name}.part-{os.getpid()}")
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    try:
        for key, data in files.items():
            _write(part / key, data)
        Bundle.open(part)
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


__all__ = ["write_bundle"]
