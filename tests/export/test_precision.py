"""Explicit precision: what the graph says, what it computes, and what a calibration set must be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the export extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from percodec.export.engines.build import Calibration, default_graphs, explicit_graph, plan_for, source_graph
from percodec.export.engines.calibrate import Ranges, judge, measure
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.onnx_graph import ends, fused, label, matching, parse, plain, serialized
from percodec.export.engines.precision import PRECISIONS, Plan, convolutions, layers, make_explicit
from percodec.export.engines.sensitivity import keep_list, sensitivity
from percodec.export.engines.tensorrt import any_batch
from percodec.runtime.engines.onnxruntime import open_session
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import DataError, ExportError, UsageError
from percodec.sdk.synthetic.road import RoadScene
from percodec.sdk.targets import target

ROAD = Path(__file__).resolve().parents[2] / "benchmarks" / "bundles" / "road-edge"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "road-edge"  # a copy: ranges are kept in the bundle
    shutil.copytree(ROAD, folder, ignore=shutil.ignore_patterns("engines"))
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def frames(bundle):
    return [RoadScene(40 + k, bundle.frame_height, bundle.frame_width).render(5 * k)[0] for k in range(6)]


@pytest.fixture(scope="module")
def calibration(bundle, frames):
    return Calibration(bundle, frames)


def ranges_of(bundle, calibration, graph):
    return measure(plain(source_graph(bundle, graph)), calibration.inputs(graph))


@pytest.fixture(scope="module")
def ranges(bundle, calibration):
    return {g: ranges_of(bundle, calibration, g) for g in (*default_graphs(bundle), "encoder+head_segmentation")}


COUNTS = {"encoder": (9, 2), "decoder": (15, 1), "head_segmentation": (22, 1), "encoder+head_segmentation": (31, 3)}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", COUNTS)
def test_every_convolution_has_the_type_that_was_asked_for(bundle, ranges, graph, precision):
    every, ends_ = COUNTS[graph]
    made = make_explicit(source_graph(bundle, graph), Plan(precision), ranges[graph])
    kind, _, rest = precision.partition("+")
    wanted = {kind: every} if kind in ("fp32", "fp16") else {kind: every - ends_, rest or "fp32": ends_}
    assert made.report["convolutions"] == wanted


@pytest.mark.parametrize(
    ("precision", "activations", "symbols", "labels"),
    [
        ("fp32", "int8", 0, 0),
        ("fp16", "int8", 1e-3, 2e-3),
        ("int8", "int8", 0.04, 0.02),
        ("int8", "uint8", 0.04, 0.02),
        ("int8+fp16", "int8", 0.04, 0.02),
    ],
)
def test_results_stay_close_to_fp32(bundle, frames, calibration, ranges, precision, activations, symbols, labels):
    for graph, limit in (("encoder", symbols), ("head_segmentation", labels)):
        inputs = calibration.inputs(graph)[:2]
        plan = Plan(precision, activations=activations)
        made = make_explicit(bundle.graph(graph), plan, ranges[graph]).data
        exact = graph_function(bundle.graph(graph), optimize=False)
        for reference in (True, False):
            run = graph_function(made, optimize=not reference)
            assert np.mean([(run(x) != exact(x)).mean() for x in inputs]) <= limit


def test_decisions_stay_in_fp32(bundle, ranges):
    for graph in COUNTS:
        model = parse(make_explicit(source_graph(bundle, graph), Plan("int8+fp16"), ranges[graph]).data)
        types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        types |= {t.name: t.data_type for t in model.graph.initializer}
        deciding = [n for n in model.graph.node if n.op_type in ("Greater", "ArgMax", "Round")]
        deciding += [n for n in model.graph.node if n.op_type == "Gather"]
        assert deciding
        for node in deciding:
            assert types[node.input[0]] == TensorProto.FLOAT, node.name


def test_every_weight_is_cast_once(bundle):
    made = parse(make_explicit(bundle.graph("head_segmentation"), Plan("fp16")).data)
    names = [t.name for t in made.graph.initializer]
    assert len(names) == len(set(names))
    assert not any(n.op_type == "Cast" and n.input[0] in names for n in made.graph.node)


def test_kept_layers_stay_fp32_and_a_pattern_must_find_something(bundle, ranges):
    plan = Plan("int8+fp16", keep=(r"stage16\.0",))
    made = make_explicit(bundle.graph("head_segmentation"), plan, ranges["head_segmentation"])
    assert made.report["convolutions"] == {"int8": 18, "fp16": 1, "fp32": 3}
    with pytest.raises(ExportError, match=r"matches no node and no weight; the convolutions are head\.stem"):
        make_explicit(bundle.graph("head_segmentation"), Plan("fp16", keep=("nothing_like_this",)))
    with pytest.raises(ExportError, match="is not a regular expression"):
        make_explicit(bundle.graph("head_segmentation"), Plan("fp16", keep=("(",)))


def test_asking_for_int8_and_getting_none_is_an_error(bundle, ranges):
    with pytest.raises(ExportError, match="nothing could be quantized"):
        make_explicit(bundle.graph("encoder"), Plan("int8", keep=(".*",)), ranges["encoder"])
    with pytest.raises(ExportError, match="needs ranges"):
        make_explicit(bundle.graph("encoder"), Plan("int8"))
    with pytest.raises(UsageError, match="fp32, fp16, int8"):
        Plan("int4")


def test_the_fused_graph_is_both_graphs(bundle, frames):
    both = open_session(fused(bundle.graph("encoder"), bundle.graph("head_segmentation")))
    encode, predict = graph_function(bundle.graph("encoder")), graph_function(bundle.graph("head_segmentation"))
    x = frames[0][None]
    symbols, labels = both.run(None, {"image": x})
    np.testing.assert_array_equal(symbols, encode(x))
    np.testing.assert_array_equal(labels, predict(symbols))
    with pytest.raises(ExportError, match="wants an encoder"):
        fused(bundle.graph("decoder"), bundle.graph("head_segmentation"))


def test_any_batch_computes_what_one_does(bundle, frames):
    encode = graph_function(serialized(any_batch(parse(bundle.graph("encoder")))))
    predict = graph_function(serialized(any_batch(parse(bundle.graph("head_segmentation")))))
    one = graph_function(bundle.graph("encoder"))
    symbols = encode(np.stack(frames[:3]))
    np.testing.assert_array_equal(symbols, np.concatenate([one(f[None]) for f in frames[:3]]))
    assert predict(symbols).shape == (3, bundle.frame_height, bundle.frame_width)


def tiny(weight_scale: float = 1.0, norm: bool = False) -> onnx.ModelProto:
    """uint8 picture -> Cast -> Conv (-> BatchNormalization) -> Relu -> Conv -> Relu -> Conv."""
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, weight_scale, s).astype(np.float32) for s in ((8, 3, 3, 3), (8, 8, 3, 3), (4, 8, 1, 1))]
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w0"], ["a"], pads=[1] * 4),
    ]
    extra = []
    if norm:
        nodes.append(helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["an"], epsilon=1e-3))
        values = {"s": rng.uniform(0.5, 2, 8), "b": rng.normal(0, 1, 8), "m": rng.normal(0, 1, 8), "v": rng.uniform(0.1, 3, 8)}
        extra = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()]
    nodes += [
        helper.make_node("Relu", ["an" if norm else "a"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 16, 16, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 16, 16])],
        [*(numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)), *extra],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_batch_norm_is_folded_in_fp32():
    model = tiny(norm=True)
    x = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    folded = plain(serialized(model))
    assert not any(n.op_type == "BatchNormalization" for n in folded.graph.node)
    np.testing.assert_allclose(graph_function(serialized(folded))(x), graph_function(serialized(model))(x), rtol=1e-4, atol=1e-3)


def test_weights_past_fp16_are_counted_and_scales_never_subnormal():
    big = make_explicit(serialized(tiny(weight_scale=6e4)), Plan("fp16"))
    assert big.report["fp16_overflow"] > 0
    small = tiny(weight_scale=1e-6)
    x = [np.random.default_rng(k).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for k in range(4)]
    made = parse(make_explicit(serialized(small), Plan("int8+fp16"), measure(plain(serialized(small)), x)).data)
    scales = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name.endswith(("scale", "scale_fp16"))]
    assert scales
    assert all(np.abs(s.astype(np.float32)).min() >= 2.0**-14 for s in scales)


def test_other_opsets_are_refused():
    model = tiny()
    model.opset_import[0].version = 17
    with pytest.raises(ExportError, match="opset 17: explicit precision needs 19 or 20"):
        make_explicit(serialized(model), Plan("fp16"))
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        make_explicit(b"not onnx", Plan("fp16"))


def test_ends_and_labels(bundle):
    model = plain(bundle.graph("encoder"))
    first, deciding = ends(model)
    nodes = {n.name: n for n in model.graph.node}
    assert [label(nodes[n], model) for n in first] == ["codec.g_a.0.0"]
    assert [label(nodes[n], model) for n in deciding] == ["codec.g_a.6.0"]
    first, deciding = ends(plain(bundle.graph("head_segmentation")))
    assert not first, "latents are exact: the head's first convolution may be quantized"
    assert len(deciding) == 1
    assert matching(model, [r"g_a\.0\.0\.weight$"])


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_every_calibration_method_gives_ranges_inside_the_extremes(method):
    model = plain(serialized(tiny()))
    x = [np.random.default_rng(k).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for k in range(6)]
    widest, found = measure(model, x), measure(model, x, method)
    for name, (low, high) in found.limits.items():
        assert low < high
        outer = max(map(abs, widest.limits[name]))
        assert max(abs(low), abs(high)) <= outer * 1.001
    if method == "percentile":
        assert found.limits != widest.limits


def test_ranges_are_kept_and_used_without_frames(tmp_path):
    model, x = plain(serialized(tiny())), [np.full((1, 16, 16, 3), 40 * k, np.uint8) for k in range(1, 5)]
    cache = tmp_path / "deep" / "ranges.json"
    first = measure(model, x, cache=cache)
    assert not cache.exists(), "whoever measures says whether they are kept"
    first.save(cache)
    assert measure(model, [], cache=cache) == first
    assert Ranges.load(cache) == first
    other = [v + 1 for v in x]
    assert measure(model, other, cache=cache).frames_sha256 != first.frames_sha256, "other frames are measured anew"
    assert measure(plain(serialized(tiny(norm=True))), x, cache=cache).graph_sha256 != first.graph_sha256
    cache.write_text("{ broken")
    with pytest.raises(DataError, match="calibration set is empty and no ranges are kept"):
        measure(model, [], cache=cache)
    with pytest.raises(DataError, match="minmax, percentile, entropy"):
        measure(model, x, "guess")


def test_a_calibration_set_is_judged(frames, bundle):
    h, w = bundle.frame_height, bundle.frame_width
    with pytest.raises(DataError, match="is empty: give at least 4 frames of 480x360"):
        judge([], h, w)
    with pytest.raises(DataError, match=r"has 2 frame\(s\), at least 4 are needed"):
        judge(frames[:2], h, w)
    with pytest.raises(DataError, match="calibration frame 0 is uint8 180x480x3, the bundle wants uint8 360x480x3"):
        judge([f[:180] for f in frames], h, w)
    with pytest.raises(DataError, match="every calibration frame is black"):
        judge([np.zeros_like(f) for f in frames], h, w)
    with pytest.raises(DataError, match="every calibration frame is of one colour"):
        judge([np.full_like(f, 90) for f in frames], h, w)
    assert "6 calibration frames are few" in judge(frames, h, w)[0]
    assert "1 of 6 calibration frames show nothing" in judge([*frames[:5], np.zeros_like(frames[0])], h, w)[0]
    assert judge(frames * 3, h, w) == []


def test_few_frames_are_warned_of_with_what_they_miss(bundle, frames):
    said = []
    Calibration(bundle, frames, say=said.append).ranges("encoder")
    assert any("6 calibration frames are few" in s for s in said)
    assert any(re.search(r"encoder: every second frame alone gives ranges \d+\.\d% narrower", s) for s in said)


def test_a_narrow_calibration_set_costs_what_it_is_said_to_cost(bundle, frames, ranges):
    """Frames almost without contrast give narrow ranges: the measured consequence is symbols that differ."""
    dark = Calibration(bundle, [(120 + (f.astype(int) - 120) // 40).astype(np.uint8) for f in frames])
    narrow = make_explicit(bundle.graph("encoder"), Plan("int8"), ranges_of(bundle, dark, "encoder")).data
    good = make_explicit(bundle.graph("encoder"), Plan("int8"), ranges["encoder"]).data
    exact = graph_function(bundle.graph("encoder"))

    def differ(data):
        run = graph_function(data)
        return np.mean([(run(f[None]) != exact(f[None])).mean() for f in frames[:2]])

    assert differ(narrow) > 3 * differ(good)


def test_the_costliest_layer_is_found_and_kept():
    """One convolution with a wild channel: quantized per tensor activations cannot serve it, and sensitivity must say so."""
    model = tiny()
    for tensor in model.graph.initializer:
        if tensor.name == "w0":
            wild = numpy_helper.to_array(tensor).copy()
            wild[0] *= 3000
            tensor.CopyFrom(numpy_helper.from_array(wild, "w0"))
    data = serialized(model)
    assert [n for n, _ in layers(data)], "something to quantize"
    x = [np.random.default_rng(k).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8) for k in range(4)]
    found = sensitivity(data, Plan("int8"), measure(plain(data), x), x)
    assert [set(r) for r in found] == [{"layer", "node", "damage"}] * len(found)
    assert found == sorted(found, key=lambda r: -r["damage"])
    with pytest.raises(ExportError, match="cannot keep the difference"):
        keep_list(data, Plan("int8"), measure(plain(data), x), x, limit=0.0)


def test_a_keep_list_meets_its_limit(bundle, calibration, ranges):
    inputs = calibration.inputs("head_segmentation")[:2]
    data = bundle.graph("head_segmentation")
    assert keep_list(data, Plan("int8"), ranges["head_segmentation"], inputs, limit=0.5)[0] == []


def test_precisions_of_a_target(bundle, calibration):
    assert plan_for(target("host"), "int8").activations == "uint8"
    assert plan_for(target("orin-jp6"), "int8").activations == "int8"
    with pytest.raises(UsageError, match=r"orin-jp6 .* runs fp32, fp16, int8, int8\+fp16, not fp8\+fp16"):
        plan_for(target("orin-jp6"), "fp8+fp16")
    assert convolutions(parse(explicit_graph(bundle, "encoder", plan_for(target("host"), "fp16"), calibration).data)) == {"fp16": 9}
