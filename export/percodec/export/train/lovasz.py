"""The Lovász-softmax loss: a convex surrogate of 1 - IoU, class by class (Berman et al., CVPR 2018, arXiv 1705.08790).

Cross-entropy counts pixels, so a class of thin things is worth little however it is weighted. This counts classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 0.01  # of errors: these come last in their order and weigh next to nothing; they are most, and sorting is what takes time


def lovasz_softmax(logits: Tensor, labels: Tensor, ignore: int) -> Tensor:
    """Logits [N,K,H,W], labels [N,H,W] -> mean over the classes that occur of the extended Jaccard loss, 0 where none does.

    Pixels whose label is `ignore` or no class are left out. The batch counts as one picture. Every second row and column is looked at:
    all of them would take as long as a small network's whole step, because errors are sorted. Errors below `SMALL` count as none.
    """
    logits, labels, classes = logits[:, :, ::2, ::2], labels[:, ::2, ::2], logits.shape[1]
    known = (labels != ignore) & (labels < classes)
    truth = labels[known]
    chances = logits.float().softmax(1).movedim(1, 0)[:, known]
    losses = [_extended(chances[k], truth == k) for k in torch.unique(truth).tolist()]
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _extended(chance: Tensor, truth: Tensor) -> Tensor:
    """Errors in falling order, each times what the Jaccard loss grows by when its pixel joins those that are wrong."""
    errors = torch.where(truth, 1 - chance, chance)
    large = (errors.detach() > SMALL).nonzero()[:, 0]
    errors, here, there_are = errors[large], truth[large], truth.sum()
    order = errors.detach().argsort(descending=True)
    right = here[order].double().cumsum(0)
    seen = torch.arange(1, len(right) + 1, dtype=torch.float64, device=right.device)
    jaccard = 1 - (there_are - right) / (there_are + seen - right)
    growth = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (errors[order] * growth.to(errors.dtype)).sum()


__all__ = ["lovasz_softmax"]
