"""A head that keeps a share of the weights it started from (WiSE-FT; Wortsman et al., CVPR 2022, arXiv 2109.01903).

Training goes on where some pictures are, and a head forgets what others had taught it. Weights between those before and those after are
often better than both, on either kind of picture, because nothing steep lies between a head and what it began as.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from percodec.export.train.checkpoint import load_checkpoint, save_checkpoint
from percodec.export.train.tasks import Joint


@torch.no_grad()
def plain(head: nn.Module) -> dict[str, Tensor]:
    """The head's weights, each batch norm behind a convolution brought into it and left as 1 * x + bias: only so they can be averaged."""
    head = copy.deepcopy(head).cpu()
    for group in head.modules():
        for conv, norm in pairwise(group) if isinstance(group, nn.Sequential) else ():
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                factor = norm.weight / (norm.running_var + norm.eps).sqrt()
                norm.bias.sub_(norm.running_mean * factor)
                conv.weight.mul_(factor.view(-1, 1, 1, 1))
                norm.reset_running_stats()
                norm.weight.fill_((1 + norm.eps) ** 0.5)
    return head.state_dict()


def averaged(start: dict[str, Tensor], tuned: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """`share` of `start` and the rest of `tuned`, both `plain`."""
    return {k: torch.lerp(v, start[k], share) if v.is_floating_point() else v for k, v in tuned.items()}


def keep(folder: Path, model: Joint, start: dict[str, Tensor], share: float, check: Callable[[Joint], dict[str, Any]]) -> dict[str, Any]:
    """Bring `share` of `start` (`plain`) into the head of `folder`'s best.pt, once, and give its validation record, with `kept`."""
    best = folder / "best.pt"
    state = load_checkpoint(best)
    record: dict[str, Any] = state["val"]
    if "kept" not in record:
        model.load_state_dict(state["model"])
        assert model.head is not None
        model.head.load_state_dict(averaged(start, plain(model.head), share))
        model.eval()
        record = {**record, **check(model), "kept": share}
        save_checkpoint(best, {**state, "model": model.state_dict(), "val": record})
    return record


__all__ = ["averaged", "keep", "plain"]
