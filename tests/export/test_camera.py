"""Camera graphs against what cv2 makes on the CPU: same geometry, same colours, at most one level apart, computed by ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the export extra")
pytest.importorskip("onnxruntime", reason="needs the ort extra")
pytest.importorskip("cv2", reason="needs the ort extra")

from percodec.export.engines.build import source_graph
from percodec.export.engines.camera_graph import camera_graph
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.lint import lint
from percodec.export.engines.onnx_graph import parse
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import engines_in, read_engine
from percodec.sdk.bundle.onnx_ops import check_graph
from percodec.sdk.camera import FORMATS, CameraFormat
from percodec.sdk.cli import main
from percodec.sdk.errors import EngineError, UsageError
from percodec.sdk.fit import FITS
from percodec.sdk.targets import TARGETS, target
from percodec.sdk.types import Frame

ROAD = Path(__file__).resolve().parents[2] / "benchmarks" / "bundles" / "road-edge"
FRAME = (72, 96)
AVERAGED = {"by-a-fraction": (150, 202), "by-3-and-10/3": (216, 320), "by-2": (144, 192), "by-3x4": (216, 384), "upright": (400, 130)}
GROWN = {"grows": (48, 64), "grows-by-2": (36, 48), "one-axis-grows": (30, 400)}
SIZES = {**AVERAGED, **GROWN, "same": FRAME}
# Measured with OpenCV 4.11 and 5.0: averages differ in ties only, 0.07 % of all values at most, 1.1 % at 10/3, where ties are frequent;
# where a picture grows, 14 % at most, as cv2 rounds between the axes.
EQUAL = {**dict.fromkeys(AVERAGED, 0.998), "by-3-and-10/3": 0.98, **dict.fromkeys(GROWN, 0.8), "same": 1.0}


def pictures(height, width):
    """RGB: noise, a gradient to every corner, waves that reach both ends of the scale."""
    y, x = np.mgrid[:height, :width]
    yield np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    yield np.stack([x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (width + height - 2)], -1).astype(np.uint8)
    waves = 127.5 + 130 * np.sin(x / 17 + y / 23)[..., None] * np.array([1, 0.7, -0.9])
    yield waves.clip(0, 255).astype(np.uint8)


def raw_of(kind, rgb):
    """The picture as a camera of this kind gives it: YUV by textbook, colour of every pixel group's first pixel."""
    if kind in ("rgb", "bgr"):
        return np.ascontiguousarray(rgb if kind == "rgb" else rgb[..., ::-1])
    matrix = np.array([[65.738, 129.057, 25.064], [-37.945, -74.494, 112.439], [112.439, -94.154, -18.285]]) / 256
    yuv = np.rint(rgb @ matrix.T + (16, 128, 128)).astype(np.uint8)
    height, width = rgb.shape[:2]
    if kind == "nv12":
        return np.concatenate([yuv[..., 0], yuv[::2, ::2, 1:].reshape(height // 2, width)])
    shared = yuv[:, ::2, 1:].reshape(height, width)
    return np.stack([yuv[..., 0], shared], -1)


def by_cv2(kind, raw, fit, frame=FRAME):
    out = np.full((*frame, 3), 7, np.uint8)
    Preprocessor(*frame, fit)(Frame(raw, 0, 0, FORMATS[kind]), out)
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", FORMATS)
def test_the_graph_makes_what_cv2_makes(kind, fit, size):
    height, width = SIZES[size]
    run = graph_function(camera_graph(kind, height, width, *FRAME, fit))
    for rgb in pictures(height, width):
        raw = raw_of(kind, rgb)
        made, wanted = run(raw[None])[0], by_cv2(kind, raw, fit)
        assert made.dtype == np.uint8
        assert made.shape == wanted.shape
        apart = np.abs(made.astype(int) - wanted)
        assert apart.max() <= 1
        assert (apart == 0).mean() >= EQUAL[size]


@pytest.mark.parametrize("kind", ["nv12", "yuyv"])
def test_bytes_that_are_no_colour_are_clipped_like_cv2_does(kind):
    """Random Y, U and V: most lie outside RGB's cube, so what is averaged must have been clipped before."""
    height, width = SIZES["by-3x4"]
    camera = CameraFormat(kind, height, width)
    raw = np.random.default_rng(1).integers(0, 256, camera.shape, dtype=np.uint8)
    made, wanted = graph_function(camera_graph(kind, height, width, *FRAME, "stretch"))(raw[None])[0], by_cv2(kind, raw, "stretch")
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert (made == wanted).mean() > 0.999
    exact = camera_graph(kind, *FRAME, *FRAME, "stretch")
    raw = np.random.default_rng(2).integers(0, 256, CameraFormat(kind, *FRAME).shape, dtype=np.uint8)
    np.testing.assert_array_equal(graph_function(exact)(raw[None])[0], by_cv2(kind, raw, "stretch"))


def test_colours_are_the_textbook_s():
    """Against BT.601's definition, not against cv2: white, black, red, green, blue in limited range."""
    y, u, v = np.array([[235, 128, 128], [16, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110]], np.uint8).T
    raw = np.empty((16, 32, 2), np.uint8)
    for k in range(5):
        raw[:, 6 * k : 6 * k + 6, 0] = y[k]
        raw[:, 6 * k : 6 * k + 6 : 2, 1], raw[:, 6 * k + 1 : 6 * k + 6 : 2, 1] = u[k], v[k]
    raw[:, 30:] = 128
    made = graph_function(camera_graph("yuyv", 16, 32, 16, 32, "stretch"))(raw[None])[0, 8, 3:30:6]
    assert np.abs(made.astype(int) - [[255] * 3, [0] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]]).max() <= 2


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_target_takes_the_graph(kind, size):
    data = camera_graph(kind, *size, *FRAME, "letterbox")
    check_graph(data, "camera.onnx")
    for device in TARGETS.values():
        assert lint(data, device) == []
    assert data == camera_graph(kind, *size, *FRAME, "letterbox")


def macs(data: bytes) -> int:
    """Multiplications of the MatMuls, by the sizes of their constants and of the network's input."""
    from onnx import numpy_helper, shape_inference

    model = shape_inference.infer_shapes(parse(data))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    total = 0
    for node in model.graph.node:
        if node.op_type == "MatMul":
            first, second = (list(constants[i].shape) if i in constants else shapes[i] for i in node.input)
            total += int(np.prod(shapes[node.output[0]])) * first[-1]
            assert first[-1] == second[-2]
    return total


def test_common_sizes_cost_next_to_nothing():
    """Blocks that repeat are what makes it cheap: whole matrices would take 3.2 billion for the first."""
    assert macs(camera_graph("nv12", 1080, 1920, 360, 480, "stretch")) == 3 * (1080 * 480 * 4 + 360 * 480 * 3)
    assert macs(camera_graph("nv12", 720, 1280, 360, 480, "letterbox")) < 30e6
    assert macs(camera_graph("bgr", 1208, 1928, 360, 480, "stretch")) < 1e9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nv12", "write FORMAT:WIDTHxHEIGHT"),
        ("nv12:1920", "write FORMAT:WIDTHxHEIGHT"),
        ("nv12:1920x1080x3", "write FORMAT:WIDTHxHEIGHT"),
        ("nv12:-640x480", "write FORMAT:WIDTHxHEIGHT"),
        ("", "write FORMAT:WIDTHxHEIGHT"),
        ("i420:640x480", "'i420' is not known; there are nv12, yuyv, bgr, rgb"),
        ("nv12:8x480", "camera width must be from 16 to 8192, got 8"),
        ("bgr:640x9000", "camera height must be from 16 to 8192, got 9000"),
        ("nv12:640x481", "nv12 has an even height, got 640x481"),
        ("nv12:641x481", "nv12 has an even height and width"),
        ("yuyv:641x480", "yuyv has an even width"),
    ],
)
def test_bad_cameras_are_refused_before_anything_is_built(text, message, tmp_path, capsys):
    folder = tmp_path / "road-edge"
    shutil.copytree(ROAD, folder, ignore=shutil.ignore_patterns("engines"))
    assert main(["build", str(folder), "--precision", "fp32", "--camera", text]) == 2
    assert message in capsys.readouterr().err
    assert engines_in(folder) == []


