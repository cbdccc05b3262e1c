"""Each rule has a graph that breaks it, and only it, and says how to fix it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the export extra")

from onnx import ModelProto, TensorProto, helper, numpy_helper

from percodec.export.engines.build import bound_graph
from percodec.export.engines.calibrate import measure
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.lint import RULES, lint
from percodec.export.engines.onnx_graph import plain
from percodec.export.engines.precision import PRECISIONS, Plan, make_explicit
from percodec.sdk.bundle import Bundle
from percodec.sdk.synthetic.road import RoadScene
from percodec.sdk.targets import target

ROAD = Path(__file__).resolve().parents[2] / "benchmarks" / "bundles" / "road-edge"
FLOAT, HALF, UINT8, INT8, INT32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32
WEIGHT = np.random.default_rng(0).normal(0, 0.1, (4, 3, 1, 1)).astype(np.float32)


def model(nodes, weights, *, opset=20, output=("y", FLOAT, [1, 4, 8, 8]), image=("image", UINT8, [1, 8, 8, 3])) -> bytes:
    inputs, outputs = [helper.make_tensor_value_info(*image)], [helper.make_tensor_value_info(*output)]
    tensors = [v if isinstance(v, TensorProto) else numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph([helper.make_node(*n[:3], name=f"n{k}", **n[3]) for k, n in enumerate(nodes)], "g", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return bytes(made.SerializeToString())


def start(kind=FLOAT):
    return [("Cast", ["image"], ["x"], {"to": kind}), ("Transpose", ["x"], ["t"], {"perm": [0, 3, 1, 2]})]


def quantized(name, scale="s", zero="z", **more):
    return [
        ("QuantizeLinear", [name, scale, zero], [name + "q"], more),
        ("DequantizeLinear", [name + "q", scale, zero], [name + "d"], more),
    ]


SCALE, ZERO = np.float32(0.02), np.int8(0)
CONV = ("Conv", ["t", "w"], ["y"], {})


def broken() -> dict[str, tuple[bytes, str]]:
    """Rule -> (a graph that breaks it, the target it is broken on)."""
    out: dict[str, tuple[bytes, str]] = {}
    out["opset-window"] = model([*start(), CONV], {"w": WEIGHT}, opset=17), "orin-jp6"
    bias = [("DequantizeLinear", ["b8", "bs", "bz"], ["b"], {"axis": 0})]
    bias_weights = {"w": WEIGHT, "b8": np.zeros(4, np.int32), "bs": np.full(4, 0.1, np.float32), "bz": np.zeros(4, np.int32)}
    out["int32-bias"] = model([*start(), *bias, ("Conv", ["t", "w", "b"], ["y"], {})], bias_weights), "orin-jp6"
    loose = [*start(), (*CONV[:2], ["c"], {}), ("Cast", ["w8"], ["wf"], {"to": FLOAT}), ("Add", ["c", "wf"], ["y"], {})]
    out["loose-constant"] = model(loose, {"w": WEIGHT, "w8": np.ones((1, 4, 1, 1), np.int8)}), "orin-jp6"
    shifted = [*start(), *quantized("t"), ("Conv", ["td", "w"], ["y"], {})]
    out["symmetric-int8"] = model(shifted, {"w": WEIGHT, "s": SCALE, "z": np.int8(3)}), "orin-jp6"
    between = [*start(), (*CONV[:2], ["c"], {}), *quantized("c"), ("Relu", ["cd"], ["y"], {})]
    out["pair-before-relu"] = model(between, {"w": WEIGHT, "s": SCALE, "z": ZERO}), "orin-jp6"
    up = [*start(), *quantized("t"), ("ConvTranspose", ["td", "w"], ["y"], {})]
    out["quantized-deconvolution"] = model(up, {"w": WEIGHT.transpose(1, 0, 2, 3).copy(), "s": SCALE, "z": ZERO}), "orin-jp6"
    decide = [*start(HALF), ("Conv", ["t", "w"], ["c"], {}), ("Greater", ["c", "m"], ["g"], {}), ("Cast", ["g"], ["y"], {"to": FLOAT})]
    out["fp32-decisions"] = model(decide, {"w": WEIGHT.astype(np.float16), "m": np.float16(0.5)}), "orin-jp6"
    small = [*start(HALF), *quantized("t"), ("Conv", ["td", "w"], ["c"], {}), ("Cast", ["c"], ["y"], {"to": FLOAT})]
    out["subnormal-scale"] = model(small, {"w": WEIGHT.astype(np.float16), "s": np.float16(2e-5), "z": ZERO}), "orin-jp6"
    huge = [*start(HALF), ("Conv", ["t", "w"], ["c"], {}), ("Cast", ["c"], ["y"], {"to": FLOAT})]
    out["fp16-range"] = model(huge, {"w": np.full((4, 3, 1, 1), 65504, np.float16)}), "orin-jp6"
    eight = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    out["fp8-hardware"] = model(shifted, {"w": WEIGHT, "s": SCALE, "z": eight}), "orin-jp6"
    wide = ("image", UINT8, [1, None, 8, 3])
    out["static-shapes"] = model([*start(), CONV], {"w": WEIGHT}, image=wide, output=("y", FLOAT, [1, 4, 8, 8])), "orin-jp6"
    data = [*start(), ("NonZero", ["t"], ["k"], {}), ("Cast", ["k"], ["y"], {"to": FLOAT})]
    out["data-dependent"] = model(data, {}, output=("y", FLOAT, [4, 9])), "orin-jp6"
    early = [("Transpose", ["image"], ["u"], {"perm": [0, 3, 1, 2]}), ("Cast", ["u"], ["t"], {"to": FLOAT}), CONV]
    out["uint8-into-cast"] = model(early, {"w": WEIGHT}), "orin-jp6"
    inside = [*start(), ("Conv", ["t", "w"], ["c"], {}), ("Cast", ["c"], ["u"], {"to": UINT8}), ("Cast", ["u"], ["y"], {"to": FLOAT})]
    out["uint8-inside"] = model(inside, {"w": WEIGHT}), "orin-jp6"
    return out


@pytest.mark.parametrize("rule", [r.name for r in RULES])
def test_a_graph_that_breaks_one_rule_is_told_so_and_how_to_fix_it(rule):
    data, device = broken()[rule]
    found = lint(data, target(device))
    assert {f.rule for f in found} == {rule}, found
    finding = found[0]
    assert finding.where
    assert finding.problem
    assert finding.fix
    assert finding.fix in str(finding)
    assert finding.severity == next(r.severity for r in RULES if r.name == rule)


def test_a_good_graph_breaks_none():
    assert lint(model([*start(), CONV], {"w": WEIGHT}), target("orin-jp6")) == []


@pytest.fixture(scope="module")
def road():
    bundle = Bundle.open(ROAD)
    frames = [RoadScene(k, bundle.frame_height, bundle.frame_width).render(0)[0][None] for k in range(4)]
    encode = graph_function(bundle.graph("encoder"))
    symbols = [encode(f) for f in frames]
    inputs = {"encoder": frames, "head_segmentation": symbols, "decoder": symbols}
    return bundle, {g: measure(plain(bundle.graph(g)), x) for g, x in inputs.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_made_for_a_target_passes_there(road, precision):
    bundle, ranges = road
    for graph in ranges:
        made = make_explicit(bound_graph(bundle, graph), Plan(precision), ranges[graph])
        assert lint(made.data, target("rtx-ada")) == []


def test_the_cpu_form_is_for_the_cpu(road):
    bundle, ranges = road
    made = make_explicit(bundle.graph("encoder"), Plan("int8", activations="uint8"), ranges["encoder"])
    assert lint(made.data, target("host")) == []
    assert {f.rule for f in lint(made.data, target("orin-jp6"))} >= {"int32-bias", "symmetric-int8"}


def test_foreign_domains_are_found():
    made = ModelProto.FromString(broken()["static-shapes"][0])
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "opset-window" in {f.rule for f in lint(made.SerializeToString(), target("host"))}
