"""Engines inside a bundle: `engines/<target>-<precision>/<graph>.engine` beside a record that says for what it was built.

    engines/orin-jp6-int8+fp16/encoder.engine   what the builder wrote (for target host: an ONNX graph for ONNX Runtime)
    engines/orin-jp6-int8+fp16/encoder.json     key, digests, layers, seal
    engines/orin-jp6-int8+fp16/camera_nv12_1920x1080.engine, .json   a camera's pictures to frames (`percodec.sdk.camera`)

An engine is native code. It reaches a runtime only when every part of its key is what this bundle and this machine say, and its bytes
are those that were recorded. The seal is a checksum of the record, not a signature: it finds damage and edits, not forgers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from percodec.sdk.bundle.bundle import Bundle
from percodec.sdk.bundle.files import UnfitFileError, read_file
from percodec.sdk.camera import is_camera_graph
from percodec.sdk.errors import EngineError

FORMAT, VERSION = "percodec-engine", [1, 0]
MAX_ENGINE_BYTES = 2 << 30
MAX_RECORD_BYTES = 4 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9_+-]{0,80}")
_FILE = re.compile(rf"{_NAME.pattern}\.(onnx|engine)")


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on. Equal keys: interchangeable engines."""

    bundle: str  # SHA-256 of the bundle's manifest
    graph: str
    source_sha256: str  # the bundle's graph, both of "encoder+head", or the camera's
    onnx_sha256: str  # the explicit graph that was built
    precision: str
    target: str
    flavour: str  # ort, tensorrt, tensorrt_rtx
    version: str  # of the flavour; for ort, the opset
    capability: str
    cuda: str
    flags: tuple[str, ...]
    profiles: tuple[str, ...]

    def difference(self, other: EngineKey) -> list[str]:
        """What differs, both sides named."""
        out = []
        for f in fields(self):
            mine, its = getattr(self, f.name), getattr(other, f.name)
            if mine != its:
                out.append(f"{f.name} {_short(mine)} here, {_short(its)} in the engine")
        return out


def folder_of(bundle: Path, target: str, precision: str) -> Path:
    """Where the engines of one target and precision live. Raises `EngineError` for a name that is no plain word."""
    name = f"{target}-{precision}"
    if not _NAME.fullmatch(name):
        raise EngineError(f"{name!r} cannot name a folder of engines")
    return bundle / "engines" / name