def test_cameras_have_names():
    camera = CameraFormat.from_text("nv12:1920x1080")
    assert (camera.height, camera.width, camera.shape, camera.graph) == (1080, 1920, (1620, 1920), "camera_nv12_1920x1080")
    assert CameraFormat.from_graph(camera.graph) == camera
    assert str(camera) == "nv12:1920x1080"
    assert CameraFormat("yuyv", 481, 640).shape == (481, 640, 2)
    assert CameraFormat("bgr", 481, 641).shape == (481, 641, 3)
    with pytest.raises(UsageError, match="fit 'zoom' is not known"):
        camera_graph("bgr", 48, 64, *FRAME, "zoom")


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    folder = tmp_path / "road-edge"
    shutil.copytree(ROAD, folder, ignore=shutil.ignore_patterns("engines"))
    return Bundle.open(folder)


def test_the_command_line_builds_a_camera_beside_the_graphs(bundle, capsys):
    words = ["build", str(bundle.path), "--precision", "fp16", "--graph", "encoder", "--camera", "nv12:640x400", "--camera", "bgr:320x240"]
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["graph"] for r in rows] == ["encoder", "camera_nv12_640x400", "camera_bgr_320x240"]
    assert [r["precision"] for r in rows] == ["fp16", "fp32", "fp32"]
    assert ("host-fp16", "camera_nv12_640x400") in engines_in(bundle.path)
    data, report = read_engine(bundle, "host", "fp16", "camera_nv12_640x400", {"flavour": "ort"})
    assert data == source_graph(bundle, "camera_nv12_640x400")
    assert report["io"][0] == {"name": "raw", "side": "input", "dtype": "uint8", "shape": [1, 600, 640]}
    assert report["io"][1]["shape"] == [1, bundle.frame_height, bundle.frame_width, 3]
    raw = np.random.default_rng(3).integers(0, 256, (600, 640), dtype=np.uint8)
    wanted = by_cv2("nv12", raw, bundle.fit, (bundle.frame_height, bundle.frame_width))
    assert np.abs(graph_function(data)(raw[None])[0].astype(int) - wanted).max() <= 1
    with pytest.raises(EngineError, match=r"--precision fp16 --camera nv12:640x480$"):
        read_engine(bundle, "host", "fp16", "camera_nv12_640x480", {"flavour": "ort"})


