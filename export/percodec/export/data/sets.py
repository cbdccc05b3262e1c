"""A data set by its spec: `load("camvid:PATH:val")`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from percodec.export.data.dataset import DataSet
from percodec.export.data.idd_lite import load_idd_lite
from percodec.export.data.large_sets import load_cityscapes, load_imagenet, load_voc
from percodec.export.data.origin import origin_of
from percodec.export.data.own_classes import load_own
from percodec.export.data.small_sets import load_camvid, load_folder, load_synthetic
from percodec.sdk.errors import DataError

SPECS = (
    "camvid:PATH:SPLIT, cityscapes:PATH:SPLIT, idd_lite:PATH:SPLIT, imagenet:PATH:SPLIT, own:PATH:SPLIT, voc:PATH:SPLIT, folder:PATH or "
    "synthetic:COUNT:SEED"
)


def load(spec: str, groups: bool = False) -> DataSet:
    """A data set by its spec, one of `SPECS`; PATH may hold colons.

    Raises `DataError` for any other, where a loader does, and where labels are groups of classes and the caller has no use for `groups`.
    """
    data = _load(spec)
    if data.groups and not groups:
        raise DataError(f"data set {spec!r}: its labels are groups of classes; a network can learn from them, but not be judged by them")
    return data


def _load(spec: str) -> DataSet:
    splits = {
        "camvid": load_camvid,
        "cityscapes": load_cityscapes,
        "idd_lite": load_idd_lite,
        "imagenet": load_imagenet,
        "own": load_own,
        "voc": load_voc,
    }
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


__all__ = ["SPECS", "load"]
