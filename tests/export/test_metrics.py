"""Metrics against plain definitions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.evaluate.metrics import Confusion, ms_ssim, psnr  # noqa: E402


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
