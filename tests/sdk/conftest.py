"""A tiny bundle and its coder for everything that needs packets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.once import Once
from support.tiny_bundle import CHANNELS, HEIGHT, LEVELS, WIDTH, frames, make_bundle

from percodec.sdk import Bundle, PacketCodec
from percodec.sdk.bundle import SelfTest


@pytest.fixture(scope="session")
def pristine(once: Once) -> Path:
    """The tiny bundle's folder. Nothing here runs a graph, so the self-test is of random numbers."""
    rng = np.random.default_rng(1)
    symbols = rng.integers(0, LEVELS, (2, CHANNELS, HEIGHT // 8, WIDTH // 8), np.uint8)
    selftest = SelfTest(frames(2), symbols, rng.integers(0, 3, (2, HEIGHT, WIDTH), np.uint8), 0.001, 0.999)
    return once("pristine", lambda folder: make_bundle(folder, selftest=selftest))


@pytest.fixture(scope="session")
def tiny(pristine: Path) -> Bundle:
    return Bundle.open(pristine)


@pytest.fixture
def packet(tiny: Bundle) -> Callable[[int], bytes]:
    """A packet of the tiny bundle by frame id; other ids, other symbols."""
    codec = PacketCodec(tiny.entropy_model, *tiny.latent_shape[1:])

    def make(frame_id: int) -> bytes:
        symbols = np.random.default_rng(frame_id).integers(0, tiny.levels, tiny.latent_shape, dtype=np.uint8)
        return codec.encode(symbols, frame_id, 1_000_000 * frame_id)

    return make
