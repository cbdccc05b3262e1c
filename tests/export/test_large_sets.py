"""ImageNet, VOC and Cityscapes: trees with the true layout are read right, every broken one is refused with its file and the fix."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.data import Files, load, load_cityscapes, load_imagenet, load_voc  # noqa: E402
from percodec.export.data.large_sets import CITYSCAPES_CLASSES, VOC_CLASSES  # noqa: E402
from percodec.sdk.errors import DataError  # noqa: E402

SIZE = (12, 20)


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), shade, np.uint8)).save(path)


def ids(path, values, size=SIZE, palette=False):
    """A label file: `values` repeated over `size`; a palette PNG of VOC's colours where `palette`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.resize(np.asarray(values, np.uint8), size))
    if palette:
        image = image.copy()
        image.putpalette([channel for _, colour in VOC_CLASSES for channel in colour])
    image.save(path)


@pytest.fixture
def imagenet(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        for shade, wnid in enumerate(("n02000002", "n01000001", "n03000003")):
            for k in range(count):
                picture(tmp_path / split / wnid / f"{wnid}_{count - k}.JPEG", 40 * shade)
    return tmp_path


@pytest.fixture
def voc(tmp_path):
    """VOCdevkit's parent. The lists are not in the order of the names; the augmented list holds one name more."""
    home = tmp_path / "VOCdevkit/VOC2012"
    for k, name in enumerate(("2007_000001", "2008_000002", "2009_000003")):
        picture(home / f"JPEGImages/{name}.jpg", 50 * k)
        ids(home / f"SegmentationClassAug/{name}.png", [k, 20, 255])
        if k < 2:
            ids(home / f"SegmentationClass/{name}.png", [k, 15, 255], palette=True)
    lists = home / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_000002\n2007_000001\n")
    (lists / "val.txt").write_text("2007_000001\n")
    (lists / "trainaug.txt").write_text("2009_000003\n2007_000001\n2008_000002\n")
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path):
    for city, k in (("ulm", 2), ("aachen", 0), ("aachen", 1)):
        name = f"{city}_{k:06d}_000019"
        picture(tmp_path / f"leftImg8bit/train/{city}/{name}_leftImg8bit.png", 50 * k)
        ids(tmp_path / f"gtFine/train/{city}/{name}_gtFine_labelIds.png", range(34))
        Image.new("RGBA", SIZE[::-1]).save(tmp_path / f"gtFine/train/{city}/{name}_gtFine_color.png")
    return tmp_path


def voc_home(root):
    return root / "VOCdevkit/VOC2012"


def test_files_decode_on_access_only(tmp_path):
    seen = []

    def decode(path):
        seen.append(path.name)
        return np.zeros((1, 1, 3), np.uint8)

    files = Files([tmp_path / f"{k}.png" for k in range(6)], decode)
    assert (len(files), len(files[1::2]), seen) == (6, 3, [])
    assert files[-1].shape == (1, 1, 3)
    assert seen == ["5.png"]
    assert len(list(files[1::2])) == 3
    assert seen == ["5.png", "1.png", "3.png", "5.png"]
    assert not Files([], decode)
    with pytest.raises(IndexError):
        files[6]


# ImageNet


def test_imagenet_targets_are_places_among_sorted_wnids(imagenet):
    data = load_imagenet(imagenet, "train")
    assert [name for name, _ in data.classes] == ["n01000001", "n02000002", "n03000003"]
    assert data.targets == (0, 0, 1, 1, 2, 2)
    assert len(data) == 6
    assert len(data.labels) == 0
    assert [str(p)[-6:] for p in data.images.paths[:2]] == ["1.JPEG", "2.JPEG"]
    assert [int(np.median(data.images[k])) for k in (0, 2, 4)] == pytest.approx([40, 0, 80], abs=2)
    assert load(f"imagenet:{imagenet}:val").targets == (0, 1, 2)


def test_imagenet_digest_knows_names_and_sizes_but_not_the_place(imagenet, tmp_path_factory):
    before = load_imagenet(imagenet, "val").digest
    assert before != load_imagenet(imagenet, "train").digest
    moved = tmp_path_factory.mktemp("a:b") / "elsewhere"
    imagenet.rename(moved)
    assert load(f"imagenet:{moved}:val").digest == before
    file = moved / "val/n01000001/n01000001_1.JPEG"
    file.write_bytes(file.read_bytes() + b"x")
    assert load_imagenet(moved, "val").digest != before


