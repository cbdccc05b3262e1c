"""Real TensorRT-RTX engines, built here without a GPU: what was asked for is what the layer table shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the export extra")
pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (x86-64)")

import shutil

from percodec.export.engines import tensorrt as tensorrt_module
from percodec.export.engines.build import Calibration, build_graph, explicit_graph, plan_for
from percodec.export.engines.free_shapes import bound
from percodec.export.engines.layer_table import histogram, layers_from_inspector, layers_from_log
from percodec.export.engines.precision import Plan
from percodec.export.engines.tensorrt import build_engine, load_flavour
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import engines_in, read_engine
from percodec.sdk.cli import main
from percodec.sdk.errors import BackendError, EngineError, ExportError
from percodec.sdk.synthetic.road import RoadScene
from percodec.sdk.targets import target

ROAD = Path(__file__).resolve().parents[2] / "benchmarks" / "bundles" / "road-edge"
ADA = target("rtx-ada")
# Convolutions: all, and those that stay in the wider type. The segmentation head's two on a 1x1 picture become pointwise kernels.
COUNTS = {"encoder": (9, 2, 0), "decoder": (15, 1, 0), "head_segmentation": (22, 1, 2), "encoder+head_segmentation": (31, 3, 2)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "road-edge"
    shutil.copytree(ROAD, folder, ignore=shutil.ignore_patterns("engines"))
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def calibration(bundle):
    return Calibration(bundle, [RoadScene(k, bundle.frame_height, bundle.frame_width).render(3 * k)[0] for k in range(4)])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8+fp16"])
@pytest.mark.parametrize("graph", COUNTS)
def test_engines_compute_in_the_type_that_was_asked_for(bundle, calibration, graph, precision):
    every, wide, pointwise = COUNTS[graph]
    row = build_graph(bundle, graph, ADA, plan_for(ADA, precision), calibration)
    kind, _, rest = precision.partition("+")
    if kind == "int8":
        assert row["convolutions"] == {"int8": every - wide, rest or "fp32": wide}
    else:
        assert row["convolutions"] == {kind: every - pointwise}
    data, report = read_engine(bundle, "rtx-ada", precision, graph, {"flavour": "tensorrt_rtx", "capability": "8.9"})
    assert len(data) == report["engine_bytes"] > 100_000
    assert report["io"][0]["dtype"] == "uint8"
    assert report["layers"][0]["name"]


def test_classification_heads_build(tmp_path):
    torch = pytest.importorskip("torch")
    from percodec.export.engines.calibrate import measure
    from percodec.export.engines.onnx_graph import plain
    from percodec.export.engines.precision import make_explicit
    from percodec.export.models import AUTOENCODERS, build_head
    from percodec.export.models.to_onnx import Head, graphs
    from percodec.export.train.config import DEFAULTS

    torch.manual_seed(0)
    codec, head = (
        AUTOENCODERS["edge"](8, 6, 1.0),
        build_head({**DEFAULTS["head"], "name": "cresnet39", "classes": 11, "width": 0.25}, 8).eval(),
    )
    made = graphs(codec.eval(), {"head_classification": Head(head, "classification", several=True)}, 224, 224)["head_classification"][1]
    made = bound(made, {"symbols": (1, 8, 28, 28), "probs": (1, 11)})
    symbols = [torch.randint(0, 6, (1, 8, 28, 28), dtype=torch.uint8).numpy() for _ in range(4)]
    ranges = measure(plain(made), symbols)
    for precision in ("fp16", "int8+fp16"):
        explicit = make_explicit(made, Plan(precision), ranges)
        counts = histogram(list(build_engine(explicit.data, ADA, precision).layers))
        kind = precision.partition("+")[0]
        assert counts[kind] >= 35, counts


def test_only_who_builds_into_a_bundle_writes_there(bundle, calibration, tmp_path):
    folder = shutil.copytree(bundle.path, tmp_path / "foreign", ignore=shutil.ignore_patterns("engines"))
    said = []
    measured = Calibration(Bundle.open(folder), calibration.frames).ranges("encoder")
    assert not (folder / "engines").exists()
    (folder / "engines").write_text("in the way, for root writes into read-only folders")
    assert Calibration(Bundle.open(folder), calibration.frames, say=said.append, keep=True).ranges("encoder") == measured
    assert any("the ranges of encoder are not kept" in text for text in said)
    (folder / "engines").unlink()
    Calibration(Bundle.open(folder), calibration.frames, keep=True).ranges("encoder")
    assert Calibration(Bundle.open(folder)).ranges("encoder") == measured, "kept, and used without frames"


def test_fp8_builds_where_there_is_fp8(bundle, calibration):
    row = build_graph(bundle, "encoder", ADA, plan_for(ADA, "fp8+fp16"), calibration)
    assert row["convolutions"] == {"fp8": 7, "fp16": 2}
    explicit = explicit_graph(bundle, "encoder", Plan("fp8+fp16"), calibration)
    with pytest.raises(ExportError, match=r"cannot build this graph for rtx-ampere: .*sm86"):
        build_engine(explicit.data, target("rtx-ampere"), "fp8+fp16")


def test_a_profile_per_batch(bundle, calibration):
    explicit = explicit_graph(bundle, "head_segmentation", Plan("fp16"), calibration)
    built = build_engine(explicit.data, ADA, "fp16", batches=(1, 4))
    assert built.profiles == ("symbols 1x16x45x60", "symbols 4x16x45x60")
    assert histogram(list(built.layers))["fp16"] >= 20


def test_asked_for_int8_and_got_none(bundle, calibration):
    explicit = explicit_graph(bundle, "encoder", Plan("fp16"), calibration)
    with pytest.raises(ExportError, match="int8 was asked for and tensorrt_rtx built no INT8 convolution"):
        build_engine(explicit.data, ADA, "int8")


def test_graphs_that_the_parser_refuses_say_why(bundle, calibration):
    explicit = explicit_graph(bundle, "encoder", Plan("int8", activations="uint8"), calibration)
    with pytest.raises(ExportError, match=r"parser refuses the graph.*Int32"):
        build_engine(explicit.data, ADA, "int8")
    with pytest.raises(ExportError, match=r"breaks .* rule.*int32-bias"):
        build_graph(bundle, "encoder", ADA, Plan("int8", activations="uint8"), calibration)


def test_progress_is_told_and_can_stop_a_build(bundle, calibration):
    explicit = explicit_graph(bundle, "encoder", Plan("fp16"), calibration).data
    steps = []
    build_engine(explicit, ADA, "fp16", progress=lambda phase, done, of: steps.append((phase, done, of)) is None)
    assert len(steps) > 10
    assert all(0 < done <= of for _, done, of in steps)
    with pytest.raises(ExportError):
        build_engine(explicit, ADA, "fp16", progress=lambda phase, done, of: False)


def test_flavours_that_are_not_here_say_how_to_get_them(bundle, calibration, monkeypatch):
    with pytest.raises(BackendError, match="builds no engines; there are tensorrt, tensorrt_rtx"):
        load_flavour("ort")

    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(tensorrt_module.importlib, "import_module", absent)
    with pytest.raises(BackendError, match=r"on a Jetson it comes with JetPack .*--system-site-packages"):
        load_flavour("tensorrt")
    old = type("old", (), {"__version__": "8.6.1", "NetworkDefinitionCreationFlag": type("F", (), {"EXPLICIT_BATCH": 0})})
    monkeypatch.setattr(tensorrt_module.importlib, "import_module", lambda name: old)
    with pytest.raises(BackendError, match=r"tensorrt 8\.6\.1 has no strongly typed networks: TensorRT 10\.3"):
        load_flavour("tensorrt")


def test_engines_of_another_machine_or_bundle_never_load(bundle, calibration, tmp_path):
    build_graph(bundle, "encoder", ADA, plan_for(ADA, "fp16"), calibration)
    here = {"flavour": "tensorrt_rtx", "capability": "8.9"}
    with pytest.raises(EngineError, match=r"capability '12\.0' here, '8\.9' in the engine; build it here: percodec build"):
        read_engine(bundle, "rtx-ada", "fp16", "encoder", {**here, "capability": "12.0"})
    other = tmp_path / "other"
    shutil.copytree(bundle.path, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["name"] = "other"
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"bundle [0-9a-f]{12}\.\.\. here, [0-9a-f]{12}\.\.\. in the engine"):
        read_engine(Bundle.open(other), "rtx-ada", "fp16", "encoder", here)


INSPECTOR_10 = {
    "Layers": [
        {"Name": "cast", "LayerType": "Reformat", "Inputs": [{"Name": "image", "Format/Datatype": "Row major linear UINT8 format"}]},
        {
            "Name": "c1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
        },
        {"Name": "c2", "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format"}]},
    ]
}
INSPECTOR_11 = {
    "Layers": [
        {"Name": "c1", "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", "Format": "NC/32HW32", "Datatype": "Int8"}]},
        {"Name": "{ForeignNode[dla]}", "LayerType": "DLA", "Inputs": [{"Name": "x", "Format": "CHW16", "Datatype": "Half"}]},
    ]
}


def test_the_inspector_is_read_in_both_dialects():
    assert histogram(layers_from_inspector(json.dumps(INSPECTOR_10))) == {"int8": 1, "fp16": 1, "layers": 3}
    eleven = layers_from_inspector(json.dumps(INSPECTOR_11))
    assert [layer.computes for layer in eleven] == ["int8", "fp16"]
    assert [layer.dla for layer in eleven] == [False, True]
    for wrong in ("", "{}", json.dumps({"Layers": ["names only"]})):
        with pytest.raises(ExportError, match="DETAILED profiling verbosity"):
            layers_from_inspector(wrong)
    with pytest.raises(ExportError, match="no layer table"):
        layers_from_log(["nothing"])
    with pytest.raises(ExportError, match="cannot be read: Name: what"):
        layers_from_log(["Layers:\nName: what is this"])


def test_build_and_verify_from_the_command_line(bundle, tmp_path, capsys):
    scenes = "synthetic:6:3"
    assert main(["build", str(bundle.path), "--target", "host", "--precision", "int8", "--calibrate", scenes, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["convolutions"]["int8"] for r in rows] == [7, 14, 21]
    assert ("host-int8", "encoder") in engines_in(bundle.path)
    assert main(["build", str(bundle.path), "--target", "orin-jp6", "--precision", "int8", "--dry-run", "--onnx-out", str(tmp_path)]) == 0
    assert "int8 7" in capsys.readouterr().out
    assert (tmp_path / "encoder-orin-jp6-int8.onnx").stat().st_size > 100_000
    command = ["verify", str(bundle.path), "--data", scenes, "--limit", "2", "--out", str(tmp_path / "report")]
    assert main([*command, "--precision", "fp16", "--precision", "int8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [(r["precision"], r["session"]) for r in result["rows"]] == [(p, s) for p in ("fp16", "int8") for s in ("reference", "fast")]
    assert all(r["verdict"] == "ok" for r in result["rows"])
    assert (tmp_path / "report" / "verify.png").read_bytes()[:4] == b"\x89PNG"
    assert "miou" in (tmp_path / "report" / "verify.html").read_text().lower()
    assert main(["verify", str(bundle.path), "--data", scenes, "--limit", "4", "--sensitivity", "int8", "--graph", "encoder"]) == 0
    assert "codec.g_a.1.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "nope"], "target 'nope' is not known; there are host, orin-jp6"),
        (["--precision", "int9"], "runs fp32, fp16, int8, not int9"),
        (["--graph", "encode"], "'encode' is no graph of road-edge"),
        (["--precision", "int8", "--method", "entropy"], "calibration set is empty"),
        (["--precision", "int8", "--calibrate", "synthetic:2:1"], "at least 4 are needed"),
        (["--precision", "int8", "--calibrate", "folder:/nowhere"], "/nowhere"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--frames", "0", "--calibrate", "synthetic:6:1"], "at least 1 frame"),
    ],
)
def test_bad_words_are_refused_with_the_reason(bundle, capsys, words, message):
    assert main(["build", str(bundle.path), *words]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_limit_that_is_broken_is_an_exit_code(bundle, tmp_path, capsys):
    strict = tmp_path / "strict"
    shutil.copytree(bundle.path, strict, ignore=shutil.ignore_patterns("engines"))
    manifest = json.loads((strict / "manifest.json").read_text())
    manifest["metrics"]["limits"] = {"int8": {"symbols_differ": 1e-6}}
    (strict / "manifest.json").write_text(json.dumps(manifest))
    words = ["--data", "synthetic:5:3", "--calibrate", "synthetic:5:3", "--limit", "1", "--precision", "int8"]
    assert main(["verify", str(strict), *words]) == 1
    assert "symbols_differ" in capsys.readouterr().out
