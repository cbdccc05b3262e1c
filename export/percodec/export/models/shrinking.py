"""A head that reads a large frame's latent as the latent of the same picture, `by` times smaller, without rebuilding either.

    q [N,C,h,w] -> fold: one convolution, by x by, stride by -> steps, rounded -> q of the smaller picture [N,C,h/by,w/by] -> head

Shrinking a picture, decoding blocks and encoding them are all linear, or nearly so, and so is the three of them in a row: least squares on
pictures of both sizes finds it, and nothing else has to learn. A network that was trained on small frames then reads large ones at a small
frame's price, and what is coded, logged and sent is the large one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.models.autoencoder import Autoencoder
from percodec.export.models.steps import Steps
from percodec.sdk.errors import UsageError

_PICTURES = 12  # 2,700 values of each channel a picture of 480x360, for a map of 48 channels in 4x4 places


class Shrinking(nn.Module):
    """`head` behind `fold`, whose output is in steps: it is rounded, for a head knows no others. `step` [C]: the codec's."""

    step: Tensor

    def __init__(self, head: nn.Module, channels: int, by: int) -> None:
        super().__init__()
        self.by = by
        self.fold = nn.Conv2d(channels, channels, by, by)
        self.register_buffer("step", torch.ones(channels))
        self.head = head

    def forward(self, q: Tensor) -> Tensor:
        return self.head(self.fold(q).round() * self.step.view(1, -1, 1, 1))  # type: ignore[no-any-return]


@torch.no_grad()
def shrunk(head: nn.Module, codec: Autoencoder, images: Sequence[NDArray[np.uint8]], by: int) -> Shrinking:
    """`head` for frames whose sides are `by` times longer, from pictures uint8 [H,W,3] of the size that it was trained on.

    Raises `UsageError` for a codec without uniform steps: its centers are no scale to round to.
    """
    if not isinstance(codec.quantizer, Steps):
        raise UsageError(f"heads read smaller latents of linear codecs only (block, refined), not of {codec.name}")
    made = Shrinking(head, codec.channels, by).eval()
    made.step.copy_(codec.quantizer.step)
    size = codec.channels * by * by + 1
    gram, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, codec.channels, dtype=torch.float64)
    for image in images[:: max(1, len(images) // _PICTURES)]:
        side = [n // 8 * 8 for n in image.shape[:2]]
        small = torch.from_numpy(image[: side[0], : side[1]].copy()).permute(2, 0, 1)[None].float()
        large = F.interpolate(small, scale_factor=by, mode="bicubic", align_corners=False).clamp(0, 255).round()
        known = F.unfold(codec.encode(large).q, by, stride=by)[0].T.double()
        known = torch.cat([known, torch.ones(len(known), 1, dtype=torch.float64)], 1)
        wanted = codec.quantizer.in_steps(codec.analyse(small))[0].flatten(1).T.double()
        gram += known.T @ known
        right += known.T @ wanted
    gram.diagonal().add_(1e-4 * float(gram.diagonal().mean()))
    solved = torch.linalg.solve(gram, right).T.float()
    made.fold.weight.copy_(solved[:, :-1].reshape(codec.channels, codec.channels, by, by))
    assert made.fold.bias is not None
    made.fold.bias.copy_(solved[:, -1])
    return made


__all__ = ["Shrinking", "shrunk"]
