"""A linear codec's start in closed form: the transform, its steps and its linear decoder from pictures alone, in seconds.

    blocks 8x8x3 -> covariance -> eigenvectors = basis              (Karhunen-Loeve transform)
    one step for all channels, by bisection, so that the rate is `bpp`
    3x3 dequantized latents -> block, by least squares               (Wiener filter)
    contexts by gradient descent on the symbols, which stay as they are

The rate is that of `Steps.contexts`. The Wiener filter gains 0.03 to 0.3 dB over the inverse transform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from percodec.export.models import Autoencoder, Steps
from percodec.export.models.linear import BLOCK, take_transform
from percodec.sdk.errors import UsageError

Say = Callable[[str], None]

_PICTURES = 128
_SIDE = 320
_CONTEXT_STEPS = 300


def klt_start(codec: Autoencoder, images: Sequence[NDArray[np.uint8]], bpp: float, seed: int = 0, say: Say = lambda text: None) -> None:
    """Fit `codec` (`block` or `refined`) to `images`, uint8 [H,W,3] each. Raises `UsageError` for another kind of codec."""
    if not isinstance(codec.quantizer, Steps):
        raise UsageError(f"--init klt is for codecs with a linear encoder, block and refined, not {codec.name}")
    codec.eval()
    pictures = _sample(images, seed)
    with torch.no_grad():
        normal = [codec.normalize(p) for p in pictures]
        basis = _transform(normal, codec.channels)
        inverse = basis.flatten(1).T.reshape(3 * BLOCK**2, codec.channels, 1, 1)
        take_transform(codec, basis, F.pad(inverse, (1, 1, 1, 1)), torch.zeros(3 * BLOCK**2))
        latents = [codec.g_a(p).float() for p in normal]
    saved = 0.3  # what contexts save of the order-0 rate, until it is known
    for turn in range(2):
        _take_step(codec.quantizer, latents, bpp / (1 - saved))
        with torch.no_grad():
            symbols = [codec.quantizer.in_steps(z).round() for z in latents]
        fit_contexts(codec.quantizer, symbols, seed)
        plain, coded = order0_bpp(symbols), contexts_bpp(codec.quantizer, symbols)
        saved = 1 - coded / plain
        step = float(codec.quantizer.step.detach()[0])
        say(f"klt: step {step:.4f}, order 0 {plain:.3f} bpp, with contexts {coded:.3f} bpp ({turn + 1} of 2)")
    with torch.no_grad():
        flat = torch.cat([s.flatten(2).permute(1, 0, 2).flatten(1) for s in symbols], 1)
        codec.quantizer.fit_range(flat.amin(1).long(), flat.amax(1).long())
        back, bias = _wiener([codec.quantizer(z).q for z in latents], normal, codec.channels)
        take_transform(codec, basis, back, bias)


def contexts_start(codec: Autoencoder, images: Sequence[NDArray[np.uint8]], seed: int = 0, say: Say = lambda text: None) -> None:
    """Learn the rate's contexts of a codec whose transform and steps stay as they are, from `images`, uint8 [H,W,3]."""
    assert isinstance(codec.quantizer, Steps)
    codec.eval()
    with torch.no_grad():
        symbols = [codec.quantizer.in_steps(codec.analyse(p)).round() for p in _sample(images, seed)]
        flat = torch.cat([s.flatten(2).permute(1, 0, 2).flatten(1) for s in symbols], 1)
        codec.quantizer.fit_range(flat.amin(1).long(), flat.amax(1).long())
    fit_contexts(codec.quantizer, symbols, seed)
    say(f"contexts: {contexts_bpp(codec.quantizer, symbols):.3f} bpp")


