"""manifest.json: strict JSON against a fixed schema (BUNDLE.md, "Manifest"). Unknown keys are refused, so a typo is never silent."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import BundleError
from percodec.sdk.fit import FITS

FORMAT = "percodec-bundle"
VERSION = (1, 0)
GRAPHS = ("encoder", "head_segmentation", "head_classification", "decoder")
_GRAPH = re.compile(r"encoder|decoder|head_(segmentation|classification)(_[a-z0-9]{1,20}){0,3}")
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20
MAX_FILES = 256
MAX_SIDE = 16384
MAX_SELFTEST = 64

_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}){0,3}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Label:
    """One class: its id in the label maps, its name, its RGB colour."""

    id: int
    name: str
    color: tuple[int, int, int]


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


class _Node:
    """A JSON value and where it stands, for checks that can say what is wrong with it."""

    def __init__(self, value: Any, where: str) -> None:
        self.value = value
        self.where = where

    def fail(self, expected: str) -> BundleError:
        shown = repr(self.value)
        return BundleError(f"manifest.json: {self.where} must be {expected}, got {shown[:60]}; export the bundle again")

    def object(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        place = self.where or "the top level"
        for key in required:
            if key not in self.value:
                raise BundleError(f"manifest.json: {place} lacks {key!r}; export the bundle again")
        for key in self.value:
            if key not in required and key not in optional:
                raise BundleError(f"manifest.json: {place} has the unknown key {str(key)[:60]!r}; is this bundle of a newer version?")

    def __getitem__(self, key: str) -> _Node:
        return _Node(self.value[key], f"{self.where}.{key}" if self.where else key)

    def items(self) -> list[tuple[str, _Node]]:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        return [(key, self[key]) for key in self.value]

    def elements(self, least: int = 0, most: int = 1 << 16) -> list[_Node]:
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            raise self.fail(f"a list of {least}..{most} elements")
        return [_Node(v, f"{self.where}[{k}]") for k, v in enumerate(self.value)]

    def integer(self, least: int, most: int) -> int:
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.fail(f"an integer in {least}..{most}")
        return self.value

    def number(self, least: float, most: float) -> float:
        if type(self.value) not in (int, float) or not least <= self.value <= most:
            raise self.fail(f"a number in {least:g}..{most:g}")
        return float(self.value)

    def text(self, pattern: re.Pattern[str] | None = None, most: int = 200) -> str:
        if not isinstance(self.value, str) or len(self.value) > most or (pattern and not pattern.fullmatch(self.value)):
            raise self.fail(f"text like {pattern.pattern}" if pattern else f"text of at most {most} characters")
        return self.value

    def one_of(self, values: tuple[str, ...]) -> str:
        if not isinstance(self.value, str) or self.value not in values:
            raise self.fail("one of " + ", ".join(values))
        return self.value


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Bytes -> checked manifest. Raises `BundleError` naming the field."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ValueError("a key stands twice")
        return out

    def no_constant(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as e:
        raise BundleError(f"manifest.json is not valid JSON: {str(e)[:100]}; copy or export the bundle again") from e
    root = _Node(value, "")
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BundleError('manifest.json: format is not "percodec-bundle"; this folder holds no percodec bundle')
    _check_version(root)
    root.object(
        (
            "format",
            "version",
            "name",
            "frame",
            "preprocess",
            "latent",
            "graphs",
            "entropy_model",
            "labels",
            "selftest",
            "metrics",
            "provenance",
            "files",
        )
    )
    root["name"].text(_NAME)
    height, width = _check_frame(root["frame"])
    preprocess = root["preprocess"]
    preprocess.object(("resize", "fit"))
    preprocess["resize"].one_of(("area",))
    preprocess["fit"].one_of(FITS)
    _check_latent(root["latent"], height, width)
    _check_files(root["files"])
    listed = value["files"]
    _check_graphs(root["graphs"], listed)
    tables = root["entropy_model"]
    tables.object(("file", "profile"))
    _listed(tables["file"], listed)
    tables["profile"].integer(0, 255)
    _check_labels(root["labels"])
    selftest = root["selftest"]
    selftest.object(("frames", "symbols", "labels", "max_symbol_disagreement", "min_label_agreement"))
    for key in ("frames", "symbols", "labels"):
        _listed(selftest[key], listed)
    for key in ("max_symbol_disagreement", "min_label_agreement"):
        selftest[key].number(0, 1)
    root["metrics"].items()
    root["provenance"].items()
    checked: dict[str, Any] = value
    return checked


def _check_version(root: _Node) -> None:
    numbers = root["version"].value if "version" in root.value else None
    if not isinstance(numbers, list) or len(numbers) != 2 or any(type(n) is not int for n in numbers):
        raise BundleError("manifest.json: version must be [major, minor]; export the bundle again")
    if numbers[0] != VERSION[0]:
        raise BundleError(
            f"manifest.json: bundle format {numbers[0]}.{numbers[1]} is not known here (this percodec reads {VERSION[0]}.x); "
            "install the percodec that wrote it, or export the bundle with this one"
        )


def _check_frame(frame: _Node) -> tuple[int, int]:
    frame.object(("height", "width", "pixel_format"))
    frame["pixel_format"].one_of(("rgb8",))
    height, width = (frame[key].integer(8, MAX_SIDE) for key in ("height", "width"))
    for key, side in (("height", height), ("width", width)):
        if side % 8:
            raise frame[key].fail("a multiple of 8")
    return height, width


def _check_latent(latent: _Node, height: int, width: int) -> None:
    latent.object(("channels", "levels", "height", "width", "centers"))
    latent["channels"].integer(1, 1024)
    levels = latent["levels"].integer(2, 256)
    for key, side in (("height", height), ("width", width)):
        if latent[key].integer(1, MAX_SIDE) != side // 8:
            raise latent[key].fail(f"frame.{key} / 8 = {side // 8}")
    centers = [c.number(-1e6, 1e6) for c in latent["centers"].elements(levels, levels)]
    if any(b <= a for a, b in pairwise(centers)):
        raise latent["centers"].fail("strictly increasing")


def _check_files(files: _Node) -> None:
    entries = files.items()
    if not 1 <= len(entries) <= MAX_FILES:
        raise BundleError(f"manifest.json: files must name 1..{MAX_FILES} files, got {len(entries)}")
    seen: set[str] = set()
    for name, entry in entries:
        if not _PATH.fullmatch(name) or name in ("manifest.json", "signature"):
            raise BundleError(f"manifest.json: files names {name[:60]!r}, which is not a path allowed in a bundle")
        if name.lower() in seen:
            raise BundleError(f"manifest.json: files names {name[:60]!r} twice in different case; rename one")
        seen.add(name.lower())
        entry.object(("bytes", "sha256"))
        entry["bytes"].integer(0, MAX_FILE_BYTES)
        entry["sha256"].text(_SHA256)


def _listed(node: _Node, files: dict[str, Any]) -> None:
    if node.text(_PATH) not in files:
        raise node.fail("a file listed under files")


def _check_graphs(graphs: _Node, files: dict[str, Any]) -> None:
    for name, graph in graphs.items():
        if not _GRAPH.fullmatch(name):
            known = f"{', '.join(GRAPHS)}, or a head's name with _ and a variant behind it"
            raise BundleError(f"manifest.json: graphs has the unknown graph {name[:60]!r}; known: {known}")
        graph.object(("file", "precision"))
        _listed(graph["file"], files)
        graph["precision"].text(most=100)


def _check_labels(labels: _Node) -> None:
    names = set()
    for k, label in enumerate(labels.elements(0, 255)):
        label.object(("id", "name", "color"))
        if label["id"].integer(0, 254) != k:
            raise label["id"].fail(f"{k}: ids count from 0 in order")
        names.add(label["name"].text(most=60))
        for component in label["color"].elements(3, 3):
            component.integer(0, 255)
    if len(names) != len(labels.value):
        raise labels.fail("classes with different names")


__all__ = ["Label", "SelfTest", "parse_manifest"]
