"""A head that keeps a share of the weights it started from (WiSE-FT; Wortsman et al., CVPR 2022, arXiv 2109.01903).

Training goes on where some pictures are, and a head forgets what others had taught it. Weights between those before and those after are
often better than both, on either kind of picture, because nothing steep lies between a head and what it began as.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from percodec.export.models.norms import fused, make_idle, norms_behind


@torch.no_grad()
def plain(head: nn.Module) -> dict[str, Tensor]:
    """The head's weights, each batch norm behind a convolution brought into it and left as 1 * x + bias: only so they can be averaged."""
    head = copy.deepcopy(head).cpu()
    for _, _, conv, norm in norms_behind(head):
        weight, bias = fused(conv, norm)
        conv.weight.copy_(weight)
        norm.bias.copy_(bias)
        make_idle(norm)
    return head.state_dict()


def averaged(start: dict[str, Tensor], tuned: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """`share` of `start` and the rest of `tuned`, both `plain`."""
    return {k: torch.lerp(v, start[k], share) if v.is_floating_point() else v for k, v in tuned.items()}


def keep(head: nn.Module, start: dict[str, Tensor], share: float) -> float:
    """Bring `share` of `start` (`plain`) into the head, and give the share."""
    head.load_state_dict(averaged(start, plain(head), share))
    return share


__all__ = ["averaged", "keep", "plain"]
