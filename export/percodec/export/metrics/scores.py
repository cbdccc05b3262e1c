"""Mean intersection over union, average precision, top-k: numpy only, so that a vehicle computer can judge its engines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_precision(scores: NDArray[Any], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[N,K] scores and bools -> [K]: area under the step-wise precision-recall curve; NaN where a class has no positives."""
    out = np.full(scores.shape[1], np.nan)
    for k in range(scores.shape[1]):
        order = np.argsort(-scores[:, k], kind="stable")
        ranked, hit = scores[order, k], truth[order, k]
        if not hit.any():
            continue
        last = np.r_[ranked[1:] != ranked[:-1], True]  # equal scores are one threshold
        found = np.cumsum(hit)[last]
        precision = found / (np.flatnonzero(last) + 1)
        out[k] = float((np.diff(np.r_[0, found]) * precision).sum() / found[-1])
    return out


def top_k(scores: NDArray[Any], target: NDArray[Any], k: int) -> float:
    """Share of rows of [N,K] whose target [N] is among the k highest scores."""
    best = np.argsort(-scores, 1, kind="stable")[:, :k]
    return float((best == np.asarray(target)[:, None]).any(1).mean())


def iou_of(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[..., truth, predicted] -> [..., class]; NaN where a class neither occurs nor is predicted."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    union = counts.sum(-2) + counts.sum(-1) - hit
    out = np.full(hit.shape, np.nan)
    np.divide(hit, union, out=out, where=union > 0)
    return out


class Confusion:
    """Pixel counts [truth, predicted]; pixels labelled 255 are not counted."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, predicted: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> None:
        known = truth != 255
        index = truth[known].astype(np.int64) * self.classes + predicted[known]
        self.counts += np.bincount(index, minlength=self.classes**2).reshape(self.classes, self.classes)

    def iou(self) -> np.ndarray[Any, Any]:
        """Per class; NaN where a class neither occurs nor is predicted."""
        return iou_of(self.counts)

    def miou(self) -> float:
        return float(np.nanmean(self.iou()))


__all__ = ["Confusion", "average_precision", "iou_of", "top_k"]
