"""Batch norm that a bundle gave away, back in place before training goes on.

A bundle's batch norms are in its convolutions, and a checkpoint made of it has batch norms that add a bias and nothing else. As training
begins they would scale every channel to a spread of one: another network than the bundle's, which has to be learned again. So each takes
mean and variance of its channel from a few batches, and a scale and an offset that give them back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from percodec.export.data.crops import Batch
from percodec.export.models.norms import is_idle

BATCHES = 8


def idle(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Those that add a bias and nothing else, as checkpoints of bundles and of `kept` heads have them."""
    return [norm for norm in model.modules() if isinstance(norm, nn.BatchNorm2d) and is_idle(norm)]


@torch.no_grad()
def settle(norms: list[nn.BatchNorm2d], objective: nn.Module, batch: Callable[[int], Batch]) -> None:
    """Give `norms` the statistics of what reaches them in the first batches; what the networks in `objective` compute stays."""
    sums: dict[nn.Module, Tensor] = {}

    def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double().movedim(1, 0).flatten(1)
        found = torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)])
        sums[norm] = sums[norm] + found if norm in sums else found

    objective.eval()
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    for step in range(BATCHES):
        objective(batch(step))
    for hook in hooks:
        hook.remove()
    for norm in norms:
        if norm not in sums:
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        count, total, squares = sums[norm]
        norm.running_mean.copy_(total / count)
        norm.running_var.copy_((squares / count - (total / count).square()).clamp_min(0))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.add_(norm.running_mean)


__all__ = ["idle", "settle"]
