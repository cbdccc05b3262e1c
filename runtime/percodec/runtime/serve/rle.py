"""Label maps as COCO has masks: a run-length code for each class that is there, in the compressed form that pycocotools reads.

A mask's pixels are taken column by column; `counts` are lengths of runs in turn without and with the class, the first without. Each count
from the fourth on is written as its difference to the one two before it, in groups of 5 bits, the lowest first, a character each:
https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_GROUPS = 7  # of 5 bits: enough for differences of 32 bits


def rle_of(labels: Array, frame_id: int) -> bytes:
    """Labels of whole numbers [H,W] -> JSON, a list as in COCO's results of stuff segmentation, by class id.

    `[{"image_id": frame_id, "category_id": 3, "segmentation": {"size": [H, W], "counts": "..."}}, ...]`
    """
    pixels = labels.T.reshape(-1)
    begins = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    ends, values = np.append(begins[1:], pixels.size), pixels[begins]
    found = []
    for value in np.unique(values):
        runs = values == value
        edges = np.stack([begins[runs], ends[runs]], axis=1).reshape(-1)
        edges = np.append(edges, pixels.size) if edges[-1] < pixels.size else edges
        mask = {"size": list(labels.shape), "counts": _compressed(np.diff(edges, prepend=0))}
        found.append({"image_id": frame_id, "category_id": int(value), "segmentation": mask})
    return json.dumps(found, separators=(",", ":")).encode()


def _compressed(counts: Array) -> str:
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    written = np.zeros((len(rest), _GROUPS), np.uint8)
    used = np.zeros(written.shape, bool)
    more = np.ones(len(rest), bool)
    for k in range(_GROUPS):
        used[:, k] = more
        low = rest & 0x1F
        rest >>= 5
        more = more & np.where(low & 0x10, rest != -1, rest != 0)  # the highest bit that is written is the sign
        written[:, k] = low + 0x20 * more + 48
    return written[used].tobytes().decode("ascii")


__all__ = ["rle_of"]
