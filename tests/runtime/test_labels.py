"""Label maps on disk: class ids exactly as predicted, found again by frame and time, never half of one and never over another run's."""

from __future__ import annotations

import json
import resource
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from support.command import Percodec

from percodec.runtime import Session, open_source
from percodec.runtime.capture.synthetic import SyntheticRoad
from percodec.runtime.run.labels import LabelMaps, label_name
from percodec.sdk.bundle import Bundle, extend_bundle
from percodec.sdk.errors import LogError, UsageError


def label_map(path: Path) -> NDArray[np.uint8]:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None, path
    return np.asarray(found, np.uint8)


@pytest.fixture(scope="module")
def two_heads(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a second segmentation head that says the opposite."""
    bundle = Bundle.open(bundle_folder)
    graph = onnx.load_from_string(bundle.graph("head_segmentation"))
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    info = replace(bundle.head("segmentation"), name="head_opposite")
    return extend_bundle(bundle, tmp_path_factory.mktemp("two") / "heads", heads=[(info, graph.SerializeToString())]).path


def test_a_run_saves_what_a_session_predicts(percodec: Percodec, two_heads: Path, video: Path, tmp_path: Path) -> None:
    asked = ("run", video, "--bundle", two_heads, "--heads", "all", "--no-overlay", "--no-sheet", "--max-frames", 12)
    done = percodec(*asked, "--out", "out", "--save-labels", "maps", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "maps" in done.stdout
    lines = {line["frame_id"]: line for line in map(json.loads, (tmp_path / "out" / "frames.jsonl").read_text().splitlines())}
    differ = 0
    source = open_source(str(video))
    with Session.open(two_heads, heads=["all"]) as session:
        for _ in range(12):
            frame = source.read()
            assert frame is not None
            latent = session.encode(frame)
            found = []
            for head in ("segmentation", "opposite"):
                found.append(label_map(tmp_path / "maps" / head / label_name(frame.frame_id, frame.timestamp_ns)))
                assert np.array_equal(found[-1], session.predict(latent, head).labels)
                assert lines[frame.frame_id]["heads"][head]["crc"] == f"{zlib.crc32(found[-1].tobytes()):08x}"
            differ += not np.array_equal(*found)
    source.close()
    assert differ
    report = json.loads((tmp_path / "out" / "report.json").read_text())["files"]["labels"]
    maps = list((tmp_path / "maps").rglob("*.png"))
    assert (report["count"], report["bytes"]) == (24, sum(path.stat().st_size for path in maps)) == (len(maps), report["bytes"])


def test_a_decoded_log_has_the_label_maps_of_the_run(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path) -> None:
    common = ("--bundle", bundle_folder, "--max-frames", 7)
    done = percodec("run", video, *common, "--out", "out", "--save-labels", "maps", "--no-overlay", "--no-sheet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for more in (("--labels",), ("--labels", "--segment", "--overwrite")):
        done = percodec("decode", "out/packets.mcap", "-o", "decoded", *common, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "decoded/labels" in done.stdout
        assert (tmp_path / "decoded" / "segmentation.mp4").exists() == ("--segment" in more)
        live, again = (
            {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (tmp_path / "maps", tmp_path / "decoded/labels")
        )
        assert len(live) == 7
        assert live == again
    assert percodec("decode", "out/packets.mcap", "-o", "decoded", *common, "--labels", cwd=tmp_path).returncode == 2
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(3).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    for command in (("encode", "a.png", "-o", "a.pcpk"), ("decode", "a.pcpk", "-o", "one", "--labels")):
        done = percodec(*command, "--bundle", bundle_folder, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "one" / "labels").iterdir()] == [label_name(0, 0)]


def test_accuracy_can_be_computed_from_what_a_run_leaves(percodec: Percodec, tmp_path: Path) -> None:
    """Mean IoU over the classes of a rendered drive, whose labels are known."""
    scene = "synthetic://road?frames=3&seed=5"
    done = percodec("run", scene, "--out", "out", "--save-labels", "maps", "--no-overlay", "--no-sheet", "--no-log", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    height, width = report["bundle"]["frame"]
    source = open_source(scene, height=height, width=width)
    assert isinstance(source, SyntheticRoad)
    confusion = np.zeros((256, 256), np.int64)
    while (frame := source.read()) is not None:
        assert source.truth is not None
        predicted = label_map(tmp_path / "maps" / label_name(frame.frame_id, frame.timestamp_ns))
        np.add.at(confusion, (source.truth, predicted), 1)
    present = confusion.sum(axis=1) > 0
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
    assert (np.diag(confusion)[present] / union[present]).mean() > 0.5


def test_a_run_that_may_not_save_labels_leaves_the_earlier_one_alone(
    percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path
) -> None:
    asked = ("run", video, "--bundle", bundle_folder, "--max-frames", 2, "--no-overlay", "--no-sheet", "--save-labels", "maps", "--out")
    assert percodec(*asked, "out", cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = percodec(*asked, "other", cwd=tmp_path)
    assert done.returncode == 2
    assert "maps: already holds 2 label maps" in done.stderr
    (tmp_path / "file").write_text("x")
    done = percodec(*asked[:-2], "file", "--out", "out", "--overwrite", cwd=tmp_path)
    assert done.returncode == 2
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "other").exists()


def test_a_full_disk_ends_the_run_with_one_line(percodec: Percodec, tmp_path: Path) -> None:
    asked = ("run", "synthetic://road?frames=1", "--no-overlay", "--no-sheet", "--no-log", "--save-labels", "maps", "--out", "out")
    done = percodec(*asked, cwd=tmp_path, limit_bytes=2000)  # enough for a line of JSON
    assert done.returncode == 1
    assert "The 0 label maps before are whole" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "maps").iterdir()) == []


def test_ids_come_back_as_they_were(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 256, (30, 41), dtype=np.uint8)
    maps = LabelMaps(tmp_path / "a" / "b", ("segmentation",))
    maps.write(labels[:, ::-1], 12, 480_000_000, "segmentation")
    maps.write(labels, 123_456_789, 0, "segmentation")
    maps.close()
    names = ["frame_00000012_t480000000.png", "frame_123456789_t0.png"]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == names
    for name, wanted in zip(names, (labels[:, ::-1], labels), strict=True):
        found = cv2.imread(str(tmp_path / "a" / "b" / name), cv2.IMREAD_UNCHANGED)
        assert found is not None
        assert (found.dtype, found.shape) == (np.uint8, wanted.shape)
        assert np.array_equal(found, wanted)
    assert (maps.count, maps.bytes) == (2, sum((tmp_path / "a" / "b" / name).stat().st_size for name in names))


def test_each_of_several_heads_has_a_folder(tmp_path: Path) -> None:
    maps = LabelMaps(tmp_path, ("road", "sky"))
    for k, head in enumerate(("road", "sky")):
        maps.write(np.full((4, 5), k, np.uint8), 0, 0, head)
    for k, head in enumerate(("road", "sky")):
        assert (label_map(tmp_path / head / label_name(0, 0)) == k).all()


@pytest.mark.parametrize("heads", [("segmentation",), ("road", "sky")])
def test_label_maps_of_another_run_are_neither_mixed_nor_lost(tmp_path: Path, heads: tuple[str, ...]) -> None:
    maps = LabelMaps(tmp_path, heads)
    maps.write(np.zeros((4, 5), np.uint8), 7, 7, heads[-1])
    with pytest.raises(UsageError, match="in use by another run"):
        LabelMaps(tmp_path, heads, overwrite=True)
    maps.close()
    other = tmp_path / "frame_1.png"
    other.write_bytes(b"not ours")
    for again in (("segmentation",), ("road", "sky")):
        with pytest.raises(UsageError, match="already holds 1 label maps"):
            LabelMaps(tmp_path, again)
    LabelMaps(tmp_path, ("segmentation",), overwrite=True).close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]


def test_what_cannot_be_a_folder_of_label_maps_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="folder"):
            LabelMaps(folder, ("segmentation",))
    with pytest.raises(UsageError, match="segmentation head"):
        LabelMaps(tmp_path / "new", ())
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_one_error_and_leaves_no_half_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (100, 100), dtype=np.uint8)
    maps = LabelMaps(tmp_path, ("segmentation",))
    maps.write(np.zeros((100, 100), np.uint8), 0, 0, "segmentation")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
        with pytest.raises(LogError, match=r"The 1 label maps before are whole"):
            maps.write(noise, 1, 1, "segmentation")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    maps.close()
    assert [path.name for path in tmp_path.iterdir()] == [label_name(0, 0)]
