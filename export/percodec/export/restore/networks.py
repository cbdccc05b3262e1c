"""Restorers, and the discriminator that judges them. Design and sizes are ours: those of Katakol et al. 2020 are not recovered.

    residual    picture, bpp -> 1/2 -> 3x3 W -> B x [3x3, scale and shift by bpp, 3x3, +] -> + -> 3x3 -> x2 -> + picture
    corrector   the same with 24 channels and two blocks: 25 k parameters, as small as a rival of its size gets
    latent      symbols -> centers -> 3x3 128 -> blocks at 1/8 -> x2 -> blocks at 1/4 -> x4 -> picture: the decoder, replaced

Which one should I use? `residual`: one serves every rate of a codec. `latent` knows one bundle only, but reads what was sent, not what a
decoder made of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.models.autoencoder import plain

NETWORKS = ("residual", "corrector", "latent")
LEAST_BPP, MOST_BPP = 0.01, 8.0  # what the condition may be; beyond, no codec of interest


class Modulated(nn.Module):
    """Residual block whose middle is scaled and shifted per channel by the condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(condition, 2 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # without normalisation, blocks start close to the identity

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        return x + self.second(F.relu(self.first(x) * (1 + scale) + shift))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Decoded picture [N,3,H,W] in 0..255 and bits per pixel [N] -> restored picture [N,3,H,W] in 0..255, unclipped. Sides are even."""

    def __init__(self, width: int = 48, blocks: int = 6, condition: int = 16) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(1, condition), nn.ReLU())
        self.first = nn.Conv2d(12, width, 3, padding=1)
        self.blocks = nn.ModuleList(Modulated(width, condition) for _ in range(blocks))
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, bpp: Tensor) -> Tensor:
        c = self.condition(torch.log2(bpp.clamp(LEAST_BPP, MOST_BPP)).view(-1, 1))
        x = start = self.first(F.pixel_unshuffle(image / 128 - 1, 2))
        for block in self.blocks:
            x = block(x, c)
        return image + 128 * F.pixel_shuffle(self.last(F.relu(x + start)).float(), 2)


class Latent(nn.Module):
    """Center values of a latent [N,C,h,w] -> restored picture [N,3,8h,8w] in 0..255, unclipped. `bpp` is not looked at: one bundle."""

    def __init__(self, channels: int, width: int = 128, blocks: int = 6) -> None:
        super().__init__()
        self.channels, half = channels, width // 2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *(plain(width) for _ in range(blocks - blocks // 2)),
            nn.Conv2d(width, 4 * half, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            *(plain(half) for _ in range(blocks // 2)),
            nn.Conv2d(half, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )

    def forward(self, q: Tensor, bpp: Tensor) -> Tensor:
        return 128 + 64 * self.layers(q).float()  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """Compressed and candidate picture, [N,3,H,W] in 0..255 each -> verdicts of overlapping patches at full and at half size.

    Each [N,1,h,w]: 1 for "original", 0 for "restored" (least squares). The compressed picture is its condition, as in image translation.
    """

    def __init__(self, width: int = 32, scales: int = 2) -> None:
        super().__init__()
        self.scales = nn.ModuleList(self._judge(width) for _ in range(scales))

    @staticmethod
    def _judge(width: int) -> nn.Module:
        layers: list[nn.Module] = []
        for cin, cout, stride in ((6, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 1)):
            layers += [nn.Conv2d(cin, cout, 4, stride, padding=1), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, padding=1))

    def forward(self, compressed: Tensor, candidate: Tensor) -> list[Tensor]:
        x, verdicts = torch.cat((compressed, candidate), 1) / 128 - 1, []
        for judge in self.scales:
            verdicts.append(judge(x).float())
            x = F.avg_pool2d(x, 2)
        return verdicts


__all__ = ["LEAST_BPP", "MOST_BPP", "NETWORKS", "Discriminator", "Latent", "Modulated", "Residual"]
