"""Metrics against plain definitions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.metrics.scores import Confusion, average_precision, top_k  # noqa: E402
from percodec.export.metrics.similarity import ms_ssim, psnr, ssim  # noqa: E402


def test_psnr_of_a_known_error():
    a = torch.full((1, 3, 8, 8), 100.0)
    assert psnr(a, a + 5) == pytest.approx(10 * np.log10(255**2 / 25))
    assert psnr(a, a) == 100.0


def test_ms_ssim_is_one_for_equal_and_falls_with_noise():
    torch.manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24) * 255, scale_factor=8, mode="bilinear")
    noisy = [float(ms_ssim(a, (a + s * torch.randn_like(a)).clamp(0, 255))) for s in (0, 5, 20, 60)]
    assert noisy[0] == pytest.approx(1.0, abs=1e-5)
    assert noisy == sorted(noisy, reverse=True)
    assert noisy[-1] < 0.85


def test_ms_ssim_refuses_pictures_too_small_for_its_scales():
    with pytest.raises(ValueError, match="176"):
        ms_ssim(torch.zeros(1, 3, 100, 100), torch.zeros(1, 3, 100, 100))


def test_iou_counts_known_pixels_only():
    confusion = Confusion(3)
    confusion.add(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 255]))
    np.testing.assert_allclose(confusion.iou(), [0.5, 2 / 3, np.nan])
    assert confusion.miou() == pytest.approx((0.5 + 2 / 3) / 2)


def test_similarity_is_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image", reason="needs the dev extra")
    torch.manual_seed(1)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 30, 30) * 255, scale_factor=8, mode="bicubic").clamp(0, 255)
    b = (a + 12 * torch.randn_like(a)).clamp(0, 255)
    options = {"data_range": 255.0, "reduction": "none"}
    _, full = functional.structural_similarity_index_measure(a, b, return_full_image=True, **options)
    assert torch.allclose(ssim(a, b), full[..., 5:-5, 5:-5].mean((1, 2, 3)), atol=1e-4)  # its own mean holds the padded border
    theirs = functional.multiscale_structural_similarity_index_measure(a, b, **options)
    assert torch.allclose(ms_ssim(a, b), theirs, atol=1e-4)
    mean = sum(psnr(x, y) for x, y in zip(a, b, strict=True)) / 2
    assert mean == pytest.approx(float(functional.peak_signal_noise_ratio(a, b, data_range=255.0, dim=(1, 2, 3))), abs=1e-3)


def test_average_precision_and_top_k_are_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification", reason="needs the dev extra")
    rng = np.random.default_rng(3)
    scores, truth = rng.random((60, 5)).astype(np.float32), rng.random((60, 5)) < 0.3
    scores[:20] = np.round(scores[:20], 1)  # ties
    theirs = functional.multilabel_average_precision(torch.from_numpy(scores), torch.from_numpy(truth).long(), 5, average="none")
    assert np.allclose(average_precision(scores, truth), theirs.numpy(), atol=1e-5)
    truth[:, 2] = False
    assert np.isnan(average_precision(scores, truth)[2])
    target = rng.integers(0, 5, 60)
    for k in (1, 3):
        theirs = functional.multiclass_accuracy(torch.from_numpy(scores[20:]), torch.from_numpy(target[20:]), 5, average="micro", top_k=k)
        assert top_k(scores[20:], target[20:], k) == pytest.approx(float(theirs))
