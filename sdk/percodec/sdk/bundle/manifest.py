"""manifest.json: strict JSON against a fixed schema (BUNDLE.md, "Manifest"). Unknown keys are refused, so a typo is never silent."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from typing import Any

from percodec.sdk.bundle.graphs import Shapes, check_graphs, check_labels
from percodec.sdk.bundle.node import PATH, Node
from percodec.sdk.errors import BundleError
from percodec.sdk.fit import FITS

FORMAT = "percodec-bundle"
VERSION = (1, 2)
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20
MAX_BUNDLE_BYTES = 384 << 20  # of all files together: all of them are held in memory
MAX_FILES = 256
MAX_SIDE = 16384
MAX_SELFTEST = 64
MAX_SUPERSEDED = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# fmt: off
_KEYS = (
    "format", "version", "name", "frame", "preprocess", "latent", "graphs", "entropy_model", "labels", "selftest", "metrics", "provenance",
    "files",
)
# fmt: on


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Bytes -> checked manifest. Raises `BundleError` naming the field."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ValueError("a key stands twice")
        return out

    def no_constant(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text[:20]} is too large a number")
        return number

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant, parse_float=finite)
    except (ValueError, RecursionError) as e:
        raise BundleError(f"manifest.json is not valid JSON: {str(e)[:100]}; copy or export the bundle again") from e
    root = Node(value, "")
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BundleError('manifest.json: format is not "percodec-bundle"; this folder holds no percodec bundle')
    _check_version(root)
    minor = value["version"][1]
    root.object(_KEYS, ("stream", "supersedes", "familiarity")[: (0, 2, 3)[min(minor, 2)]])
    root["name"].text(_NAME)
    height, width = _check_frame(root["frame"])
    preprocess = root["preprocess"]
    preprocess.object(("resize", "fit"))
    preprocess["resize"].one_of(("area",))
    preprocess["fit"].one_of(FITS)
    _check_latent(root["latent"], height, width, minor)
    _check_files(root["files"])
    listed = value["files"]
    check_graphs(root["graphs"], listed, Shapes.of(value), minor)
    for key in ("entropy_model", "stream"):
        if key in value:
            tables = root[key]
            tables.object(("file", "profile"))
            tables["file"].listed(listed)
            tables["profile"].integer(0, 255)
    if "familiarity" in value:
        familiar = root["familiarity"]
        familiar.object(("file", "limit", "head"))
        familiar["file"].listed(listed)
        familiar["limit"].number(1e-6, 1e6)
        heads = [name.removeprefix("head_") for name, graph in value["graphs"].items() if graph.get("task") == "segmentation"]
        if familiar["head"].value is not None and familiar["head"].value not in heads:
            raise familiar["head"].fail(f"null or a segmentation head ({', '.join(heads) or 'there is none'})")
    for digest in root["supersedes"].elements(0, MAX_SUPERSEDED) if "supersedes" in value else ():
        digest.text(_SHA256)
    check_labels(root["labels"], 255)
    selftest = root["selftest"]
    selftest.object(("frames", "symbols", "labels", "max_symbol_disagreement", "min_label_agreement"))
    for key in ("frames", "symbols", "labels"):
        selftest[key].listed(listed)
    for key in ("max_symbol_disagreement", "min_label_agreement"):
        selftest[key].number(0, 1)
    root["metrics"].items()
    root["provenance"].items()
    checked: dict[str, Any] = value
    return checked


def _check_version(root: Node) -> None:
    numbers = root["version"].value if "version" in root.value else None
    if not isinstance(numbers, list) or len(numbers) != 2 or any(type(n) is not int or n < 0 for n in numbers):
        raise BundleError("manifest.json: version must be [major, minor]; export the bundle again")
    if numbers[0] != VERSION[0]:
        raise BundleError(
            f"manifest.json: bundle format {numbers[0]}.{numbers[1]} is not known here (this percodec reads {VERSION[0]}.x); "
            "install the percodec that wrote it, or export the bundle with this one"
        )


def _check_frame(frame: Node) -> tuple[int, int]:
    frame.object(("height", "width", "pixel_format"))
    frame["pixel_format"].one_of(("rgb8",))
    height, width = (frame[key].integer(8, MAX_SIDE) for key in ("height", "width"))
    for key, side in (("height", height), ("width", width)):
        if side % 8:
            raise frame[key].fail("a multiple of 8")
    return height, width


def _check_latent(latent: Node, height: int, width: int, minor: int) -> None:
    with_steps = minor >= 2 and isinstance(latent.value, dict) and "steps" in latent.value
    latent.object(("channels", "levels", "height", "width", *(("steps",) if with_steps else ("centers",))))
    channels = latent["channels"].integer(1, 1024)
    levels = latent["levels"].integer(2, 256)
    for key, side in (("height", height), ("width", width)):
        if latent[key].integer(1, MAX_SIDE) != side // 8:
            raise latent[key].fail(f"frame.{key} / 8 = {side // 8}")
    if with_steps:
        _check_steps(latent["steps"], channels, levels)
        return
    centers = [c.number(-1e6, 1e6) for c in latent["centers"].elements(levels, levels)]
    if any(b <= a for a, b in pairwise(centers)):
        raise latent["centers"].fail("strictly increasing")


def _check_steps(steps: Node, channels: int, levels: int) -> None:
    most = 0
    for channel in steps.elements(channels, channels):
        channel.object(("step", "offset", "levels"))
        channel["step"].number(1e-6, 1e6)
        here = channel["levels"].integer(1, 256)
        channel["offset"].integer(0, here - 1)
        most = max(most, here)
    if most != levels:
        raise steps.fail(f"levels of {levels} at most in a channel, as latent.levels says")


def _check_files(files: Node) -> None:
    entries = files.items()
    if not 1 <= len(entries) <= MAX_FILES:
        raise BundleError(f"manifest.json: files must name 1..{MAX_FILES} files, got {len(entries)}")
    seen: set[str] = set()
    total = 0
    for name, entry in entries:
        if not PATH.fullmatch(name) or name in ("manifest.json", "signature"):
            raise BundleError(f"manifest.json: files names {name[:60]!r}, which is not a path allowed in a bundle")
        if name.lower() in seen:
            raise BundleError(f"manifest.json: files names {name[:60]!r} twice in different case; rename one")
        seen.add(name.lower())
        entry.object(("bytes", "sha256"))
        total += entry["bytes"].integer(0, MAX_FILE_BYTES)
        entry["sha256"].text(_SHA256)
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"manifest.json: the files have {total} bytes together, a bundle at most {MAX_BUNDLE_BYTES}; leave some out")


__all__ = ["MAX_MANIFEST_BYTES", "parse_manifest"]
