"""Bundles that `percodec serve` is given and should not be: each is refused in one line before anything listens."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percodec.sdk.cli import main

pytest.importorskip("grpc", reason="needs the serve extra")
pytest.importorskip("aiohttp", reason="needs the serve extra")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def replace(folder: Path, name: str, data: bytes) -> None:
    """A file, and what the manifest says of it: a maker who means harm can do that."""
    (folder / name).write_bytes(data)
    edit(folder, lambda m: m["files"].update({name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}))


def altered(folder: Path) -> None:
    data = bytearray((folder / "head_segmentation.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "head_segmentation.onnx").write_bytes(data)


def another_network(folder: Path) -> None:
    """The decoder as head: it gives something else than the manifest says."""
    replace(folder, "head_segmentation.onnx", (folder / "decoder.onnx").read_bytes())


def a_network_that_lies(folder: Path) -> None:
    """As declared, and it says something else than the bundle's own test expects."""
    onnx = pytest.importorskip("onnx", reason="needs the build extra")
    path = folder / "head_segmentation.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:  # weights
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
    replace(folder, path.name, model.SerializeToString())


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "altered": (altered, "head_segmentation.onnx was altered"),
    "no network": (lambda f: replace(f, "head_segmentation.onnx", b"\x08\x07" * 40), "head_segmentation"),
    "another network": (another_network, "head_segmentation"),
    "a network that lies": (a_network_that_lies, "self-test"),
    "a name that leads elsewhere": (lambda f: edit(f, lambda m: m.update(name="../../x")), "name"),
    "labels of two lines": (lambda f: edit(f, lambda m: m["labels"][0].update(name="Sky\nINTERNAL")), "name"),
    "more classes than there are": (lambda f: edit(f, lambda m: m["labels"].extend([m["labels"][0]] * 5000)), "labels"),
    "a frame that takes all memory": (lambda f: edit(f, lambda m: m["frame"].update(height=1 << 20, width=1 << 20)), "frame"),
    "no tables": (lambda f: replace(f, "entropy.pcem", b"PCEM" + bytes(60)), "entropy"),
    "nothing": (lambda f: (f / "manifest.json").unlink(), "manifest"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_is_none_is_refused(kind: str, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, text = KINDS[kind]
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_folder, folder)
    change(folder)
    assert main(["serve", str(folder), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", "1"]) == 1
    said = capsys.readouterr()
    assert said.out == "", "nothing listened"
    assert text in said.err
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) == 1, said.err


def test_a_bundle_of_another_digest_is_refused(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(bundle_folder), "--expect-digest", "0123456789ab"]) != 0
    assert "0123456789ab" in capsys.readouterr().err
