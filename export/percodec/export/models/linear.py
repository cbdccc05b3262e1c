"""Codecs whose encoder is a linear transform, or nearly one, and whose decoder does the work.

    image -> g_a: one convolution of stride 8 -> Steps -> q -> g_s: one 3x3 back to blocks + residual units at 1/8 -> image

`block`: 8x8 blocks, as JPEG cuts them, 0.14 kMAC/px at C = 48. `refined`: the same and a small residual stage at 1/8, by which the
channels that say most see the blocks around, 0.46 kMAC/px; it may begin as a trained `block`. Both begin as the Karhunen-Loeve transform
of 8x8x3 blocks (`percodec.export.train.klt`): what a transform can say without training is there at the first step. Channels fall in
variance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from percodec.export.models.autoencoder import Autoencoder, plain
from percodec.export.models.steps import Steps

BLOCK = 8


class BlockDecoder(nn.Module):
    """q [N,C,h,w] -> [N,3,8h,8w]: a linear map of 3x3 latents to a block, plus what residual units at 1/8 add to it (0 at first)."""

    def __init__(self, channels: int, hidden: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, 3 * BLOCK**2, 3, padding=1)
        last = nn.Conv2d(hidden, 3 * BLOCK**2, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), *(plain(hidden) for _ in range(units)), nn.ReLU(), last)
        self.blocks = nn.PixelShuffle(BLOCK)

    def forward(self, q: Tensor) -> Tensor:
        return self.blocks(self.linear(q) + self.residual(q))  # type: ignore[no-any-return]


class Refinement(nn.Module):
    """x [N,C,h,w] with a 3x3 of a 3x3 of its first `channels` added to them, 0 at first."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        last = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.channels = channels
        self.body = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        leading = x[:, : self.channels]
        return torch.cat([leading + self.body(leading), x[:, self.channels :]], 1)


def block(channels: int = 48, levels: int = 255, width: float = 1.0) -> Autoencoder:
    """0.14 kMAC/px at C = 48. `width` scales the decoder's units.

    image -> 8x8 s8 C -> q -> 3x3 192 + [3x3 128, 6 x residual, 3x3 192] -> pixel shuffle 8
    """
    g_a = nn.Sequential(nn.Conv2d(3, channels, BLOCK, BLOCK))
    g_s = BlockDecoder(channels, round(128 * width), 6)
    return Autoencoder("block", g_a, g_s, channels, levels, quantizer=Steps(channels))


def refined(channels: int = 48, levels: int = 255, width: float = 1.0) -> Autoencoder:
    """0.46 kMAC/px at C = 48. `width` scales the decoder's units.

    image -> 8x8 s8 C -> + [3x3 48, 3x3 C/2] of the first half of the channels -> q -> as `block`
    """
    g_a = nn.Sequential(nn.Conv2d(3, channels, BLOCK, BLOCK), Refinement(channels // 2, 48))
    g_s = BlockDecoder(channels, round(128 * width), 6)
    return Autoencoder("refined", g_a, g_s, channels, levels, quantizer=Steps(channels))


def take_transform(codec: Autoencoder, basis: Tensor, back: Tensor, bias: Tensor) -> None:
    """Make `codec` the transform whose rows are `basis` [C,3,8,8]; its decoder's linear map `back` [192,C,3,3] with `bias` [192]."""
    first = codec.g_a[0]  # type: ignore[index]
    with torch.no_grad():
        first.weight.copy_(basis)
        first.bias.zero_()
        codec.g_s.linear.weight.copy_(back)  # type: ignore[union-attr, operator]
        codec.g_s.linear.bias.copy_(bias)  # type: ignore[union-attr, operator]


__all__ = ["BLOCK", "BlockDecoder", "Refinement", "block", "refined", "take_transform"]