def test_imagenet_split_that_is_missing_names_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"nope is not a folder; expected <root>/<split>/<wnid>/\*\.JPEG.*image-net\.org"):
        load_imagenet(tmp_path, "nope")


def test_imagenet_split_without_class_folders_is_refused(tmp_path):
    (tmp_path / "train/.cache").mkdir(parents=True)
    (tmp_path / "train/n01440764.tar").touch()
    with pytest.raises(DataError, match=r"no class folders in .*train; .*unpack each class's tar"):
        load_imagenet(tmp_path, "train")


def test_imagenet_empty_class_folder_is_named(imagenet):
    (imagenet / "train/n04000004").mkdir()
    with pytest.raises(DataError, match=r"no \*\.JPEG files in .*n04000004; unpack"):
        load_imagenet(imagenet, "train")


def test_imagenet_loose_validation_pictures_are_refused_with_the_fix(imagenet):
    picture(imagenet / "val/ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(DataError, match=r"1 pictures such as ILSVRC2012_val_00000001\.JPEG lie loose .*ground_truth\.txt.*move each"):
        load_imagenet(imagenet, "val")


def test_imagenet_damaged_picture_is_named_on_access(imagenet):
    file = imagenet / "val/n01000001/n01000001_1.JPEG"
    file.write_bytes(file.read_bytes()[:200])
    data = load_imagenet(imagenet, "val")
    with pytest.raises(DataError, match=r"n01000001_1\.JPEG.*remove or replace"):
        data.images[0]
    assert data.images[1].shape == (*SIZE, 3)


# Pascal VOC


@pytest.mark.parametrize("inner", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_order_is_the_lists_and_labels_are_palette_indices(voc, inner):
    data = load_voc(voc / inner, "train")
    assert [p.stem for p in data.images.paths] == [p.stem for p in data.labels.paths] == ["2008_000002", "2007_000001"]
    assert data.labels[0].dtype == np.uint8
    assert data.labels[0].shape == SIZE
    assert data.labels[0].ravel()[:3].tolist() == [1, 15, 255]
    assert data.labels[1].ravel()[:3].tolist() == [0, 15, 255]
    assert data.images[0].mean() == pytest.approx(50, abs=2)
    assert data.digest == load(f"voc:{voc}:train").digest


def test_voc_classes_have_their_standard_colours():
    assert len(VOC_CLASSES) == 21
    assert (VOC_CLASSES[0][0], VOC_CLASSES[15], VOC_CLASSES[20][0]) == ("background", ("person", (192, 128, 128)), "tvmonitor")
    for k, (_, colour) in enumerate(VOC_CLASSES):  # the kit's rule: bits of the index, from the top of each channel
        assert colour == tuple((k >> c & 1) << 7 | (k >> c + 3 & 1) << 6 for c in range(3))


def test_voc_trainaug_reads_the_augmented_grayscale_labels(voc):
    data = load_voc(voc, "trainaug")
    assert len(data) == 3
    assert data.labels[0].ravel()[:3].tolist() == [2, 20, 255]
    assert len({data.digest, load_voc(voc, "train").digest, load_voc(voc, "val").digest}) == 3


def test_voc_digest_changes_with_a_label(voc):
    before = load_voc(voc, "val").digest
    label = voc_home(voc) / "SegmentationClass/2007_000001.png"
    label.write_bytes(label.read_bytes() + b"x")
    assert load_voc(voc, "val").digest != before


def test_voc_missing_parts_are_refused_with_the_layout(voc, tmp_path_factory):
    with pytest.raises(DataError, match=r"no folder JPEGImages in .*host\.robots\.ox\.ac\.uk"):
        load_voc(tmp_path_factory.mktemp("none"), "train")
    with pytest.raises(DataError, match=r"test\.txt is not a file; expected JPEGImages"):
        load_voc(voc, "test")
    (voc_home(voc) / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt is empty"):
        load_voc(voc, "val")
    (voc_home(voc) / "SegmentationClass/2007_000001.png").unlink()
    with pytest.raises(DataError, match=r"SegmentationClass/2007_000001\.png is missing; expected"):
        load_voc(voc, "train")
    (voc_home(voc) / "JPEGImages/2009_000003.jpg").unlink()
    with pytest.raises(DataError, match=r"JPEGImages/2009_000003\.jpg is missing; expected .*Semantic Boundaries"):
        load_voc(voc, "trainaug")


def test_voc_wrong_labels_are_named_on_access(voc):
    data, file = load_voc(voc, "val"), voc_home(voc) / "SegmentationClass/2007_000001.png"
    ids(file, [0], size=(12, 21), palette=True)
    with pytest.raises(DataError, match=r"2007_000001\.png is \(12, 21\), its image is \(12, 20\)"):
        data.labels[0]
    ids(file, [0, 21, 255])
    with pytest.raises(DataError, match=r"2007_000001\.png holds class 21; VOC labels are .*0\.\.20"):
        data.labels[0]
    picture(file, 3)
    with pytest.raises(DataError, match=r"2007_000001\.png has mode RGB, not L or P"):
        data.labels[0]


# Cityscapes


def test_cityscapes_maps_the_34_ids_to_19_classes(cityscapes):
    data = load_cityscapes(cityscapes, "train")
    assert [p.name.split("_0")[0] for p in data.images.paths] == ["aachen", "aachen", "ulm"]
    assert [int(data.images[k][0, 0, 0]) for k in range(3)] == [0, 50, 100]
    label = data.labels[0].ravel()[:34]
    trained = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15}
    trained |= {31: 16, 32: 17, 33: 18}
    assert label.tolist() == [trained.get(k, 255) for k in range(34)]
    assert dict(data.classes)["car"] == (0, 0, 142)
    assert len(data.classes) == len(set(CITYSCAPES_CLASSES)) == 19
    assert data.digest == load(f"cityscapes:{cityscapes}:train").digest


def test_cityscapes_digest_changes_with_a_picture(cityscapes):
    before = load_cityscapes(cityscapes, "train").digest
    file = cityscapes / "leftImg8bit/train/ulm/ulm_000002_000019_leftImg8bit.png"
    file.write_bytes(file.read_bytes() + b"x")
    assert load_cityscapes(cityscapes, "train").digest != before


def test_cityscapes_test_split_needs_its_dummy_labels(cityscapes):
    picture(cityscapes / "leftImg8bit/test/bonn/bonn_0_leftImg8bit.png", 9)
    with pytest.raises(DataError, match=r"bonn_0_gtFine_labelIds\.png is missing; expected .*cityscapes-dataset\.com"):
        load_cityscapes(cityscapes, "test")
    ids(cityscapes / "gtFine/test/bonn/bonn_0_gtFine_labelIds.png", [0, 1, 3])
    assert (load_cityscapes(cityscapes, "test").labels[0] == 255).all()


def test_cityscapes_missing_and_empty_splits_are_refused(cityscapes):
    with pytest.raises(DataError, match=r"val is not a folder; expected leftImg8bit"):
        load_cityscapes(cityscapes, "val")
    (cityscapes / "leftImg8bit/val/bonn").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no pictures in .*val; expected leftImg8bit"):
        load_cityscapes(cityscapes, "val")


def test_cityscapes_wrong_labels_are_named_on_access(cityscapes):
    data, file = load_cityscapes(cityscapes, "train"), cityscapes / "gtFine/train/ulm/ulm_000002_000019_gtFine_labelIds.png"
    ids(file, [7, 34])
    with pytest.raises(DataError, match=r"ulm_000002_000019_gtFine_labelIds\.png holds class 34; .*0\.\.33"):
        data.labels[2]
    ids(file, [7], size=(3, 4))
    with pytest.raises(DataError, match=r"labelIds\.png is \(3, 4\), its image is \(12, 20\)"):
        data.labels[2]


def test_a_png_cut_anywhere_is_a_data_error(cityscapes):
    data, file = load_cityscapes(cityscapes, "train"), cityscapes / "gtFine/train/ulm/ulm_000002_000019_gtFine_labelIds.png"
    whole = file.read_bytes()
    for end in range(0, len(whole) - 24, 3):  # the last 24 bytes are checksums and the end mark
        file.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"cannot read .*labelIds\.png as an image: .*; remove or replace"):
            data.labels[2]
    file.write_bytes(whole)
    picture_file = data.images.paths[2]
    picture_file.write_bytes(picture_file.read_bytes()[:20])
    with pytest.raises(DataError, match=r"cannot read .*ulm_000002_000019_leftImg8bit\.png"):
        data.labels[2]


def test_a_set_is_frozen_and_as_long_as_its_pictures(voc):
    data = load_voc(voc, "trainaug")
    assert len(data) == len(data.images) == len(data.labels) == 3
    assert data.targets == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
