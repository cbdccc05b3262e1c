"""What to add to each class's logit so that mean IoU is highest, found on training pictures when a run has ended.

A loss that weighs rare classes up makes them too likely everywhere, and the most probable class of a pixel is not the one that mean IoU
asks for. One number for each class mends both, and costs a vehicle nothing: it goes into the head's last bias. The first training set alone
is looked at, as class weights look at it: how often a class is mistaken is a matter of roads and cameras.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.data.dataset import DataSet
from percodec.export.metrics.scores import iou_of
from percodec.export.train.tasks import Joint
from percodec.export.train.validate import as_batch

PICTURES, PIXELS = 96, 20_000  # that are looked at; and of each picture
STEPS = (0.8, 0.4, 0.2)  # of an offset, the coarse ones first


def class_offsets(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits [K,P] and classes [P] below K -> float32 [K]. One class after another, as long as mean IoU of the classes that occur rises."""
    offsets = np.zeros(len(scores), np.float32)
    best = _miou(scores, labels, offsets)
    for size in STEPS:
        for k in range(len(scores)):
            for step in (size, -size):
                while True:
                    tried = offsets.copy()
                    tried[k] += step
                    found = _miou(scores, labels, tried)
                    if found < best + 1e-5:
                        break
                    best, offsets = found, tried
    return offsets


def _miou(scores: NDArray[np.float32], labels: NDArray[np.int64], offsets: NDArray[np.float32]) -> float:
    classes = len(scores)
    said = (scores + offsets[:, None]).argmax(0)
    counts = np.bincount(labels * classes + said, minlength=classes**2).reshape(classes, classes)
    return float(iou_of(counts)[counts.sum(1) > 0].mean())


@torch.no_grad()
def scores_of(model: Joint, data: DataSet) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits [K,P] and classes [P] of some pixels of some pictures of `data`. Pixels known by a group of classes alone are left out."""
    model.eval()
    device, scores, truth = next(model.parameters()).device, [], []
    for k in np.linspace(0, len(data) - 1, min(len(data), PICTURES)).round().astype(int).tolist():
        logits = model(as_batch(data.images[k]).to(device))[0].float().cpu().numpy()
        apart = max(1, math.ceil(math.sqrt(logits[0].size / PIXELS)))
        label = data.labels[k][: logits.shape[1] : apart, : logits.shape[2] : apart]
        known = label < len(logits)
        scores.append(logits[:, ::apart, ::apart][:, known])
        truth.append(label[known].astype(np.int64))
    return np.concatenate(scores, 1), np.concatenate(truth)


def lean(model: Joint, data: DataSet) -> list[float]:
    """Bring the offsets for `data` into the head, and give them to two digits."""
    found = class_offsets(*scores_of(model, data))
    head: Any = model.head
    head.lean(torch.from_numpy(found))
    return [round(float(v), 2) for v in found]


__all__ = ["class_offsets", "lean", "scores_of"]
