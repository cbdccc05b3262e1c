"""Data sets: true layouts are read, wrong ones are named; crops are deterministic and keep image and label together."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.data import load, load_camvid, load_folder  # noqa: E402
from percodec.export.data.crops import Crops  # noqa: E402
from percodec.export.data.dataset import DataSet  # noqa: E402
from percodec.export.data.small_sets import CAMVID_CLASSES  # noqa: E402
from percodec.sdk.errors import DataError  # noqa: E402
from percodec.sdk.synthetic.road import CLASSES  # noqa: E402


def test_camvid_layout_and_ignore_label(camvid):
    data = load_camvid(camvid, "train")
    assert len(data) == 3
    assert data.images[0].shape == (176, 240, 3)
    assert (data.labels[0][:2] == 255).all()
    assert set(np.unique(data.labels[0][2:])) <= set(range(11))
    assert data.digest == load(f"camvid:{camvid}:train").digest != load_camvid(camvid, "val").digest


def test_a_drive_of_camvid_is_read_alone_and_left_out_and_one_it_has_not_is_named(tmp_path):
    for f in ("train", "train_labels"):
        (tmp_path / f).mkdir()
        for name, value in (("0001TP_1", 1), ("0006R0_f1", 2), ("0006R0_f2", 3)):
            Image.fromarray(np.full((8, 8) if "labels" in f else (8, 8, 3), value, np.uint8)).save(tmp_path / f / f"{name}.png")
    only, others = load(f"camvid:{tmp_path}:train/0006R0"), load(f"camvid:{tmp_path}:train/not-0006R0")
    assert [int(label[0, 0]) for label in only.labels] == [2, 3]
    assert [int(label[0, 0]) for label in others.labels] == [1]
    assert len({data.digest for data in (only, others, load(f"camvid:{tmp_path}:train"))}) == 3
    with pytest.raises(DataError, match=r"no drive 0016E5; its file names begin with 0001TP, 0006R0"):
        load(f"camvid:{tmp_path}:train/not-0016E5")


def test_camvid_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"expected .*_labels"):
        load_camvid(tmp_path, "train")


def test_camvid_label_of_unknown_class_is_named(tmp_path):
    for f in ("train", "train_labels"):
        (tmp_path / f).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "train/a.png")
    Image.fromarray(np.full((8, 8), 30, np.uint8)).save(tmp_path / "train_labels/a.png")
    with pytest.raises(DataError, match=r"a\.png holds class 30"):
        load_camvid(tmp_path, "train")


def test_camvid_missing_label_is_an_error(tmp_path):
    for f in ("train", "train_labels"):
        (tmp_path / f).mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "train/a.png")
    with pytest.raises(DataError, match=r"a\.png"):
        load_camvid(tmp_path, "train")


def test_folder_shrinks_large_pictures_and_refuses_text(tmp_path):
    Image.fromarray(np.zeros((100, 1000, 3), np.uint8)).save(tmp_path / "big.png")
    assert load_folder(tmp_path, longest=500).images[0].shape == (50, 500, 3)
    (tmp_path / "z.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"z\.png"):
        load_folder(tmp_path)


def test_camvid_label_with_colours_in_place_of_ids_is_named(camvid, tmp_path):
    for f in ("train", "train_labels"):
        (tmp_path / f).mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f / "a.png")
    with pytest.raises(DataError, match=r"train_labels/a\.png has mode RGB, not L or P; CamVid labels"):
        load_camvid(tmp_path, "train")


def test_the_synthetic_road_has_camvids_classes(camvid):
    assert load("synthetic:1:0").classes == load_camvid(camvid, "train").classes == CAMVID_CLASSES
    assert tuple(name for name, _ in CAMVID_CLASSES) == CLASSES


SPECS = ["", "nothing", "camvid:", "camvid:/x", "voc::val", "imagenet:/x:", "synthetic:x:y", "synthetic:3", "folder:", "ftp:x"]


@pytest.mark.parametrize("spec", SPECS)
def test_unknown_specs_are_refused_with_all_forms(spec):
    with pytest.raises(DataError, match=r"camvid:PATH:SPLIT, cityscapes:.*imagenet:.*voc:.*folder:PATH or synthetic:COUNT:SEED"):
        load(spec)


def test_crops_repeat_for_the_same_step_and_differ_for_others(camvid):
    crops = Crops([load_camvid(camvid, "train")], [1.0], size=64, batch=2, seed=5)
    a, b, c = crops.batch(3), crops.batch(3), crops.batch(4)
    assert a[0].equal(b[0])
    assert a[1].equal(b[1])
    assert not a[0].equal(c[0])
    assert a[0].shape == (2, 3, 64, 64)
    assert a[1].shape == (2, 64, 64)


def test_crops_move_labels_with_their_image():
    # The label is written into the picture, so any misalignment shows.
    label = (np.arange(128)[None, :] // 16 + np.zeros((128, 1))).astype(np.uint8)
    image = np.repeat((label * 20 + 20)[..., None], 3, -1).astype(np.uint8)
    crops = Crops([DataSet("x", [image], [label], "")], [1.0], size=64, batch=8, seed=1, scale=(1.0, 1.0), jitter=0.0)
    images, labels, *_ = crops.batch(0)
    assert ((images[:, 0] - 20) / 20).round().long().equal(labels)
