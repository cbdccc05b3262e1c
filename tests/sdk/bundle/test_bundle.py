"""A bundle is what its manifest says, byte for byte, or it does not open."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from percodec.sdk.bundle import Bundle, Label, SelfTest, Step, extend_bundle, write_bundle
from percodec.sdk.bundle.engines import engines_in
from percodec.sdk.codec import EntropyModel
from percodec.sdk.errors import BundleError


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "b"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put other bytes in a file and list them properly: only their content can be objected to."""
    import hashlib

    (folder / name).write_bytes(data)
    edit(folder, lambda m: m["files"].update({name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_what_was_written_is_read(pristine: Path) -> None:
    bundle = Bundle.open(pristine)
    assert (bundle.frame_height, bundle.frame_width) == (64, 96)
    assert bundle.latent_shape == (4, 8, 12)
    assert bundle.levels == 6
    assert bundle.labels[1] == Label(1, "Building", (128, 0, 0))
    assert bundle.palette.shape == (256, 3)
    assert tuple(bundle.palette[1]) == (128, 0, 0)
    assert bundle.centers.dtype == np.float32
    assert bundle.graph("encoder") == (pristine / "encoder.onnx").read_bytes()
    assert isinstance(bundle.entropy_model, EntropyModel)
    assert bundle.selftest().frames.shape == (2, 64, 96, 3)
    assert not bundle.selftest().frames.flags.writeable


def test_a_missing_graph_says_which_there_are(pristine: Path) -> None:
    with pytest.raises(BundleError, match=r"no graph 'head_classification' \(it has: encoder"):
        Bundle.open(pristine).graph("head_classification")


def test_the_digest_can_be_pinned(pristine: Path) -> None:
    digest = Bundle.open(pristine).digest
    assert Bundle.open(pristine, expect_digest=digest).digest == digest
    assert Bundle.open(pristine, expect_digest=digest[:12]).digest == digest
    for wrong in ("0" * 64, digest[:4], ""):
        with pytest.raises(BundleError, match="another bundle"):
            Bundle.open(pristine, expect_digest=wrong)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format="zip"), ["format"]),
        (lambda m: m.update(version=[2, 0]), ["format 2.0 is not known"]),
        (lambda m: m.update(version="1.0"), ["version"]),
        (lambda m: m.pop("latent"), ["lacks 'latent'"]),
        (lambda m: m.update(extra=1), ["unknown key 'extra'"]),
        (lambda m: m.update(name="../evil"), ["name"]),
        (lambda m: m["frame"].update(height=65), ["frame.height", "multiple of 8"]),
        (lambda m: m["frame"].update(height=10**9), ["frame.height"]),
        (lambda m: m["frame"].update(width=True), ["frame.width"]),
        (lambda m: m["frame"].update(width=96.0), ["frame.width"]),
        (lambda m: m["frame"].update(pixel_format="nv12"), ["pixel_format", "rgb8"]),
        (lambda m: m["preprocess"].update(fit="guess"), ["preprocess.fit"]),
        (lambda m: m["latent"].update(height=9), ["latent.height"]),
        (lambda m: m["latent"].update(channels=5), ["graphs.encoder.outputs", "[5, 8, 12]"]),
        (lambda m: m["latent"]["centers"].reverse(), ["increasing"]),
        (lambda m: m["latent"].update(centers=[0.0]), ["latent.centers"]),
        (lambda m: m["graphs"].update(driver=m["graphs"]["encoder"]), ["unknown graph 'driver'"]),
        (lambda m: m["graphs"]["encoder"].update(file="other.onnx"), ["graphs.encoder.file", "listed"]),
        (lambda m: m["entropy_model"].update(profile=3), ["profile"]),
        (lambda m: m["labels"][1].update(id=7), ["labels[1].id"]),
        (lambda m: m["labels"][1].update(name="Sky"), ["different names"]),
        (lambda m: m["labels"][1].update(name="\ud800"), ["labels[1].name", "printed"]),
        (lambda m: m["labels"][0].update(color=[1, 2, 300]), ["labels[0].color[2]"]),
        (lambda m: m["selftest"].update(min_label_agreement=2), ["min_label_agreement"]),
        (lambda m: m["selftest"].update(frames="selftest/labels.npy"), ["labels.npy"]),
        (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": "0" * 64}}), ["not a path allowed"]),
        (lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}), ["not a path allowed"]),
        (lambda m: m["files"].update({"a/../../x": {"bytes": 1, "sha256": "0" * 64}}), ["not a path allowed"]),
        (lambda m: m["files"].update({"ENCODER.onnx": m["files"]["encoder.onnx"]}), ["different case"]),
        (lambda m: m["files"].update({"gone.bin": {"bytes": 1, "sha256": "0" * 64}}), ["gone.bin"]),
        (lambda m: m["files"]["encoder.onnx"].update(bytes=3), ["encoder.onnx", "listed with 3"]),
        (lambda m: m["files"]["encoder.onnx"].update(bytes=1 << 40), ["files.encoder.onnx.bytes"]),
        (lambda m: m["files"]["encoder.onnx"].update(sha256="0" * 64), ["encoder.onnx was altered"]),
        (lambda m: m["files"].pop("decoder.onnx"), ["graphs.decoder.file"]),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(folder: Path, change: Callable[[dict[str, Any]], object], words: list[str]) -> None:
    edit(folder, change)
    refused(folder, *words)


