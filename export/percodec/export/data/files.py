"""Pictures and label maps as files: read into uint8 arrays, or left on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from percodec.runtime.images import IMAGE_SUFFIXES, is_picture_file, read_image
from percodec.sdk.errors import DataError, SourceError
from percodec.sdk.files import check_file

Array = NDArray[np.uint8]
T = TypeVar("T")

IGNORE = 255
_ORIENTATION = 0x0112  # EXIF
UNKNOWN = 254  # in a `label_table`: an id that no label file may hold
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm")  # lossless: ids in a JPEG are not the ids that were written


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
        check_file(path)
        with Image.open(path) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # all of them are Pillow's for a damaged file
        raise DataError(f"cannot read {path} as an image: {e}; remove or replace the file") from e


def read_rgb(path: Path, notes: list[str] | None = None) -> Array:
    """uint8 [H,W,3], as the vehicle reads it (`percodec.runtime.images.read_image`). Raises `DataError` where it is no image."""
    try:
        return read_image(path, notes)
    except SourceError as e:
        raise DataError(f"cannot read as an image: {e}; remove or replace the file") from e


def read_size(path: Path) -> tuple[int, int]:
    """(H, W) of the picture turned upright, from the file's header alone. Raises `DataError` where the file is no image."""

    def size(image: Image.Image) -> tuple[int, int]:
        lying = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)  # Pillow turns a TIFF's size itself
        return (image.width, image.height) if lying else (image.height, image.width)

    return _open(path, size)


def is_hidden(path: Path) -> bool:
    """True of what desktops leave in folders (`._x.png`, `.DS_Store`, `Thumbs.db`): no part of a data set."""
    return path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")


def pictures_in(folder: Path, notes: list[str], below: bool = False) -> list[Path]:
    """The pictures in `folder`, with `below` also those in folders in it, sorted; `notes` says how many hidden files were left out."""
    files = sorted(folder.rglob("*") if below else folder.iterdir())
    hidden = [f for f in files if any(is_hidden(Path(part)) for part in f.relative_to(folder).parts)]
    if hidden:
        notes.append(f"{folder}: {len(hidden)} hidden files such as {hidden[0].name} were left out")
    left = set(hidden)
    return [f for f in files if f not in left and f.suffix.lower() in IMAGE_SUFFIXES and is_picture_file(f)]


def labelled_split(root: Path, split: str, notes: list[str], name: str, expected: str) -> tuple[list[Path], Path]:
    """The pictures in `<root>/<split>/`, sorted, and the folder `<root>/<split>_labels/` of their label maps; `notes` as in `pictures_in`.

    Raises `DataError`, which begins with `name` and says what was `expected`, where a folder is missing or there is no picture.
    """
    folder, label_folder = root / split, root / f"{split}_labels"
    for f in (folder, label_folder):
        if not f.is_dir():
            raise DataError(f"{name}{f} is not a folder; expected {expected}")
    paths = pictures_in(folder, notes)
    if not paths:
        raise DataError(f"{name}no images in {folder}")
    return paths, label_folder


def label_of(picture: Path, folder: Path) -> Path:
    """The label of `picture` in `folder`, of the same name or stem. Raises `DataError` with the names that were looked for."""
    names = [picture.name] if picture.suffix.lower() in LABEL_SUFFIXES else []
    names += [name for suffix in LABEL_SUFFIXES if (name := picture.stem + suffix) not in names]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{picture} has no label: {folder} holds none of {', '.join(names)}")


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
        return np.asarray(ImageOps.exif_transpose(image))

    ids = _open(path, indices)
    if ids.shape != size:
        raise DataError(f"{path} is {ids.shape}, its image is {size}; {form}")
    label = table[ids]
    if (label == UNKNOWN).any():
        raise DataError(f"{path} holds class {ids[label == UNKNOWN].max()}; {form}")
    return label


__all__ = [
    "IGNORE",
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "Array",
    "Files",
    "fitted",
    "is_hidden",
    "label_of",
    "label_table",
    "labelled_split",
    "pictures_in",
    "read_label",
    "read_rgb",
    "read_size",
]
