"""An engine reaches a runtime only when all of its key is what this bundle and this machine say, and its bytes are those recorded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tracemalloc
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, engines_in, folder_of, read_engine, write_engine
from percodec.sdk.errors import EngineError

HERE = {"flavour": "tensorrt", "version": "10.3.0", "capability": "8.7", "cuda": "12.6"}
BLOB = bytes(range(256)) * 8


@pytest.fixture
def bundle(pristine, tmp_path) -> Bundle:
    return Bundle.open(shutil.copytree(pristine, tmp_path / "tiny"))


def key_of(bundle: Bundle) -> EngineKey:
    source = hashlib.sha256(bundle.graph("encoder")).hexdigest()
    return EngineKey(
        bundle=bundle.digest,
        graph="encoder",
        source_sha256=source,
        onnx_sha256="0" * 64,
        precision="fp16",
        target="orin-jp6",
        flags=("STRONGLY_TYPED",),
        profiles=("image 1x32x48x3",),
        **HERE,
    )


@pytest.fixture
def record(bundle) -> Path:
    return write_engine(bundle.path, key_of(bundle), BLOB, {"layers": 3})


def read(bundle, **here):
    return read_engine(bundle, "orin-jp6", "fp16", "encoder", {**HERE, **here})


def test_what_was_written_is_read(bundle, record):
    assert read(bundle) == (BLOB, {"layers": 3})
    assert engines_in(bundle.path) == [("orin-jp6-fp16", "encoder")]
    assert Bundle.open(bundle.path).digest == bundle.digest, "engines are not part of the bundle's digest"


@pytest.mark.parametrize("field", [f.name for f in fields(EngineKey)])
def test_a_key_altered_in_any_field_is_refused(bundle, record, field):
    stored = json.loads(record.read_text())
    value = stored["key"][field]
    stored["key"][field] = [*value, "x"] if isinstance(value, list) else value + "1"
    record.write_text(json.dumps(stored))
    with pytest.raises(EngineError, match="altered after the build; build it here: percodec build"):
        read(bundle)


@pytest.mark.parametrize("field", ["bundle", "graph", "source_sha256", "precision", "target", "flavour", "version", "capability", "cuda"])
def test_a_whole_record_of_something_else_is_refused_with_both_sides(bundle, record, field):
    """Sealed correctly, but for another machine or bundle: as copied from elsewhere."""
    other = replace(key_of(bundle), **{field: getattr(key_of(bundle), field)[:-1] + "9"})
    elsewhere = write_engine(bundle.path, other, BLOB, {})
    if elsewhere != record:
        record.write_bytes(elsewhere.read_bytes())
    with pytest.raises(EngineError, match=rf"built for something else: {field} .* here, .* in the engine"):
        read(bundle)


@pytest.mark.parametrize("at", [0, 7, len(BLOB) - 1])
def test_one_flipped_bit_is_found(bundle, record, at):
    path = record.with_name("encoder.engine")
    path.write_bytes(BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :])
    with pytest.raises(EngineError, match="its bytes are not those that were built"):
        read(bundle)


@pytest.mark.parametrize("size", [0, len(BLOB) - 1, len(BLOB) + 1])
def test_another_length_is_found(bundle, record, size):
    record.with_name("encoder.engine").write_bytes((BLOB + b"x")[:size])
    with pytest.raises(EngineError, match=r"its bytes are not those that were built|has 2049 bytes, limit 2048"):
        read(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"seal": 1}', "null", '"x"', "[" * 100_000])
def test_a_damaged_record_is_refused(bundle, record, text):
    record.write_text(text)
    with pytest.raises(EngineError, match="record"):
        read(bundle)


def test_a_record_cannot_lead_out_of_its_folder(bundle, record, tmp_path):
    stored = json.loads(record.read_text())
    stored["file"]["name"] = "../../manifest.json"
    record.write_text(json.dumps(stored))
    with pytest.raises(EngineError, match=r"damaged|altered"):
        read(bundle)
    record.unlink()
    record.mkdir()
    held = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EngineError, match="is not a plain file"):
        read(bundle)
    assert len(os.listdir("/proc/self/fd")) == held
    record.rmdir()
    record.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(EngineError, match="through a link"):
        read(bundle)


@pytest.mark.parametrize("name", ["encoder.onnx" + "9" * 4000, ".engine", "encoder", "encoder.so", "encoder.engine\n", "a/b.engine", 7])
def test_a_forged_record_names_no_file_that_an_engine_cannot_have(bundle, record, name):
    """With a seal that agrees, as anybody can make one."""
    stored = json.loads(record.read_text())
    stored["file"]["name"] = name
    del stored["seal"]
    stored["seal"] = hashlib.sha256(json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    record.write_text(json.dumps(stored))
    with pytest.raises(EngineError, match="damaged"):
        read(bundle)


def test_a_record_that_promises_much_makes_nobody_allocate(bundle, record):
    stored = json.loads(record.read_text())
    stored["file"]["bytes"] = 1 << 40
    del stored["seal"]
    whole = json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()
    record.write_text(json.dumps({**stored, "seal": hashlib.sha256(whole).hexdigest()}))
    tracemalloc.start()
    try:
        with pytest.raises(EngineError, match="was altered"):
            read(bundle)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_missing_engines_say_how_to_build_them(bundle, record):
    with pytest.raises(EngineError, match=r"percodec build .* --target orin-jp6 --precision int8"):
        read_engine(bundle, "orin-jp6", "int8", "encoder", HERE)
    record.with_name("encoder.engine").unlink()
    with pytest.raises(EngineError, match="is not there"):
        read(bundle)


@pytest.mark.parametrize(("target", "precision"), [("..", "fp16"), ("a/b", "fp16"), ("Orin", "fp16"), ("", "")])
def test_folders_are_plain_words(tmp_path, target, precision):
    with pytest.raises(EngineError, match="cannot name a folder"):
        folder_of(tmp_path, target, precision)


def test_keys_compare_field_by_field(bundle):
    key = key_of(bundle)
    assert key.difference(key) == []
    assert len(key.difference(replace(key, cuda="13.0", version="11"))) == 2
    assert set(asdict(key)) == {f.name for f in fields(EngineKey)}
