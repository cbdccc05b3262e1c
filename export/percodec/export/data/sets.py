"""What a data set is, and the small ones: CamVid, plain image folders and the synthetic road, in memory as uint8 arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from percodec.export.data.origin import origin_of
from percodec.sdk.errors import DataError

Array = NDArray[np.uint8]
Classes = tuple[tuple[str, tuple[int, int, int]], ...]
T = TypeVar("T")

IGNORE = 255
UNKNOWN = 254  # in a `label_table`: an id that no label file may hold
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
SPECS = "camvid:PATH:SPLIT, cityscapes:PATH:SPLIT, imagenet:PATH:SPLIT, voc:PATH:SPLIT, folder:PATH or synthetic:COUNT:SEED"
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


@dataclass(frozen=True)
class DataSet:
    """Pictures with what is known about them; `digest` is provenance.

    `images`: uint8 [H,W,3] RGB each. `labels`: uint8 [H,W] each, class index or 255 (ignore), or empty. `targets`: class index
    per picture (classification), or empty. `classes`: name and display colour of each class index, or empty. `origin`: the record of
    how it was made, where it is a compressed or restored one (`percodec restore`).
    """

    name: str
    images: Sequence[Array]
    labels: Sequence[Array]
    digest: str
    targets: tuple[int, ...] = ()
    classes: Classes = ()
    origin: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.images)


class Files(Sequence[Array]):
    """Arrays that stay on disk: item k is `decode(Path(paths[k]))`, anew on every access; a slice is `Files` again."""

    def __init__(self, paths: Sequence[Path | str], decode: Callable[[Path], Array]) -> None:
        self.paths, self.decode = paths, decode

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, k: int) -> Array: ...

    @overload
    def __getitem__(self, k: slice) -> Files: ...

    def __getitem__(self, k: int | slice) -> Array | Files:
        return Files(self.paths[k], self.decode) if isinstance(k, slice) else self.decode(Path(self.paths[k]))


def _open(path: Path, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(path) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # all of them are Pillow's for a damaged file
        raise DataError(f"cannot read {path} as an image: {e}; remove or replace the file") from e


def read_rgb(path: Path) -> Array:
    """uint8 [H,W,3]. Raises `DataError` where the file is no image."""
    return _open(path, lambda image: np.asarray(image.convert("RGB")))


def read_size(path: Path) -> tuple[int, int]:
    """(H, W), from the file's header alone. Raises `DataError` where the file is no image."""
    return _open(path, lambda image: (image.height, image.width))


def fitted(image: Array, height: int, width: int, labels: bool = False) -> Array:
    """A picture [H,W,3], with `labels` a map [H,W], at exactly this size: as it is, or centre-cropped to the aspect ratio and resized."""
    h, w = image.shape[:2]
    if (h, w) == (height, width):
        return np.ascontiguousarray(image)
    scale = min(h / height, w / width)
    ch, cw = int(height * scale), int(width * scale)
    y, x = (h - ch) // 2, (w - cw) // 2
    way = Image.Resampling.NEAREST if labels else Image.Resampling.BOX
    return np.asarray(Image.fromarray(image[y : y + ch, x : x + cw]).resize((width, height), way))


def at_size(data: DataSet, height: int, width: int, most: int = 24) -> DataSet:
    """`data` itself where all its pictures have this size, else at most `most` of them, `fitted`, and a name that says so."""
    if all(image.shape[:2] == (height, width) for image in data.images):
        return data
    chosen = range(0, len(data), -(-len(data) // most))
    return replace(
        data,
        name=f"{data.name}, cropped and resized to {width}x{height}",
        images=[fitted(data.images[k], height, width) for k in chosen],
        labels=[fitted(data.labels[k], height, width, labels=True) for k in chosen] if data.labels else [],
        targets=tuple(data.targets[k] for k in chosen) if data.targets else (),
    )


def label_table(classes: Iterable[int], ignored: Iterable[int]) -> Array:
    """uint8 [256], from ids in a label file to class indices: `classes` in order, 255 for `ignored`, 254 for all others."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[list(ignored)] = IGNORE
    for index, k in enumerate(classes):
        table[k] = index
    return table


def read_label(path: Path, size: tuple[int, ...], table: Array, form: str) -> Array:
    """uint8 [H,W], class indices or 255, of a grayscale or palette file of ids that is `size` = (H, W) and known to `table`.

    Raises `DataError` where it is not, which ends in `form`, what the files of this data set are.
    """

    def indices(image: Image.Image) -> Array:
        if image.mode not in ("L", "P"):
            raise DataError(f"{path} has mode {image.mode}, not L or P; {form}")
        return np.asarray(image)

    ids = _open(path, indices)
    if ids.shape != size:
        raise DataError(f"{path} is {ids.shape}, its image is {size}; {form}")
    label = table[ids]
    if (label == UNKNOWN).any():
        raise DataError(f"{path} holds class {ids[label == UNKNOWN].max()}; {form}")
    return label


def _files(folder: Path) -> Iterator[Path]:
    return (f for f in sorted(folder.iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES)


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
    table, form = label_table(range(11), [11]), "CamVid labels are PNG files of ids, 0..10 and 11 (unlabelled), as large as their image"
    images = [read_rgb(p) for p in paths]
    labels = [read_label(label_folder / p.name, i.shape[:2], table, form) for p, i in zip(paths, images, strict=True)]
    digest = _digest(paths + [label_folder / p.name for p in paths])
    return DataSet(f"camvid/{split}", images, labels, digest, classes=CAMVID_CLASSES)


def load_folder(root: Path, longest: int = 768) -> DataSet:
    """Every image in a folder, RGB, shrunk so that the longer side is at most `longest` pixels."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder of images")
    paths = list(_files(root))
    if not paths:
        raise DataError(f"no images in {root}; known endings: {', '.join(IMAGE_SUFFIXES)}")
    images = []
    for p in paths:
        image = read_rgb(p)
        ratio = longest / max(image.shape[:2])
        if ratio < 1:
            size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        images.append(image)
    return DataSet(root.name, images, [], _digest(paths))


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


def load(spec: str) -> DataSet:
    """A data set by its spec, one of `SPECS`; PATH may hold colons. Raises `DataError` for any other, and where a loader does."""
    from percodec.export.data.layouts import load_cityscapes, load_imagenet, load_voc

    splits = {"camvid": load_camvid, "cityscapes": load_cityscapes, "imagenet": load_imagenet, "voc": load_voc}
    kind, _, rest = spec.partition(":")
    path, _, last = rest.rpartition(":")
    try:
        if kind in splits and path and last:
            return replace(splits[kind](Path(path), last), origin=origin_of(Path(path)))
        if kind == "folder" and rest:
            return replace(load_folder(Path(rest)), origin=origin_of(Path(rest)))
        if kind == "synthetic":
            return load_synthetic(int(path), int(last))
    except (OSError, ValueError) as e:
        raise DataError(f"data set {spec!r}: {e}; use {SPECS}") from e
    raise DataError(f"unknown data set {spec!r}; use {SPECS}")


__all__ = [
    "CAMVID_CLASSES",
    "IGNORE",
    "Classes",
    "DataSet",
    "Files",
    "at_size",
    "fitted",
    "label_table",
    "load",
    "load_camvid",
    "load_folder",
    "load_synthetic",
    "read_label",
    "read_rgb",
    "read_size",
]
