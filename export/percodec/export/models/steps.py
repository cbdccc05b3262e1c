"""Uniform scalar quantization with a step of its own for each channel, and what its symbols cost with contexts.

    z [N,C,h,w] -> u = z / step -> round, saturate -> + offset -> symbols uint8       q = (symbols - offset) * step

A light encoder needs it: most channels say 0 nearly everywhere and need few levels, the mean of a block needs a hundred. The
rate is not a histogram's, as `Quantizer`'s is, but that of a Laplace distribution whose place and width come from symbols that a decoder
has by then: earlier channels around the symbol, and the rows above it in its own. That is what the coder's static contexts do in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.models.quantizer import Quantized

SATURATION = 127  # |symbol - offset| never exceeds it, so that a symbol is a byte


class Contexts(nn.Module):
    """Latents in steps [N,C,h,w] -> bits [N,C,h,w], each symbol under a Laplace distribution given symbols decoded before it.

    place = masked 3x3 of u, width = masked 3x3 of |u|: of earlier channels all nine neighbours, of its own channel the row above.
    """

    mask: Tensor
    spread: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        mask = torch.zeros(channels, channels, 3, 3)
        for c in range(channels):
            mask[c, :c] = 1
            mask[c, c, 0] = 1
        self.register_buffer("mask", mask, persistent=False)
        # Typical |u| of each channel: what the weights are relative to, so that all learn at one rate.
        self.register_buffer("spread", torch.ones(channels))
        self.place = nn.Parameter(torch.zeros(channels, channels, 3, 3))
        self.place_bias = nn.Parameter(torch.zeros(channels))
        self.width = nn.Parameter(torch.zeros(channels, channels, 3, 3))
        self.width_bias = nn.Parameter(torch.zeros(channels))

    def laplace(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """(place, width) of every symbol, in steps."""
        spread = self.spread.view(-1, 1, 1)
        relative = known / spread
        place = F.conv2d(relative, self.place * self.mask, self.place_bias, padding=1)
        width = F.conv2d(relative.abs(), self.width * self.mask, self.width_bias, padding=1)
        return place * spread, F.softplus(width) * spread + 0.02

    def forward(self, known: Tensor, coded: Tensor) -> Tensor:
        """Bits of `coded`, where `known` is what neighbours are taken from: the same, without gradient where only the model learns."""
        place, width = self.laplace(known)
        r = (coded - place).abs()
        # P(r - 1/2 .. r + 1/2) of a Laplace distribution, by cases, in logarithms: exact far out, where the difference would be 0.
        far = -(r - 0.5) / width + torch.log(-torch.expm1(-1 / width)) - math.log(2)
        inner = (r.clamp_max(0.5) / width).cosh() * torch.exp(-0.5 / width)
        near = torch.log((1 - inner).clamp_min(1e-9))
        return -torch.where(r > 0.5, far, near) / math.log(2)


class Steps(nn.Module):
    """One step per channel. `levels` and `offset` bound the symbols: 0 .. levels - 1, `offset` for 0."""

    levels: Tensor
    offset: Tensor

    def __init__(self, channels: int, step: float = 0.5) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.full((channels,), math.log(step)))
        self.register_buffer("levels", torch.full((channels,), 2 * SATURATION + 1))
        self.register_buffer("offset", torch.full((channels,), SATURATION))
        self.contexts = Contexts(channels)

    @property
    def step(self) -> Tensor:
        """float32 [C], above 0."""
        return self.log_step.exp()

    def in_steps(self, z: Tensor) -> Tensor:
        return z.float() / self.step.view(-1, 1, 1)

    def forward(self, z: Tensor) -> Quantized:
        """`q` is what a decoder reads; `evidence` is u with the noise that rounding adds while training, and rounded otherwise."""
        u = self.in_steps(z)
        hard = self._saturated(u.round())
        evidence = u + torch.rand_like(u) - 0.5 if self.training else hard
        return Quantized((u + (hard - u).detach()) * self.step.view(-1, 1, 1), evidence)

    def _saturated(self, rounded: Tensor) -> Tensor:
        low, high = -self.offset.view(-1, 1, 1), (self.levels - 1 - self.offset).view(-1, 1, 1)
        return torch.minimum(torch.maximum(rounded, low), high)

    def symbols(self, z: Tensor) -> Tensor:
        """uint8 [N,C,h,w]."""
        return (self._saturated(self.in_steps(z).round()) + self.offset.view(-1, 1, 1)).to(torch.uint8)

    def values(self, symbols: Tensor) -> Tensor:
        """uint8 [N,C,h,w] -> float, what the symbols stand for."""
        return (symbols.float() - self.offset.view(-1, 1, 1)) * self.step.view(-1, 1, 1)

    def bits_per_symbol(self, quantized: Quantized, average: Callable[[Tensor], Tensor] = lambda p: p) -> Tensor:
        """Mean bits of a symbol under `contexts`, those of hard symbols; while training the gradient is that of noisy ones.

        At 0.2 bits a symbol noise takes half as many bits again as rounding: a target for the one is none for the other.
        """
        noisy = quantized.evidence.float()
        with torch.autocast(noisy.device.type, enabled=False):  # bfloat16 has 8 bits, the place of a mean takes as many before the point
            rate = average(self.contexts(noisy, noisy).mean())
            if not self.training:
                return rate
            with torch.no_grad():
                hard = (quantized.q.float() / self.step.view(-1, 1, 1)).round()
                exact = average(self.contexts(hard, hard).mean())
            return rate + (exact - rate).detach()

    def bits(self, symbols: Tensor) -> Tensor:
        """uint8 [N,C,h,w] -> bits [N,C,h,w] of each symbol under `contexts`."""
        steps = symbols.float() - self.offset.view(-1, 1, 1)
        return self.contexts(steps, steps)  # type: ignore[no-any-return]

    @torch.no_grad()
    def fit_range(self, lowest: Tensor, highest: Tensor) -> None:
        """Levels for symbols that were seen to lie in `lowest` .. `highest` (int [C], in steps), and a quarter more beyond either end."""
        room = ((highest - lowest + 3) // 4).clamp_min(1)
        low, high = (lowest - room).clamp(-SATURATION, 0), (highest + room).clamp(0, SATURATION)
        self.offset.copy_(-low)
        self.levels.copy_(high - low + 1)


__all__ = ["SATURATION", "Contexts", "Steps"]
