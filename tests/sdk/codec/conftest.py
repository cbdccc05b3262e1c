"""Tables and latents that look like those of trained encoders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from percodec.sdk.codec import EntropyModel
from percodec.sdk.codec.entropy_model import count_pairs

Sample = tuple[EntropyModel, NDArray[np.uint8]]


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """sample(channels, height, width, levels=6, peak=3.0, seed=0, pairs=False): tables fitted to a random latent, and the latent."""

    def make(channels: int, height: int, width: int, levels: int = 6, peak: float = 3.0, seed: int = 0, pairs: bool = False) -> Sample:
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(channels, levels)) * peak
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        symbols = np.stack([rng.choice(levels, size=(height, width), p=row) for row in p]).astype(np.uint8)
        if pairs:
            return EntropyModel.from_counts(count_pairs(symbols, levels)), symbols
        counts = np.stack([np.bincount(plane.ravel(), minlength=levels) for plane in symbols])
        return EntropyModel.from_counts(counts), symbols

    return make
