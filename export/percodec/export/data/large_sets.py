"""The large public data sets in the layout their archives unpack to: ImageNet, Pascal VOC 2012, Cityscapes.

    root, split -> names found and checked here, at load -> `Files`: each picture and label decoded and checked on access

Digests are sha256 over relative names and file sizes: reading every byte of 150 GB at each start is no option. A file whose
bytes change while its size does not is therefore not seen.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from percodec.export.data.dataset import Classes, DataSet
from percodec.export.data.files import Array, Files, is_hidden, label_table, read_label, read_rgb, read_size
from percodec.sdk.errors import DataError
from percodec.sdk.files import read_file

IMAGENET_LAYOUT = (
    "expected <root>/<split>/<wnid>/*.JPEG, where wnid is like n01440764 (ILSVRC2012 from image-net.org: unpack each class's tar "
    "of the training archive into a folder of its name, and move each validation picture into the folder of its class)"
)
VOC_LAYOUT = (
    "expected JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/<split>.txt, one name per line, in VOC2012 "
    "(VOCtrainval 2012 from the Pascal VOC site, host.robots.ox.ac.uk)"
)
VOC_AUG_LAYOUT = (
    "expected JPEGImages/*.jpg, SegmentationClassAug/*.png and ImageSets/Segmentation/trainaug.txt, 10582 names, one per line, in "
    "VOC2012 (VOCtrainval 2012 from the Pascal VOC site, host.robots.ox.ac.uk, with the labels of Berkeley's Semantic Boundaries "
    "Dataset, SBD, converted to VOC's indices)"
)
CITYSCAPES_LAYOUT = (
    "expected leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png "
    "(leftImg8bit_trainvaltest and gtFine_trainvaltest from cityscapes-dataset.com)"
)

VOC_TABLE = label_table(range(21), [255])
VOC_FORM = "VOC labels are palette or grayscale PNG files of ids, 0..20 and 255 (ignore), as large as their image"
VOC_CLASSES: Classes = (
    ("background", (0, 0, 0)),
    ("aeroplane", (128, 0, 0)),
    ("bicycle", (0, 128, 0)),
    ("bird", (128, 128, 0)),
    ("boat", (0, 0, 128)),
    ("bottle", (128, 0, 128)),
    ("bus", (0, 128, 128)),
    ("car", (128, 128, 128)),
    ("cat", (64, 0, 0)),
    ("chair", (192, 0, 0)),
    ("cow", (64, 128, 0)),
    ("diningtable", (192, 128, 0)),
    ("dog", (64, 0, 128)),
    ("horse", (192, 0, 128)),
    ("motorbike", (64, 128, 128)),
    ("person", (192, 128, 128)),
    ("pottedplant", (0, 64, 0)),
    ("sheep", (128, 64, 0)),
    ("sofa", (0, 192, 0)),
    ("train", (128, 192, 0)),
    ("tvmonitor", (0, 64, 128)),
)

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_TABLE = label_table(CITYSCAPES_IDS, range(34))
CITYSCAPES_FORM = "Cityscapes labels are the *_labelIds.png files of ids, 0..33, as large as their image"
CITYSCAPES_CLASSES: Classes = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)


def load_imagenet(root: Path, split: str) -> DataSet:
    """ImageNet as `<root>/<split>/<wnid>/*.JPEG`; class index = place of the wnid among this split's sorted wnids.

    Raises `DataError` where there is no such folder, a class folder is empty or pictures lie beside the class folders.
    """
    folder = root / split
    if not folder.is_dir():
        raise DataError(f"ImageNet: {folder} is not a folder; {IMAGENET_LAYOUT}")
    entries = sorted(os.scandir(folder), key=lambda e: e.name)
    loose = [e.name for e in entries if _is_jpeg(e)]
    if loose:
        raise DataError(
            f"ImageNet: {len(loose)} pictures such as {loose[0]} lie loose in {folder}, so their class is not known; sort them by "
            f"ILSVRC2012_validation_ground_truth.txt of the development kit: {IMAGENET_LAYOUT}"
        )
    wnids = [e.name for e in entries if re.fullmatch(r"n\d{8}", e.name) and e.is_dir()]
    if not wnids:
        raise DataError(f"ImageNet: no class folders in {folder}; {IMAGENET_LAYOUT}")
    paths: list[str] = []  # 1.3 million of them: strings, which are small beside Path objects
    targets: list[int] = []
    h = hashlib.sha256()
    for index, wnid in enumerate(wnids):
        pictures = sorted(filter(_is_jpeg, os.scandir(folder / wnid)), key=lambda e: e.name)
        if not pictures:
            raise DataError(f"ImageNet: no *.JPEG files in {folder / wnid}; unpack that class again or remove its folder in all splits")
        for e in pictures:
            h.update(f"{split}/{wnid}/{e.name}\0{e.stat().st_size}\n".encode())
            paths.append(e.path)
        targets += [index] * len(pictures)
    classes = tuple((wnid, (0, 0, 0)) for wnid in wnids)
    return DataSet(f"imagenet/{split}", Files(paths, read_rgb), (), h.hexdigest(), tuple(targets), classes)


def _is_jpeg(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(".jpeg") and not entry.name.startswith(".")


def load_voc(root: Path, split: str) -> DataSet:
    """Pascal VOC 2012 segmentation: `train`, `val`, `trainval` or `trainaug` (labels in `SegmentationClassAug`).

    `root` is the folder VOC2012, its parent VOCdevkit or the parent of that. Raises `DataError` where the list, or a picture or
    label it names, is missing; on access, where a label is not `VOC_FORM`.
    """
    label_folder, layout = ("SegmentationClassAug", VOC_AUG_LAYOUT) if split == "trainaug" else ("SegmentationClass", VOC_LAYOUT)
    homes = [f for f in (root, root / "VOC2012", root / "VOCdevkit/VOC2012") if (f / "JPEGImages").is_dir()]
    if not homes:
        raise DataError(f"VOC: no folder JPEGImages in {root}, its VOC2012 or its VOCdevkit/VOC2012; {layout}")
    home = homes[0]
    listing = home / f"ImageSets/Segmentation/{split}.txt"
    if not listing.is_file():
        raise DataError(f"VOC: {listing} is not a file; {layout}")
    names = read_file(listing).decode("utf-8-sig", "replace").split()
    if not names:
        raise DataError(f"VOC: {listing} is empty; {layout}")
    labels = {home / label_folder / f"{n}.png": home / "JPEGImages" / f"{n}.jpg" for n in names}
    return _labelled(f"voc/{split}", home, labels, (VOC_TABLE, VOC_FORM), layout, VOC_CLASSES)


def load_cityscapes(root: Path, split: str) -> DataSet:
    """Cityscapes fine labels as the 19 training classes, all else 255; cities and pictures in order of their names.

    Raises `DataError` where there are no pictures or a label is missing (the test split loads with its dummy labels, all 255);
    on access, where a label is not `CITYSCAPES_FORM`.
    """
    folder = root / "leftImg8bit" / split
    if not folder.is_dir():
        raise DataError(f"Cityscapes: {folder} is not a folder; {CITYSCAPES_LAYOUT}")
    labels = {}
    for p in sorted(folder.glob("*/*_leftImg8bit.png")):
        if is_hidden(p):
            continue
        name = p.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
        labels[root / "gtFine" / split / p.parent.name / name] = p
    if not labels:
        raise DataError(f"Cityscapes: no pictures in {folder}; {CITYSCAPES_LAYOUT}")
    form = CITYSCAPES_TABLE, CITYSCAPES_FORM
    return _labelled(f"cityscapes/{split}", root, labels, form, CITYSCAPES_LAYOUT, CITYSCAPES_CLASSES)


def _labelled(name: str, root: Path, pictures: Mapping[Path, Path], form: tuple[Array, str], layout: str, classes: Classes) -> DataSet:
    """The lazy set of `pictures` (picture by its label); refuses with `layout` where one of them is missing."""
    h = hashlib.sha256()
    for label, picture in pictures.items():
        for p in (picture, label):
            if not p.is_file():
                raise DataError(f"{name}: {p} is missing; {layout}")
            h.update(f"{p.relative_to(root).as_posix()}\0{p.stat().st_size}\n".encode())
    images = Files(list(pictures.values()), read_rgb)
    labels = Files(list(pictures), partial(_read_label, pictures, *form))
    return DataSet(name, images, labels, h.hexdigest(), classes=classes)


def _read_label(pictures: Mapping[Path, Path], table: Array, form: str, path: Path) -> Array:
    return read_label(path, read_size(pictures[path]), table, form)


__all__ = ["load_cityscapes", "load_imagenet", "load_voc"]
