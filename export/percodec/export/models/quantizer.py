"""Soft-to-hard scalar quantization (Agustsson et al. 2017; constants as in Mentzer et al. 2018).

    z --nearest center--> symbols (uint8)          forward: hard
    z --softmax(-sigma (z - c)^2)--> soft value    backward: soft

sigma stays 1: no annealing is needed when the forward pass is always hard. Training may raise it (`codec.sigma`, `codec.sigma_final`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """`q`: what the chosen symbols stand for, float [N,C,h,w]. `evidence`: what the rate is estimated from, as the quantizer says."""

    q: Tensor
    evidence: Tensor


class Quantizer(nn.Module):
    """L scalar centers shared by all channels, kept sorted by construction (first center plus positive gaps).

    `uniform`: one gap for all, so that rounding finds the symbol and integer arithmetic can end in it.
    """

    def __init__(self, levels: int = 6, sigma: float = 1.0, uniform: bool = False) -> None:
        super().__init__()
        if not 2 <= levels <= 256:
            raise ValueError(f"levels must be 2..256, got {levels}")
        self.sigma = sigma
        self.levels = levels
        self.first = nn.Parameter(torch.tensor(-2.0))
        gap = torch.tensor(4.0 / (levels - 1))
        self.gap_logits = nn.Parameter(torch.log(torch.expm1(gap)).repeat(1 if uniform else levels - 1))

    @property
    def centers(self) -> Tensor:
        """float32 [L], strictly increasing."""
        gaps = (nn.functional.softplus(self.gap_logits) + 1e-3).expand(self.levels - 1)
        return torch.cat([self.first[None], self.first + torch.cumsum(gaps, 0)])

    @torch.no_grad()
    def follow(self, centers: Tensor) -> None:
        """Take these centers (float [L], increasing), or the even ones nearest to them. Another quantizer's come back to the last place."""
        gaps, first = centers.double().diff(), centers[0]
        if self.gap_logits.numel() == 1:
            at = torch.arange(self.levels) - (self.levels - 1) / 2
            even = ((at * centers.double()).sum() / (at * at).sum())[None]
            if ((gaps - even).abs() > 1e-5 * even).any():
                first = (centers.double().mean() + at[0] * even)[0]
            gaps = even
        self.first.copy_(first)
        self.gap_logits.copy_(torch.log(torch.expm1((gaps - 1e-3).clamp_min(1e-6))))
        for k in range(self.gap_logits.numel()):
            self._settle(k, centers)

    def _settle(self, k: int, centers: Tensor) -> None:
        """Of the floats next to logit k the one that gives `centers` best: the inverse above is right to a few units in the last place."""
        tried = [self.gap_logits[k].clone()]
        for end in (torch.tensor(-torch.inf), torch.tensor(torch.inf)):
            at = tried[0]
            for _ in range(16):
                at = torch.nextafter(at, end)
                tried.append(at)
        after = slice(1, None) if self.gap_logits.numel() == 1 else slice(k + 1, k + 2)

        def miss(logit: Tensor) -> float:
            self.gap_logits[k] = logit
            return float((self.centers - centers)[after].abs().max())

        self.gap_logits[k] = min(tried, key=miss)

    @property
    def midpoints(self) -> Tensor:
        """float32 [L-1]: a symbol is the number of midpoints below z, which equals the nearest center."""
        c = self.centers
        return (c[1:] + c[:-1]) / 2

    def forward(self, z: Tensor) -> Quantized:
        """`evidence` is the assignment to centers, one-hot forward and soft backward, [N,C,h,w,L]."""
        z = z.float()
        centers = self.centers
        soft = torch.softmax(-self.sigma * (z[..., None] - centers) ** 2, dim=-1)
        hard = nn.functional.one_hot(self.symbols(z).long(), len(centers)).to(soft.dtype)
        q_soft = (soft * centers).sum(-1)
        q_hard = (hard * centers).sum(-1)
        # q_hard carries the gradient of the centers, q_soft the gradient of z.
        q = q_hard + (q_soft - q_soft.detach())
        return Quantized(q, hard + (soft - soft.detach()))

    def values(self, symbols: Tensor) -> Tensor:
        """uint8 [N,C,h,w] -> float, the centers."""
        return self.centers[symbols.long()]

    def bits_per_symbol(self, quantized: Quantized, average: Callable[[Tensor], Tensor] = lambda p: p) -> Tensor:
        """`rate_bits_per_symbol` of the soft assignment."""
        return rate_bits_per_symbol(quantized.evidence, average)

    def symbols(self, z: Tensor) -> Tensor:
        """uint8 [N,C,h,w] in 0..L-1."""
        m = self.midpoints
        out = torch.zeros(z.shape, dtype=torch.uint8, device=z.device)
        for k in range(len(m)):
            out = out + (z > m[k]).to(torch.uint8)
        return out


def rate_bits_per_symbol(assignment: Tensor, average: Callable[[Tensor], Tensor] = lambda p: p) -> Tensor:
    """H(q): mean over channels of the entropy (bits) of each channel's symbol histogram over the batch.

    Per channel because the coder's static tables are per channel; one histogram for all channels would
    ask the encoder for a rate that the coder does not pay. `average` joins the histograms of several processes.
    """
    p = average(assignment.mean(dim=(0, 2, 3))).clamp_min(1e-9)
    return -(p * torch.log2(p)).sum(-1).mean()


__all__ = ["Quantized", "Quantizer", "rate_bits_per_symbol"]
