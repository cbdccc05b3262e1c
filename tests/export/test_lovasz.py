from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from percodec.export.data.files import IGNORE
from percodec.export.train.lovasz import lovasz_softmax


def sure(labels: Tensor, classes: int) -> Tensor:
    """Logits [N,K,H,W] that leave no doubt of `labels`."""
    return 100 * F.one_hot(labels, classes).movedim(-1, 1).float()


def twice(labels: Tensor) -> Tensor:
    """Each pixel 2x2 times: every second row and column is what counts."""
    return labels.repeat_interleave(2, 1).repeat_interleave(2, 2)


def test_of_hard_decisions_it_is_one_less_iou() -> None:
    draw = torch.Generator().manual_seed(3)
    truth, said = (twice(torch.randint(0, 3, (2, 8, 8), generator=draw)) for _ in range(2))
    found = float(lovasz_softmax(sure(said, 4), truth, IGNORE))
    iou = [float(((truth == k) & (said == k)).sum() / ((truth == k) | (said == k)).sum()) for k in range(3)]
    assert found == pytest.approx(1 - sum(iou) / 3, abs=1e-5)


@pytest.mark.parametrize(("said", "loss"), [(0, 0.0), (1, 1.0)])
def test_right_and_wrong(said: int, loss: float) -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    assert float(lovasz_softmax(sure(truth + said, 2), truth, IGNORE)) == pytest.approx(loss, abs=1e-6)


def test_pixels_of_no_class_count_for_nothing() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    half = truth.clone()
    half[:, 4:], half[:, :2] = IGNORE, 240  # 240: a group of classes
    said = truth.clone()
    said[:, 4:] = 1
    said[:, :2] = 1
    assert float(lovasz_softmax(sure(said, 2), half, IGNORE)) == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros(1, 2, 8, 8, requires_grad=True)
    loss = lovasz_softmax(nothing, torch.full((1, 8, 8), IGNORE), IGNORE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert nothing.grad is not None
    assert not nothing.grad.any()


def test_a_thin_class_is_leant_towards() -> None:
    """One pixel in 32 is a pole, and what is seen of it, one pixel in 20 shows too: none by pixels, all of them by IoU."""
    draw = torch.Generator().manual_seed(1)
    truth = torch.zeros(1, 128, 128, dtype=torch.int64)
    truth[:, :, 40:44] = 1
    seen = (truth == 1) | (torch.rand(1, 128, 128, generator=draw) < 0.05)
    chance = {}
    for share in (0.0, 1.0):
        weight = torch.zeros(2, 2, requires_grad=True)  # logits by what is seen
        step = torch.optim.Adam([weight], 0.1)
        for _ in range(100):
            logits = weight[seen.long()].movedim(-1, 1)
            loss = F.cross_entropy(logits, truth) + share * lovasz_softmax(logits, truth, IGNORE)
            step.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            step.step()
        chance[share] = float(weight[1].detach().softmax(0)[1])
    assert chance[0.0] < 0.4 < 0.48 < chance[1.0]