STEPS = [{"step": 0.5, "offset": 2, "levels": 5}, *({"step": 0.25, "offset": 0, "levels": 4} for _ in range(3))]


def with_steps(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[dict[str, Any]], object]:
    def apply(manifest: dict[str, Any]) -> None:
        steps = [dict(s) for s in STEPS]
        steps[0]["levels"] = manifest["latent"]["levels"]
        del manifest["latent"]["centers"]
        manifest["latent"]["steps"] = steps
        change(steps)

    return apply


def test_a_latent_may_have_a_step_for_each_channel(folder: Path) -> None:
    edit(folder, with_steps(lambda steps: None))
    bundle = Bundle.open(folder)
    assert bundle.steps[1] == Step(0.25, 0, 4)
    assert bundle.centers.size == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda steps: steps.pop(), ["latent.steps", "4..4"]),
        (lambda steps: steps[0].update(step=0), ["latent.steps[0].step"]),
        (lambda steps: steps[0].update(step="1"), ["latent.steps[0].step"]),
        (lambda steps: steps[2].update(offset=4), ["latent.steps[2].offset", "0..3"]),
        (lambda steps: steps[2].update(levels=257), ["latent.steps[2].levels"]),
        (lambda steps: steps[1].pop("offset"), ["lacks 'offset'"]),
        (lambda steps: steps[1].update(center=0), ["unknown key 'center'"]),
        (lambda steps: steps[0].update(levels=3, offset=0), ["latent.steps", "latent.levels"]),
    ],
)
def test_wrong_steps_are_refused_by_field(folder: Path, change: Callable[[list[dict[str, Any]]], object], words: list[str]) -> None:
    edit(folder, with_steps(change))
    refused(folder, *words)


def test_steps_and_further_decoders_need_format_1_2(folder: Path) -> None:
    edit(folder, lambda m: m["graphs"].update(decoder_sharp=m["graphs"]["decoder"]))
    assert Bundle.open(folder).decoders == ("", "sharp")
    edit(folder, lambda m: m.update(version=[1, 1]))
    refused(folder, "unknown graph 'decoder_sharp'")
    edit(folder, lambda m: m["graphs"].pop("decoder_sharp"))
    edit(folder, with_steps(lambda steps: None))
    refused(folder, "lacks 'centers'")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"format": 1, "format": 1}', '{"format": NaN}', "\xff", "[" * 100_000, "9" * 9999],
)
def test_what_is_not_json_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    refused(folder, "manifest.json")


def test_an_oversized_manifest_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as f:
        f.truncate(1 << 30)
    refused(folder, "limit")


def test_links_pipes_and_strangers_are_refused(folder: Path) -> None:
    stranger = folder / "notes.txt"
    stranger.write_text("hello")
    refused(folder, "'notes.txt'", "does not list")
    stranger.unlink()
    (folder / "link").symlink_to("/")
    refused(folder, "'link'")
    (folder / "link").unlink()
    (folder / "decoder.onnx").rename(folder.parent / "decoder.onnx")
    (folder / "decoder.onnx").symlink_to(folder.parent / "decoder.onnx")
    refused(folder, "decoder.onnx", "link")
    (folder / "decoder.onnx").unlink()
    os.mkfifo(folder / "decoder.onnx")
    refused(folder, "decoder.onnx", "not a plain file")
    (folder / "decoder.onnx").unlink()
    refused(folder, "decoder.onnx", "No such file")


@pytest.mark.parametrize(
    "header", [b"{'descr': '|u1', 'fortran_order': False, 'shape': (\n", b"(" * 60, b"{'descr': [], 'shape': 1}", b"9" * 70]
)
def test_a_header_of_an_array_that_is_none_is_refused(header: bytes) -> None:
    from percodec.sdk.bundle.arrays import array_from_bytes

    data = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
    with pytest.raises(BundleError, match=r"not a readable \.npy"):
        array_from_bytes(data, "frames.npy", (-1, 1))