def write_engine(bundle: Path, key: EngineKey, data: bytes, report: Mapping[str, Any]) -> Path:
    """Write engine and record, each by a rename. Returns the record's path. Raises `EngineError`."""
    folder = folder_of(bundle, key.target, key.precision)
    if not _NAME.fullmatch(key.graph):
        raise EngineError(f"{key.graph!r} cannot name an engine")
    suffix = "onnx" if key.flavour == "ort" else "engine"
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "key": {**asdict(key), "flags": list(key.flags), "profiles": list(key.profiles)},
        "file": {"name": f"{key.graph}.{suffix}", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "report": dict(report),
    }
    record["seal"] = _seal(record)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / record["file"]["name"], data)
        path = folder / f"{key.graph}.json"
        _replace(path, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise EngineError(f"the engine cannot be written to {folder}: {error.strerror or error}") from error
    return path


def read_engine(bundle: Bundle, target: str, precision: str, graph: str, here: Mapping[str, str]) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an engine that belongs to this bundle and this machine, and its report.

    `here`: what this machine says of itself, by the names of `EngineKey` (flavour, version, capability, cuda, or some of them).
    Raises `EngineError` that says what is missing, altered or different, both sides named, and how to build it anew.
    """
    folder = folder_of(bundle.path, target, precision)
    camera = f" --camera {graph.removeprefix('camera_').replace('_', ':', 1)}" if is_camera_graph(graph) else ""
    again = f"build it here: percodec build {bundle.path} --target {target} --precision {precision}{camera}"
    where = f"engine {folder.name}/{graph}"
    pinned = None if bundle.engines is None else bundle.engines.get(f"{folder.name}/{graph}", ())
    record = _record(folder / f"{graph}.json", where, again, pinned)
    key = _key(record)
    wanted = {"bundle": bundle.digest, "graph": graph, "precision": precision, "target": target, **here}
    # Of one graph the bundle knows the bytes. For two made into one, and for a camera's (made of name, frame, fit), the digest speaks.
    if "+" not in graph and not camera:
        wanted["source_sha256"] = hashlib.sha256(bundle.graph(graph)).hexdigest()
    mine = EngineKey(**{**{f.name: getattr(key, f.name) for f in fields(EngineKey)}, **wanted})
    differences = mine.difference(key)
    if differences:
        raise EngineError(f"{where} was built for something else: {'; '.join(differences)}; {again}")
    return _recorded(folder, record, where, again), dict(record["report"])


def engines_in(bundle: Path) -> list[tuple[str, str]]:
    """(folder name, graph) of every record in a bundle, unchecked; hidden files are none."""
    records = [p for p in bundle.glob("engines/*/*.json") if p.parent.name != "calibration"]
    return sorted((p.parent.name, p.stem) for p in records if not (p.name.startswith(".") or p.parent.name.startswith(".")))


def carry_engines(old: Bundle, new: Bundle) -> None:
    """Record the engines of a bundle, byte for byte, in one that has the same graphs; ranges kept for calibration come along.

    Engines of another bundle stay behind, and those of graphs that have other bytes there. Raises `EngineError` for one that was altered.
    """
    for place, graph in engines_in(old.path):
        folder, where, again = old.path / "engines" / place, f"engine {place}/{graph}", f"remove it or build it again: {old.path}"
        record = _record(folder / f"{graph}.json", where, again)
        key = _key(record)
        if key.bundle == old.digest and all(old.graph(g) == new.graph(g) for g in graph.split("+") if not is_camera_graph(g)):
            write_engine(new.path, replace(key, bundle=new.digest), _recorded(folder, record, where, again), record["report"])
    for path in sorted((old.path / "engines" / "calibration").glob("[!.]*.json")):
        kept = new.path / "engines" / "calibration" / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        _replace(kept, _bytes(path, f"calibration {path.name}", MAX_RECORD_BYTES, "remove it"))


def _key(record: Mapping[str, Any]) -> EngineKey:
    return EngineKey(**{**record["key"], "flags": tuple(record["key"]["flags"]), "profiles": tuple(record["key"]["profiles"])})


def _recorded(folder: Path, record: Mapping[str, Any], where: str, again: str) -> bytes:
    """The bytes that were recorded, or `EngineError`."""
    entry = record["file"]
    data = _bytes(folder / entry["name"], where, min(entry["bytes"], MAX_ENGINE_BYTES), again)
    if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise EngineError(f"{where} was altered: its bytes are not those that were built; {again}")
    return data


def _record(path: Path, where: str, again: str, pinned: tuple[str, ...] | None = None) -> dict[str, Any]:
    raw = _bytes(path, where, MAX_RECORD_BYTES, again)
    if pinned is not None and hashlib.sha256(raw).hexdigest() not in pinned:
        raise EngineError(
            f"{where} is not among the engines that are signed here; sign it (percodec sign bundle), or run the graphs as exported "
            "(--backend ort:fp32)"
        )
    try:
        record = json.loads(raw)
        seal = record.pop("seal")
        whole, intact = _is_record(record), seal == _seal(record)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise EngineError(f"{where}: its record is damaged; {again}") from error
    if not whole:
        raise EngineError(f"{where}: its record is of another version or damaged; {again}")
    if not intact:
        raise EngineError(f"{where}: its record was altered after the build; {again}")
    return dict(record)


def _is_record(record: Mapping[str, Any]) -> bool:
    """Whether every part that is used later is there and of its type."""
    key, entry, lists = record["key"], record["file"], ("flags", "profiles")
    return (
        record["format"] == FORMAT
        and record["version"][0] == VERSION[0]
        and set(key) == {f.name for f in fields(EngineKey)}
        and all(isinstance(value, str) for k, value in key.items() if k not in lists)
        and all(isinstance(key[k], list) and all(isinstance(value, str) for value in key[k]) for k in lists)
        and type(entry["bytes"]) is int
        and isinstance(entry["sha256"], str)
        and _FILE.fullmatch(entry["name"]) is not None
        and isinstance(record["report"], dict)
    )


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _bytes(path: Path, where: str, most: int, again: str) -> bytes:
    try:
        return read_file(path.parent.parent.parent, "/".join(path.parts[-3:]), most)
    except UnfitFileError as error:
        raise EngineError(f"{where} {'is not there (no such file)' if error.absent else error}; {again}") from error


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    with part.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


def _short(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"{text[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else repr(text[:80])


__all__ = ["EngineKey", "carry_engines", "engines_in", "folder_of", "read_engine", "write_engine"]
