"""Graphs that a bundle must not hold, made with the real `onnx` package."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="makes the graphs; not a dependency")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from percodec.sdk.bundle.onnx_ops import check_graph, signature  # noqa: E402
from percodec.sdk.errors import BundleError  # noqa: E402


def model(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), opset: int = 20, domain: str = "") -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    graph = helper.make_graph(list(nodes), "g", value[:1], value[1:], initializer=list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)])


RELU = helper.make_node("Relu", ["x"], ["y"])


def external() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def with_function() -> onnx.ModelProto:
    out = model(RELU)
    out.functions.append(helper.make_function("local", "F", ["x"], ["y"], [RELU], [helper.make_opsetid("", 20)]))
    return out


def with_training() -> onnx.ModelProto:
    out = model(RELU)
    out.training_info.append(onnx.TrainingInfoProto())
    return out


def hidden_in_a_branch() -> onnx.ModelProto:
    branch = helper.make_graph([RELU], "b", [], [])
    node = helper.make_node("Relu", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("body", branch))
    return model(node)


def external_constant() -> onnx.ModelProto:
    return model(helper.make_node("Constant", [], ["c"], value=external()), RELU)


def test_an_ordinary_graph_passes() -> None:
    check_graph(model(RELU, weights=(numpy_helper.from_array(np.zeros(4, np.float32), "w"),)).SerializeToString(), "g.onnx")


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (model(helper.make_node("Loop", ["x"], ["y"])), "Loop"),
        (model(helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")), "com.microsoft.Relu"),
        (model(RELU, domain="evil"), "domain 'evil'"),
        (model(RELU, opset=9), "opset 9"),
        (model(RELU, opset=99), "opset 99"),
        (model(RELU, weights=(external(),)), "another file"),
        (external_constant(), "another file"),
        (hidden_in_a_branch(), "subgraph"),
        (with_function(), "functions"),
        (with_training(), "training"),
    ],
)
def test_the_rest_does_not(bad: onnx.ModelProto, word: str) -> None:
    with pytest.raises(BundleError, match=word):
        check_graph(bad.SerializeToString(), "g.onnx")


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a model at all", b"\xff" * 64, b"\x3a\xff\xff\xff\xff\x0f", bytes(1000)])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"g\.onnx"):
        check_graph(data, "g.onnx")


def test_every_truncation_is_refused_or_harmless() -> None:
    data = model(RELU).SerializeToString()
    for size in range(len(data)):
        with contextlib.suppress(BundleError):
            check_graph(data[:size], "g.onnx")
        with contextlib.suppress(BundleError):
            signature(data[:size], "g.onnx")
    rng = np.random.default_rng(0)
    for at in range(len(data)):
        with contextlib.suppress(BundleError):
            signature(data[:at] + bytes([rng.integers(256)]) + data[at + 1 :], "g.onnx")


def test_a_signature_is_what_the_file_says() -> None:
    graph = helper.make_graph(
        [],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["N", 4, None])],
        [helper.make_tensor_value_info("b", TensorProto.DOUBLE, None), helper.make_tensor_value_info("c", TensorProto.FLOAT16, [])],
    )
    assert signature(helper.make_model(graph).SerializeToString(), "g.onnx") == (
        [("a", ("uint8", (None, 4, None)))],
        [("b", (None, None)), ("c", ("float16", ()))],
    )
    with pytest.raises(BundleError, match=r"g\.onnx is not an ONNX model"):
        signature(b"\x3a\xff", "g.onnx")
