"""PSNR, SSIM and MS-SSIM (Wang et al. 2003) on tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(a: Tensor, b: Tensor) -> float:
    """dB, peak 255, over all elements."""
    mse = float(((a - b) ** 2).mean())
    return 100.0 if mse == 0 else float(10 * np.log10(255**2 / mse))


MS_SSIM_SIDE = 11 * 2**4  # five scales of a window of 11


def ms_ssim(a: Tensor, b: Tensor, scales: int = 5) -> Tensor:
    """[N,C,H,W] in 0..255 -> [N]; Gaussian window 11, sigma 1.5; per channel, then averaged. Sides at least 11 * 2^(scales-1)."""
    return similarities(a, b, scales)[1]


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """[N,C,H,W] in 0..255 -> [N] (Wang et al. 2004): the same window, one scale."""
    return similarities(a, b, 1)[0]


def similarities(a: Tensor, b: Tensor, scales: int = 5) -> tuple[Tensor, Tensor]:
    """SSIM and MS-SSIM, [N] each, for little more than the price of the second."""
    side = 11 * 2 ** (scales - 1)
    if min(a.shape[-2:]) < side:
        raise ValueError(f"MS-SSIM with {scales} scales needs sides of at least {side}, got {tuple(a.shape[-2:])}")
    weights = torch.tensor(_MS_WEIGHTS[:scales])
    weights = weights / weights.sum()
    result = torch.ones(a.shape[:2], device=a.device)
    single = result.mean(1)
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        for s in range(scales):
            contrast, luminance = _similarity(a, b)
            if s == 0:
                single = (contrast * luminance).mean((1, 2, 3))
            if s == scales - 1:
                contrast = contrast * luminance
            result = result * contrast.mean((-2, -1)).clamp_min(1e-6) ** weights[s]
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return single, result.mean(1)


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast-structure and luminance terms per pixel, [N,C,H-10,W-10]."""
    channels = a.shape[1]
    x = torch.arange(11, dtype=torch.float32, device=a.device) - 5
    g = torch.exp(-(x**2) / (2 * 1.5**2))
    g = g / g.sum()
    row, column = g.view(1, 1, 1, 11).expand(channels, 1, 1, 11), g.view(1, 1, 11, 1).expand(channels, 1, 11, 1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, row, groups=channels), column, groups=channels)

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2
    cov = blur(a * b) - mu_a * mu_b
    return (2 * cov + c2) / (var_a + var_b + c2), (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)


__all__ = ["ms_ssim", "psnr", "similarities", "ssim"]
