"""Two readers of one file: what ours accepts, every other reads alike, and a runtime gets what ours wrote again."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.onnx_bytes import _field as field
from support.onnx_bytes import _varint as varint
from support.onnx_bytes import node
from support.tiny_bundle import encoder_graph, head_graph

from percodec.sdk.bundle.onnx_ops import check_graph, checked_graph
from percodec.sdk.errors import BundleError

GRAPH = field(1, node("Relu", ["x"], ["y"])) + field(2, "g")
OPSET = field(8, field(1, "") + field(2, 20))


def model(graph: bytes = GRAPH, *more: bytes, opset: bytes = OPSET) -> bytes:
    return field(1, 9) + b"".join(more) + field(7, graph) + opset


def long_tag(number: int, data: bytes) -> bytes:
    """A tag whose low 32 bits are those of `number`: readers of 32-bit tags see that field."""
    return varint(1 << 32 | number << 3 | 2) + varint(len(data)) + data


def padded(value: int, size: int) -> bytes:
    """A number in more bytes than it needs."""
    return bytes([*((value >> 7 * k & 127) | 128 for k in range(size - 1)), value >> 7 * (size - 1)])


def with_node(extra: bytes) -> bytes:
    return model(field(1, node("Relu", ["x"], ["y"]) + extra) + field(2, "g"))


def with_attribute(extra: bytes) -> bytes:
    return with_node(field(5, field(1, "a") + extra + field(20, 2)))


def with_tensor(extra: bytes) -> bytes:
    return model(GRAPH + field(5, field(1, 4) + field(2, 1) + field(8, "w") + extra))


def with_type(of: bytes) -> bytes:
    return model(GRAPH + field(11, field(1, "x") + field(2, of)))


def side(content: bytes) -> bytes:
    return with_type(field(1, field(1, 1) + field(2, field(1, content))))


SIN = node("Sin", ["x"], ["y"])
REFUSED = {
    "operator off the list": model(field(1, SIN)),
    "operator behind a long tag": model(GRAPH + long_tag(1, SIN)),
    "graph behind a long tag": model(GRAPH, long_tag(7, field(1, SIN))),
    "opset behind a long tag": model(GRAPH, long_tag(8, field(2, 1))),
    "attribute behind a long tag": with_node(long_tag(5, field(1, "a"))),
    "external data behind a long tag": with_tensor(long_tag(13, b"")),
    "tag in needless bytes": model(GRAPH + padded(1 << 3 | 2, 2) + varint(len(SIN)) + SIN),
    "tag of five bytes": model(GRAPH + padded(1 << 3 | 2, 5) + varint(len(SIN)) + SIN),
    "length in needless bytes": model(GRAPH + b"\x0a" + padded(len(SIN), 3) + SIN),
    "number in needless bytes": padded(8, 1) + padded(9, 4) + field(7, GRAPH) + OPSET,
    "number of 70 bits": b"\x08" + b"\xff" * 9 + b"\x7f" + field(7, GRAPH) + OPSET,
    "number that never ends": b"\x08" + b"\xff" * 12,
    "field 0": model(GRAPH, b"\x02\x00"),
    "unknown field of the model": model(GRAPH, field(13, b"x")),
    "unknown field of the graph": model(GRAPH + field(3, b"x")),
    "unknown field of a node": with_node(field(8, "overload")),
    "unknown field of an attribute": with_attribute(field(21, "ref")),
    "unknown field of a tensor": with_tensor(field(3, b"")),
    "unknown field of an opset": model(opset=field(8, field(2, 20) + field(3, 1))),
    "unknown type": with_type(field(4, b"")),
    "map type": with_type(field(5, b"")),
    "two graphs": model(GRAPH, field(7, field(1, SIN))),
    "two operator sets": model(opset=OPSET + field(8, field(1, "other") + field(2, 1))),
    "two ir versions": model(GRAPH, field(1, 9)),
    "two operators of one node": with_node(field(4, "Sin")),
    "two domains of one node": with_node(field(7, "") + field(7, "ai.onnx")),
    "domain of its own": with_node(field(7, "com.microsoft")),
    "two values of one attribute": with_attribute(field(3, 1) + field(3, 2)),
    "two tensors of one attribute": with_attribute(field(5, b"") + field(5, b"")),
    "subgraph": with_attribute(field(6, field(1, SIN))),
    "subgraphs": with_attribute(field(11, field(1, SIN))),
    "sparse attribute": with_attribute(field(22, b"")),
    "attribute kind that is none": with_node(field(5, field(1, "a") + field(20, 99))),
    "weights elsewhere": with_tensor(field(13, field(1, "location") + field(2, "/etc/passwd"))),
    "weights elsewhere, by location alone": with_tensor(field(14, 1)),
    "sparse weights": model(GRAPH + field(15, b"")),
    "a side of 2^31": side(field(1, 1 << 31)),
    "a side below 0": side(field(1, (1 << 64) - 5)),
    "a side with number and name": side(field(1, 4) + field(2, "batch")),
    "functions": model(GRAPH, field(25, b"")),
    "training": model(GRAPH, field(20, b"")),
    "device configuration": model(GRAPH, field(26, b"")),
    "quantization annotation": model(GRAPH + field(14, b"")),
    "text that is not UTF-8": model(GRAPH + field(5, field(8, b"\xff\xfe"))),
    "operator set below the oldest": model(opset=field(8, field(2, 12))),
    "operator set beyond the newest": model(opset=field(8, field(2, 99))),
    "no operator set": model(opset=b""),
    "no graph": field(1, 9) + OPSET,
    "group": model(GRAPH, b"\x3b\x3c"),
    "wire type 7": model(GRAPH, b"\x3f"),
    "number where a message should be": field(1, 9) + field(7, 5) + OPSET,
    "message where a number should be": field(1, b"x") + field(7, GRAPH) + OPSET,
    "fixed number where a message should be": field(1, 9) + b"\x3d\0\0\0\0" + field(7, GRAPH) + OPSET,
    "length past the end": model()[:-1] + b"\x7f",
    "cut in a tag": model() + b"\x80",
    "packed numbers cut": with_tensor(field(7, b"\x80")),
    "packed numbers in needless bytes": with_tensor(field(7, b"\x80\x00")),
    "packed floats cut": with_tensor(field(4, b"\0\0\0")),
    "nothing": b"",
    "zeros": bytes(64),
    "ONNX Runtime's own format": b"\x28\x05\x12\x04ORTM" + model(),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_readers_could_take_differently_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        check_graph(data, "x.onnx")
    assert str(caught.value).startswith("x.onnx ")
    assert "\n" not in str(caught.value)


def test_sound_graphs_are_written_again_as_they_were() -> None:
    for data in (model(), encoder_graph(), head_graph(), with_attribute(field(3, (1 << 64) - 1)), side(field(2, "batch"))):
        again = checked_graph(data, "x.onnx")
        assert again == data, "these have nothing to leave behind, and their fields in order"
        assert checked_graph(again, "x.onnx") == again


def test_what_computes_nothing_stays_behind() -> None:
    said = field(2, "producer") + field(6, "doc") + field(14, field(1, "key") + field(2, "value"))
    assert checked_graph(model(GRAPH + field(10, "doc"), said), "x.onnx") == model()


def test_committed_graphs_mean_the_same_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="the other reader; not a dependency")
    root = Path(__file__).resolve().parents[3]
    monkeypatch.syspath_prepend(root / "benchmarks")
    fuzz = importlib.import_module("fuzz")
    found = [*root.glob("runtime/percodec/runtime/bundles/*/*.onnx"), *root.glob("benchmarks/bundles/fast-*/*.onnx")]
    found += root.glob("runtime/percodec/runtime/bundles/*/engines/*/*.onnx")
    assert len(found) >= 6
    for path in found:
        fuzz.read_both(path.read_bytes())  # raises AssertionError where the two differ


def test_mutants_that_are_accepted_mean_the_same_to_the_other_reader(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the other reader; not a dependency")
    root = Path(__file__).resolve().parents[3]
    words = ["--only", "graph", "--graph", "3000", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, str(root / "benchmarks" / "fuzz.py"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
