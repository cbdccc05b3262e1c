"""What a data set is: pictures with what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from percodec.export.data.files import Array, fitted

GROUPS_FROM = 128  # label ids from here on are groups of classes, below 255

Classes = tuple[tuple[str, tuple[int, int, int]], ...]


@dataclass(frozen=True)
class DataSet:
    """Pictures with what is known about them; `digest` is provenance.

    `images`: uint8 [H,W,3] RGB each. `labels`: uint8 [H,W] each, class index, 128 + k: one of the classes `groups[k]`, or 255 (ignore);
    or empty. `targets`: class index
    per picture (classification), or empty. `classes`: name and display colour of each class index, or empty. `origin`: the record of
    how it was made, where it is a compressed or restored one (`percodec restore`). `notes`: what was left out when it was read.
    """

    name: str
    images: Sequence[Array]
    labels: Sequence[Array]
    digest: str
    targets: tuple[int, ...] = ()
    classes: Classes = ()
    origin: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.images)


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


__all__ = ["GROUPS_FROM", "Classes", "DataSet", "at_size"]
