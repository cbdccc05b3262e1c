"""The small data sets, in memory: CamVid, plain image folders and the synthetic road."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from percodec.export.data.dataset import Classes, DataSet
from percodec.export.data.files import IMAGE_SUFFIXES, label_of, label_table, labelled_split, pictures_in, read_label, read_rgb
from percodec.sdk.errors import DataError

CAMVID_CLASSES: Classes = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
)


def digest_of(paths: list[Path]) -> str:
    h = hashlib.sha256()
    for p in paths:
        h.update(p.name.encode(errors="surrogateescape"))
        h.update(p.read_bytes())
    return h.hexdigest()


def drive_of(name: str) -> str:
    """The drive of a CamVid picture, by its file's name: `0006R0` of `0006R0_f00930.png`."""
    return name.partition("_")[0]


def load_camvid(root: Path, split: str) -> DataSet:
    """CamVid as `<root>/<split>/*.png` and `<root>/<split>_labels/*.png` (class ids 0..10, 11 unlabelled).

    A drive is what a file's name begins with: `train/0006R0` is that drive of `train`, `train/not-0006R0` all its others.
    Raises `DataError` where a folder, a drive, a label or a class id is not what this layout says.
    """
    name = split
    split, _, drive = split.partition("/")
    notes: list[str] = []
    layout = "PNG files of the same names (the 11-class version of the SegNet tutorial repository)"
    expected = f"{root}/<split>/ and {root}/<split>_labels/ with {layout}"
    paths, label_folder = labelled_split(root, split, notes, "CamVid: ", expected)
    if drive:
        wanted = drive.removeprefix("not-")
        drives = sorted({drive_of(p.name) for p in paths})
        if wanted not in drives:
            raise DataError(f"CamVid: {root / split} has no drive {wanted}; its file names begin with {', '.join(drives)}")
        paths = [p for p in paths if (drive_of(p.name) == wanted) == (drive == wanted)]
    table, form = label_table(range(11), [11]), "CamVid labels are PNG files of ids, 0..10 and 11 (unlabelled), as large as their image"
    label_paths = [label_of(p, label_folder) for p in paths]
    images = [read_rgb(p, notes) for p in paths]
    labels = [read_label(p, i.shape[:2], table, form) for p, i in zip(label_paths, images, strict=True)]
    return DataSet(f"camvid/{name}", images, labels, digest_of(paths + label_paths), classes=CAMVID_CLASSES, notes=tuple(notes))


def load_folder(root: Path, longest: int = 768) -> DataSet:
    """Every image in a folder, RGB, shrunk so that the longer side is at most `longest` pixels."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder of images")
    notes: list[str] = []
    paths = pictures_in(root, notes)
    if not paths:
        raise DataError(f"no images in {root}; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}")
    images = []
    for p in paths:
        image = read_rgb(p, notes)
        ratio = longest / max(image.shape[:2])
        if ratio < 1:
            size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        images.append(image)
    return DataSet(root.name, images, [], digest_of(paths), notes=tuple(notes))


def load_synthetic(count: int, seed: int, height: int = 360, width: int = 480) -> DataSet:
    """`count` independent pictures of the synthetic road with exact labels."""
    from percodec.sdk.synthetic.road import RoadScene

    images, labels = [], []
    for k in range(count):
        image, label = RoadScene(seed=seed * 100_003 + k, height=height, width=width).render(0)
        images.append(image)
        labels.append(label)
    name = f"synthetic-road(count={count},seed={seed})"
    return DataSet(name, images, labels, f"seed:{seed},count:{count}", classes=CAMVID_CLASSES)


__all__ = ["CAMVID_CLASSES", "digest_of", "drive_of", "load_camvid", "load_folder", "load_synthetic"]
