"""Label maps on disk: class ids exactly as predicted, found again by frame and time, never half of one and never over another run's."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from percodec.runtime.run.labels import LabelMaps, label_name
from percodec.sdk.errors import LogError, UsageError


def test_ids_come_back_as_they_were(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 256, (30, 41), dtype=np.uint8)
    maps = LabelMaps(tmp_path / "a" / "b", ("segmentation",))
    maps.write(labels[:, ::-1], 12, 480_000_000, "segmentation")
    maps.write(labels, 123_456_789, 0, "segmentation")
    names = ["frame_00000012_t480000000.png", "frame_123456789_t0.png"]
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == names
    for name, wanted in zip(names, (labels[:, ::-1], labels), strict=True):
        found = cv2.imread(str(tmp_path / "a" / "b" / name), cv2.IMREAD_UNCHANGED)
        assert found is not None
        assert found.dtype == np.uint8
        assert np.array_equal(found, wanted)
    assert (maps.count, maps.bytes) == (2, sum((tmp_path / "a" / "b" / name).stat().st_size for name in names))


def test_each_of_several_heads_has_a_folder(tmp_path: Path) -> None:
    maps = LabelMaps(tmp_path, ("road", "sky"))
    for k, head in enumerate(("road", "sky")):
        maps.write(np.full((4, 5), k, np.uint8), 0, 0, head)
    for k, head in enumerate(("road", "sky")):
        found = cv2.imread(str(tmp_path / head / label_name(0, 0)), cv2.IMREAD_UNCHANGED)
        assert found is not None
        assert (found == k).all()


@pytest.mark.parametrize("heads", [("segmentation",), ("road", "sky")])
def test_label_maps_of_another_run_are_neither_mixed_nor_lost(tmp_path: Path, heads: tuple[str, ...]) -> None:
    LabelMaps(tmp_path, heads).write(np.zeros((4, 5), np.uint8), 7, 7, heads[-1])
    other = tmp_path / "frame_1.png"
    other.write_bytes(b"not ours")
    for again in (("segmentation",), ("road", "sky")):
        with pytest.raises(UsageError, match="already holds 1 label maps"):
            LabelMaps(tmp_path, again)
    LabelMaps(tmp_path, ("segmentation",), overwrite=True)
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
    assert [path.name for path in tmp_path.iterdir()] == [label_name(0, 0)]
