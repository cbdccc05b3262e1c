"""What is added to the classes' logits when a segmentation has ended."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.models.resnet import DeepLab, ResNet  # noqa: E402
from percodec.export.models.segmentation import LatentFPN  # noqa: E402
from percodec.export.train.offsets import class_offsets  # noqa: E402


def iou(said: np.ndarray, truth: np.ndarray, classes: int) -> float:
    return float(np.mean([((said == k) & (truth == k)).sum() / ((said == k) | (truth == k)).sum() for k in range(classes)]))


def test_a_class_that_is_too_likely_is_held_back() -> None:
    rng = np.random.default_rng(4)
    truth = rng.choice(3, 4000, p=(0.7, 0.28, 0.02))
    scores = rng.normal(0, 1, (3, 4000)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[:, truth]
    scores[2] += 2.5
    found = class_offsets(scores, truth)
    before, after = (iou((scores + o[:, None]).argmax(0), truth, 3) for o in (np.zeros(3), found))
    assert found[2] - found[:2].max() < -1
    assert after > before + 0.1


def test_a_class_that_does_not_occur_is_no_reason() -> None:
    scores = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [-9, -9, -9, -9]], np.float32)
    assert not class_offsets(scores, np.array([0, 0, 1, 1])).any()


@pytest.mark.parametrize("kind", ["fpn", "deeplab"])
def test_a_head_leans_by_just_that(kind: str) -> None:
    torch.manual_seed(1)
    head = LatentFPN(4, 3, (8, 8, 8), 8) if kind == "fpn" else DeepLab(ResNet("cresnet39", 4, 0.125, dilated=True), 3)
    x, offsets = torch.randn(1, 4, 8, 16), torch.tensor([0.5, -1.0, 0.25])
    head.eval()
    with torch.no_grad():
        before = head(x)
        head.lean(offsets)
        assert torch.allclose(head(x), before + offsets.view(1, 3, 1, 1), atol=1e-4)