def _sample(images: Sequence[NDArray[np.uint8]], seed: int) -> list[Tensor]:
    """Up to 128 pictures' crops, float [1,3,h,w], sides multiples of 8 of at most 320."""
    rng = np.random.default_rng(seed)
    out = []
    for k in rng.permutation(len(images))[:_PICTURES]:
        image = images[int(k)]
        h, w = (min(side, _SIDE) // BLOCK * BLOCK for side in image.shape[:2])
        if not h or not w:
            continue
        y, x = int(rng.integers(image.shape[0] - h + 1)), int(rng.integers(image.shape[1] - w + 1))
        out.append(torch.from_numpy(image[y : y + h, x : x + w].copy()).permute(2, 0, 1)[None].float())
    return out


def _transform(normal: list[Tensor], channels: int) -> Tensor:
    """float [C,3,8,8], orthonormal, by falling variance."""
    blocks = torch.cat([F.unfold(p, BLOCK, stride=BLOCK)[0].T for p in normal]).double()
    # The mean is not taken out: it would have to be put back, and the first channel carries it in one symbol.
    _, vectors = torch.linalg.eigh(blocks.T @ blocks / len(blocks))
    basis: Tensor = vectors.flip(1).T[:channels].reshape(channels, 3, BLOCK, BLOCK).float()
    return basis


def order0_bpp(symbols: Sequence[Tensor]) -> float:
    """Rate of symbols [1,C,h,w] under each channel's own histogram."""
    bits, pixels = 0.0, sum(s.shape[-1] * s.shape[-2] for s in symbols) * BLOCK**2
    for c in range(symbols[0].shape[1]):
        counts = np.unique(np.concatenate([s[0, c].numpy().ravel() for s in symbols]), return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return bits / pixels


@torch.no_grad()
def contexts_bpp(quantizer: Steps, symbols: Sequence[Tensor]) -> float:
    """Rate of symbols [1,C,h,w], in steps, under `quantizer.contexts`."""
    pixels = sum(s.shape[-1] * s.shape[-2] for s in symbols) * BLOCK**2
    return sum(float(quantizer.contexts(s, s).sum()) for s in symbols) / pixels


def _take_step(quantizer: Steps, latents: list[Tensor], bpp: float) -> None:
    """One step for all channels at which the order-0 rate is `bpp`."""
    low, high = 1e-3, 1e3
    for _ in range(24):
        step = (low * high) ** 0.5
        rate = order0_bpp([(z / step).round() for z in latents])
        low, high = (step, high) if rate > bpp else (low, step)
    with torch.no_grad():
        quantizer.log_step.fill_(float(np.log(step)))


def fit_contexts(quantizer: Steps, symbols: Sequence[Tensor], seed: int = 0, steps: int = _CONTEXT_STEPS) -> None:
    """Learn `quantizer.contexts` on symbols [1,C,h,w], in steps, eight crops of 24x24 at a time."""
    contexts, rng = quantizer.contexts, np.random.default_rng(seed)
    with torch.no_grad():
        seen = torch.stack([s.abs().mean((0, 2, 3)) for s in symbols]).mean(0)
        contexts.spread.copy_(seen.clamp_min(0.25))
    optimizer = torch.optim.Adam(contexts.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps)
    side = min(24, *(min(s.shape[-2:]) for s in symbols))
    with torch.enable_grad():
        for _ in range(steps):
            crops = []
            for k in rng.integers(len(symbols), size=8):
                s = symbols[k]
                y, x = (int(rng.integers(s.shape[d] - side + 1)) for d in (2, 3))
                crops.append(s[..., y : y + side, x : x + side])
            batch = torch.cat(crops)
            loss = contexts(batch, batch).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()


def _wiener(q: list[Tensor], normal: list[Tensor], channels: int) -> tuple[Tensor, Tensor]:
    """The linear map of 3x3 latents to a block that has the least squared error: weight [192,C,3,3], bias [192]."""
    size = 9 * channels + 1
    a, b = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 3 * BLOCK**2, dtype=torch.float64)
    for z, p in zip(q, normal, strict=True):
        x = F.unfold(z, 3, padding=1)[0].T
        x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        a += x.T @ x
        b += x.T @ F.pixel_unshuffle(p, BLOCK)[0].flatten(1).T.double()
    a.diagonal().add_(1e-6 * float(a.diagonal().mean()))
    w = torch.linalg.solve(a, b).T.float()
    return w[:, :-1].reshape(3 * BLOCK**2, channels, 3, 3), w[:, -1]


__all__ = ["contexts_bpp", "contexts_start", "fit_contexts", "klt_start", "order0_bpp"]
