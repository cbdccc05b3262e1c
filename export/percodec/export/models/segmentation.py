"""Compressed-domain segmentation: latent in, class logits out, no RGB image in between.

    q [N,C,h,w] -> stem 1/8 -> stage 1/8 -> stage 1/16 -> stage 1/32 -> context
                                  |             |             |
                                  +---- + <---- + <---- + <---+      top-down sums (feature pyramid)
                                  v
                        3x3 -> K*16 -> pixel shuffle 4 -> logits at 1/2 -> bilinear -> [N,K,8h,8w]

Not dilated: an output-stride-8 DeepLab spends five times the operations for the same latent (only 5 % of it is saved by
skipping the RGB front), so the vehicle's head subsamples like a classifier and recovers resolution by sub-pixel logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.models.autoencoder import conv_bn


class BasicBlock(nn.Module):
    """ResNet V1 basic block; a projection where shape changes."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, cout, 3, stride), conv_bn(cout, cout, 3, relu=False))
        same = cin == cout and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(cin, cout, 1, stride, padding=0, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class LatentFPN(nn.Module):
    """Segmentation head on the latent's values [N,C,h,w] -> logits [N,K,8h,8w] (float).

    `scale` [C]: what brings the channels to one spread (`see`). Those of a linear transform differ a hundredfold, and a step of the
    optimiser changes all weights alike.
    """

    scale: Tensor

    def __init__(
        self, channels: int, classes: int, widths: tuple[int, int, int] = (96, 144, 192), pyramid: int = 96, dropout: float = 0.1
    ) -> None:
        super().__init__()
        w8, w16, w32 = widths
        self.classes = classes
        self.absorbed = False
        self.register_buffer("scale", torch.ones(channels))
        self.stem = conv_bn(channels, w8, 3)
        self.stage8 = nn.Sequential(BasicBlock(w8, w8), BasicBlock(w8, w8))
        self.stage16 = nn.Sequential(BasicBlock(w8, w16, 2), BasicBlock(w16, w16))
        self.stage32 = nn.Sequential(BasicBlock(w16, w32, 2), BasicBlock(w32, w32))
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(w32, w32, 1), nn.Sigmoid())
        self.lateral32 = conv_bn(w32, pyramid, 1)
        self.lateral16 = conv_bn(w16, pyramid, 1)
        self.lateral8 = conv_bn(w8, pyramid, 1)
        self.smooth16 = conv_bn(pyramid, pyramid, 3)
        self.smooth8 = conv_bn(pyramid, pyramid, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(pyramid, classes * 16, 1)

    @torch.no_grad()
    def see(self, latents: list[Tensor]) -> None:
        """Take `scale` from latents [1,C,h,w]."""
        self.scale.copy_(1 / torch.stack([q.float().square().mean((0, 2, 3)) for q in latents]).mean(0).sqrt().clamp_min(1e-3))

    @torch.no_grad()
    def absorb(self) -> None:
        """Bring `scale` into the first convolution's weights, for good."""
        self.stem[0].weight.mul_(self.scale.view(1, -1, 1, 1))  # type: ignore[operator]
        self.scale.fill_(1)
        self.absorbed = True

    @torch.no_grad()
    def lean(self, offsets: Tensor) -> None:
        """Add [K] to the classes' logits, for good."""
        assert self.classify.bias is not None
        self.classify.bias.add_(offsets.repeat_interleave(16).to(self.classify.bias))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        state_dict.setdefault(f"{prefix}scale", torch.ones_like(self.scale))  # checkpoints of earlier versions have none
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, q: Tensor) -> Tensor:
        f8 = self.stage8(self.stem(q if self.absorbed else q * self.scale.view(1, -1, 1, 1)))
        f16 = self.stage16(f8)
        f32 = self.stage32(f16)
        f32 = f32 * self.context(f32)
        p16 = self.smooth16(self.lateral16(f16) + _resize(self.lateral32(f32), f16))
        p8 = self.smooth8(self.lateral8(f8) + _resize(p16, f8))
        logits = F.pixel_shuffle(self.classify(self.dropout(p8)).float(), 4)
        return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


__all__ = ["BasicBlock", "LatentFPN"]