def test_a_camera_of_another_bundle_never_loads(bundle, tmp_path):
    """The frame's size and fit are in the manifest alone: an engine copied from a bundle with another fit must be refused."""
    assert main(["build", str(bundle.path), "--precision", "fp16", "--graph", "encoder", "--camera", "bgr:320x240", "--json"]) == 0
    other = tmp_path / "other"
    shutil.copytree(bundle.path, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["preprocess"]["fit"] = next(f for f in FITS if f != bundle.fit)
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=r"bundle [0-9a-f]{12}\.\.\. here, [0-9a-f]{12}\.\.\. in the engine"):
        read_engine(Bundle.open(other), "host", "fp16", "camera_bgr_320x240", {"flavour": "ort"})


def test_tensorrt_rtx_builds_it_of_few_kernels(bundle, capsys):
    """Whole ratios become fused kernels: no full-size FP32 picture lies in memory between conversion and averaging."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (x86-64)")
    ada = target("rtx-ada")
    words = ["build", str(bundle.path), "--target", ada.name, "--precision", "fp16", "--graph", "encoder", "--batch", "2"]
    assert main([*words, "--camera", "nv12:1920x1080", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[1]
    assert row["precision"] == "fp32"
    data, report = read_engine(bundle, ada.name, "fp16", "camera_nv12_1920x1080", {"flavour": "tensorrt_rtx", "capability": "8.9"})
    assert len(data) == report["engine_bytes"] > 100_000
    assert report["io"][0]["shape"] == [1, 1620, 1920]
    assert "selftest" not in report
    assert 1 <= row["layers"] <= 6
    record = json.loads((bundle.path / row["record"]).read_text())
    assert record["key"]["profiles"] == ["raw 1x1620x1920"], "a camera gives one picture, whatever the encoder's batch"
