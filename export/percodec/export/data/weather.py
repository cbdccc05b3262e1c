"""What light, weather and lenses do to a picture, before the encoder sees it: night, haze, blur, noise, glare, faded colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


def night(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Darker by a curve, bluish, grainy."""
    tint = torch.tensor([rng.uniform(0.75, 1.0), rng.uniform(0.8, 1.0), 1.0], dtype=torch.float32).view(3, 1, 1)
    dark = 255 * (x / 255) ** rng.uniform(1.0, 2.2) * rng.uniform(0.25, 0.8) * tint
    return dark + _grain(x, rng, rng.uniform(0, 8))


def haze(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A light grey that is denser at the top, where things are far."""
    density = rng.uniform(0.05, 0.75) * torch.linspace(1, rng.uniform(0.2, 1), x.shape[1]).view(1, -1, 1)
    return x * (1 - density) + rng.uniform(160, 225) * density


def blur(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Gaussian, sigma up to 2 pixels."""
    sigma = rng.uniform(0.4, 2.0)
    kernel = torch.exp(-0.5 * (torch.arange(-5, 6) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).float().expand(3, 1, 11)
    padded = F.pad(x[None], (5, 5, 5, 5), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[..., None], groups=3), kernel[:, :, None], groups=3)[0]


def noise(x: Tensor, rng: np.random.Generator) -> Tensor:
    return x + _grain(x, rng, rng.uniform(2, 16))


def glare(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Exposed up to 2.5 times too long."""
    return x * rng.uniform(1.2, 2.5) + rng.uniform(0, 30)


def colour(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Grey to vivid, another curve, another white."""
    grey = (x * _LUMA).sum(0, keepdim=True)
    white = torch.tensor(rng.uniform(0.8, 1.2, 3), dtype=torch.float32).view(3, 1, 1)
    vivid = (grey + (x - grey) * rng.uniform(0, 1.6)).clamp(0, 255)
    return 255 * (vivid / 255) ** rng.uniform(0.6, 1.6) * white


KINDS: tuple[Callable[[Tensor, np.random.Generator], Tensor], ...] = (night, haze, blur, noise, glare, colour, colour, colour)


def weathered(x: Tensor, rng: np.random.Generator, probability: float) -> Tensor:
    """float [3,H,W] in 0..255, with `probability` made one of `KINDS`, which are tried out equally often."""
    if rng.random() >= probability:
        return x
    return KINDS[int(rng.integers(len(KINDS)))](x, rng).clamp(0, 255)


def _grain(x: Tensor, rng: np.random.Generator, sigma: float) -> Tensor:
    return torch.from_numpy(rng.normal(0, sigma, x.shape).astype(np.float32))


__all__ = ["KINDS", "blur", "colour", "glare", "haze", "night", "noise", "weathered"]
