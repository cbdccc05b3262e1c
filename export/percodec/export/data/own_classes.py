"""Pictures with label maps and classes of your own: a folder that says in `classes.yaml` what its ids mean.

PATH/classes.yaml            classes:
PATH/train/*.jpg               - {name: road, colour: [128, 64, 128], ids: [3, 7]}      several ids are merged
PATH/train_labels/*.png        - {name: car, colour: [64, 0, 128], ids: [8]}
PATH/val/, PATH/val_labels/  ignore: [0, 255]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from percodec.export.data.dataset import Classes, DataSet
from percodec.export.data.files import label_of, label_table, labelled_split, read_label, read_rgb
from percodec.export.data.small_sets import digest_of
from percodec.sdk.errors import DataError
from percodec.sdk.files import read_file
from percodec.sdk.text import printable
from percodec.sdk.yaml_text import read_yaml

_MOST_CLASSES = 64
_MOST_BYTES = 1 << 16


def load_own(root: Path, split: str) -> DataSet:
    """`<root>/<split>/` and `<root>/<split>_labels/`, one PNG of ids for each picture, with the classes of `<root>/classes.yaml`.

    Raises `DataError` where the file, a folder, a label or an id is not what it says.
    """
    path = root / "classes.yaml"
    classes, ids, ignored = _classes(path)
    notes: list[str] = []
    paths, label_folder = labelled_split(
        root, split, notes, "", f"{root}/{split}/ with pictures and {root}/{split}_labels/ with their label maps"
    )
    table = label_table([], ignored)
    for index, merged in enumerate(ids):
        table[merged] = index
    form = f"label maps are PNG files of ids that {path} lists, as large as their image"
    label_paths = [label_of(p, label_folder) for p in paths]
    images = [read_rgb(p, notes) for p in paths]
    labels = [read_label(p, i.shape[:2], table, form) for p, i in zip(label_paths, images, strict=True)]
    return DataSet(f"{root.name}/{split}", images, labels, digest_of([path, *paths, *label_paths]), classes=classes, notes=tuple(notes))


def _classes(path: Path) -> tuple[Classes, list[list[int]], list[int]]:
    """-> names with colours, the ids of each class, the ids that are ignored."""
    try:
        said = read_yaml(read_file(path, _MOST_BYTES).decode("utf-8-sig"))
    except OSError as e:
        raise DataError(f"{path}: {e.strerror or e}; it says which ids the label maps hold and what they are called") from e
    except ValueError as e:
        raise DataError(f"{path} is not YAML: {e}") from e
    form = f"{path}: write it as classes: [{{name: road, colour: [128, 64, 128], ids: [3, 7]}}, ...] and ignore: [255]"
    if not isinstance(said, dict) or set(said) - {"classes", "ignore"} or not isinstance(said.get("classes"), list):
        raise DataError(form)
    if not 2 <= len(said["classes"]) <= _MOST_CLASSES:
        raise DataError(f"{path} has {len(said['classes'])} classes; 2 to {_MOST_CLASSES} can be learned")
    ignored = _bytes(said.get("ignore", []), form)
    names: list[tuple[str, tuple[int, int, int]]] = []
    ids: list[list[int]] = []
    for one in said["classes"]:
        if not isinstance(one, dict) or set(one) != {"name", "colour", "ids"} or not isinstance(one["name"], str):
            raise DataError(f"{form}; got {str(one)[:80]!r}")
        name, colour, merged = one["name"], _bytes(one["colour"], form), _bytes(one["ids"], form)
        if not name or len(name) > 64 or printable(name) != name:
            raise DataError(f"{path}: a class is called {name[:80]!r}; use 1 to 64 printable characters")
        if len(colour) != 3 or not merged:
            raise DataError(f"{path}: class {name} needs a colour of three numbers and at least one id")
        names.append((name, (colour[0], colour[1], colour[2])))
        ids.append(merged)
    everything: dict[str, list[Any]] = {"id": [*ignored, *(k for merged in ids for k in merged)], "name": [n for n, _ in names]}
    for what, values in everything.items():
        twice = next((v for v in values if values.count(v) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: the {what} {twice} is there twice")
    return tuple(names), ids, ignored


def _bytes(value: Any, form: str) -> list[int]:
    if not isinstance(value, list) or len(value) > 256 or not all(type(v) is int and 0 <= v <= 255 for v in value):
        raise DataError(f"{form}; numbers are whole, 0 to 255; got {str(value)[:80]!r}")
    return value


__all__ = ["load_own"]