def test_what_desktops_leave_in_a_folder_is_no_part_of_it(folder: Path) -> None:
    for name in (".DS_Store", "._manifest.json", "selftest/._frames.npy", "Thumbs.db", ".AppleDouble/manifest.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    bundle = Bundle.open(folder)
    assert bundle.notes == ("5 hidden files such as .AppleDouble are no part of the bundle",)
    (folder / "engines" / "host-int8").mkdir(parents=True)
    (folder / "engines" / "host-int8" / "._encoder.json").write_bytes(b"x")
    assert engines_in(folder) == []


def test_a_linked_folder_inside_is_refused(folder: Path) -> None:
    shutil.move(folder / "selftest", folder.parent / "selftest")
    (folder / "selftest").symlink_to(folder.parent / "selftest")
    refused(folder, "selftest")


def test_reserved_names_may_be_present(folder: Path) -> None:
    (folder / "signature").write_bytes(b"later")
    (folder / "engines").mkdir()
    (folder / "engines/x.engine").write_bytes(b"later")
    Bundle.open(folder)


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    refused(tmp_path / path, "folder" if path == "file" else "does not exist")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_in_any_listed_file_is_seen(folder: Path, data: st.DataObject) -> None:
    names = sorted(json.loads((folder / "manifest.json").read_text())["files"])
    path = folder / data.draw(st.sampled_from(names))
    original = path.read_bytes()
    bit = data.draw(st.integers(0, len(original) * 8 - 1))
    damaged = bytearray(original)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        refused(folder, "was altered")
    finally:
        path.write_bytes(original)


def test_flipping_manifest_bytes_never_crashes_and_never_keeps_the_digest(folder: Path) -> None:
    digest = Bundle.open(folder).digest
    original = (folder / "manifest.json").read_bytes()
    for at in range(0, len(original), 7):
        damaged = bytearray(original)
        damaged[at] ^= 1 << (at % 8)
        (folder / "manifest.json").write_bytes(damaged)
        with contextlib.suppress(BundleError):
            assert Bundle.open(folder).digest != digest


def _npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.encode().ljust(117) + b"\n"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda a: __import__("pickle").dumps(a), id="a pickle"),
        pytest.param(lambda a: _npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 64, 96)}"), id="objects"),
        pytest.param(lambda a: _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 64, 96)}"), id="a huge shape"),
        pytest.param(lambda a: b"", id="nothing"),
        pytest.param(lambda a: a[:-1], id="a short body"),
        pytest.param(lambda a: a + b"\0", id="a long body"),
    ],
)
def test_arrays_are_not_trusted(folder: Path, make: Callable[[bytes], bytes]) -> None:
    replace_file(folder, "selftest/labels.npy", make((folder / "selftest/labels.npy").read_bytes()))
    refused(folder, "selftest/labels.npy")


def test_symbols_past_the_last_level_are_refused(folder: Path) -> None:
    data = bytearray((folder / "selftest/symbols.npy").read_bytes())
    data[-1] = 6
    replace_file(folder, "selftest/symbols.npy", bytes(data))
    refused(folder, "past level 5")


@pytest.mark.parametrize("name", ["../precious", "/{}/precious", "notes/../../precious", "a//b", "", "./x"])
def test_nothing_is_written_outside_a_bundle(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    with pytest.raises(BundleError, match="names no file in it"):
        extend_bundle(Bundle.open(folder), tmp_path / "new", extra_files={name.format(tmp_path): b"yours"})
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "precious"]


def test_only_a_bundle_is_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_bytes(b"mine")
    with pytest.raises(BundleError, match="is there and no bundle"):
        extend_bundle(Bundle.open(folder), tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "precious").read_bytes() == b"mine"
    made = extend_bundle(Bundle.open(folder), tmp_path / "new", extra_files={"notes/made.txt": b"today"})
    assert extend_bundle(made, tmp_path / "new", name="again", overwrite=True).file("notes/made.txt") == b"today"


def test_writing_refuses_an_existing_folder_and_leaves_no_litter(folder: Path) -> None:
    bundle = Bundle.open(folder)
    parts: dict[str, Any] = {
        "name": "tiny",
        "frame_height": 64,
        "frame_width": 96,
        "fit": "crop",
        "centers": bundle.centers,
        "entropy_model": bundle.entropy_model,
        "graphs": {"encoder": bundle.graph("encoder")},
        "precision": {"encoder": "fp32"},
        "labels": bundle.labels,
        "selftest": bundle.selftest(),
        "metrics": {},
        "provenance": {},
    }
    with pytest.raises(BundleError, match="exists"):
        write_bundle(folder, **parts)
    assert write_bundle(folder, **parts, overwrite=True).fit == "crop"
    with pytest.raises(BundleError, match="plain JSON"):
        write_bundle(folder, **{**parts, "metrics": {"miou": float("nan")}}, overwrite=True)
    wrong = SelfTest(bundle.selftest().frames[:, :8], bundle.selftest().symbols, bundle.selftest().labels, 0, 1)
    with pytest.raises(BundleError, match=r"frames\.npy"):
        write_bundle(folder, **{**parts, "selftest": wrong}, overwrite=True)
    assert Bundle.open(folder).fit == "crop"
    assert [p.name for p in folder.parent.iterdir()] == ["b"]
