"""CamVid, plain image folders and the synthetic road, all as lists of uint8 arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from percodec.sdk.errors import DataError

IGNORE = 255
CAMVID_UNLABELLED = 11
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")


@dataclass(frozen=True)
class DataSet:
    """`images`: uint8 [H,W,3] RGB each. `labels`: uint8 [H,W], class ids or 255 (ignore), or empty. `digest` is provenance."""

    name: str
    images: list[NDArray[np.uint8]]
    labels: list[NDArray[np.uint8]]
    digest: str

    def __len__(self) -> int:
        return len(self.images)


def _files(folder: Path) -> Iterator[Path]:
    return (f for f in sorted(folder.iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES)


def _read(path: Path, mode: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode) if mode == "RGB" else image)
    except (OSError, UnidentifiedImageError) as e:
        raise DataError(f"cannot read {path} as an image: {e}; remove or replace the file") from e


def _digest(paths: list[Path]) -> str:
    h = hashlib.sha256()
    for p in paths:
        h.update(p.name.encode())
        h.update(p.read_bytes())
    return h.hexdigest()


def load_camvid(root: Path, split: str) -> DataSet:
    """CamVid as `<root>/<split>/*.png` and `<root>/<split>_labels/*.png` (class ids 0..10, 11 unlabelled).

    Raises `DataError` where a folder, a label or a class id is not what this layout says.
    """
    folder, label_folder = root / split, root / f"{split}_labels"
    for f in (folder, label_folder):
        if not f.is_dir():
            raise DataError(
                f"CamVid: {f} is not a folder; expected {root}/<split>/ and {root}/<split>_labels/ with PNG files of the same "
                "names (the 11-class version of the SegNet tutorial repository)"
            )
    paths = list(_files(folder))
    if not paths:
        raise DataError(f"CamVid: no images in {folder}")
    images, labels = [], []
    for p in paths:
        image, label = _read(p, "RGB"), _read(label_folder / p.name, "P").copy()
        if label.shape != image.shape[:2]:
            raise DataError(f"CamVid: {label_folder / p.name} is {label.shape}, its image is {image.shape[:2]}")
        if label.max() > CAMVID_UNLABELLED:
            raise DataError(f"CamVid: {label_folder / p.name} holds class {label.max()}; ids are 0..10 and 11 (unlabelled)")
        label[label == CAMVID_UNLABELLED] = IGNORE
        images.append(image)
        labels.append(label)
    return DataSet(f"camvid/{split}", images, labels, _digest(paths + [label_folder / p.name for p in paths]))


def load_folder(root: Path, longest: int = 768) -> DataSet:
    """Every image in a folder, RGB, shrunk so that the longer side is at most `longest` pixels."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder of images")
    paths = list(_files(root))
    if not paths:
        raise DataError(f"no images in {root}; known endings: {', '.join(IMAGE_SUFFIXES)}")
    images = []
    for p in paths:
        image = _read(p, "RGB")
        ratio = longest / max(image.shape[:2])
        if ratio < 1:
            size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        images.append(image)
    return DataSet(root.name, images, [], _digest(paths))


def load_synthetic(count: int, seed: int, height: int = 360, width: int = 480) -> DataSet:
    """`count` independent pictures of the synthetic road with exact labels."""
    from percodec.sdk.road import RoadScene

    images, labels = [], []
    for k in range(count):
        image, label = RoadScene(seed=seed * 100_003 + k, height=height, width=width).render(0)
        images.append(image)
        labels.append(label)
    return DataSet(f"synthetic-road(count={count},seed={seed})", images, labels, f"seed:{seed},count:{count}")


def load(spec: str) -> DataSet:
    """A data set by its spec: `camvid:PATH:SPLIT`, `folder:PATH` or `synthetic:COUNT:SEED`."""
    kind, _, rest = spec.partition(":")
    try:
        if kind == "camvid":
            path, _, split = rest.rpartition(":")
            return load_camvid(Path(path), split)
        if kind == "folder" and rest:
            return load_folder(Path(rest))
        if kind == "synthetic":
            count, _, seed = rest.partition(":")
            return load_synthetic(int(count), int(seed))
    except ValueError as e:
        raise DataError(f"data set {spec!r}: {e}") from e
    raise DataError(f"unknown data set {spec!r}; use camvid:PATH:SPLIT, folder:PATH or synthetic:COUNT:SEED")


__all__ = ["IGNORE", "DataSet", "load", "load_camvid", "load_folder", "load_synthetic"]
