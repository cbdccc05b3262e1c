"""Batch norm behind a convolution: brought into it, and what is left of it then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def norms_behind(module: nn.Module) -> Iterator[tuple[nn.Sequential, int, nn.Conv2d | nn.ConvTranspose2d, nn.BatchNorm2d]]:
    """(sequence, place of the convolution in it, convolution, batch norm) of each such pair."""
    for parent in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        for k in range(len(parent) - 1):
            conv, norm = parent[k], parent[k + 1]
            if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                yield parent, k, conv, norm


def fused(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of a convolution that does what the two do, with the norm's running statistics."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    transpose = isinstance(conv, nn.ConvTranspose2d)
    return fuse_conv_bn_weights(conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias, transpose=transpose)


@torch.no_grad()
def make_idle(norm: nn.BatchNorm2d) -> None:
    """Leave it its bias and nothing else: 1 * x + bias."""
    norm.reset_running_stats()
    norm.weight.fill_((1 + norm.eps) ** 0.5)


def is_idle(norm: nn.BatchNorm2d) -> bool:
    """Is it as `make_idle` leaves it? One that is new has a weight of 1."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scaled = torch.full_like(norm.weight, (1 + norm.eps) ** 0.5)
    return not mean.any() and bool((variance == 1).all()) and torch.equal(norm.weight, scaled)


__all__ = ["fused", "is_idle", "make_idle", "norms_behind"]
