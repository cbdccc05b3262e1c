"""A tiny bundle and its coder for everything that needs packets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from percodec.sdk import Bundle, PacketCodec

# importlib mode leaves sys.path alone; the tiny bundle is a shared module
sys.path[:0] = [p for p in [str(Path(__file__).parents[1])] if p not in sys.path]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from tiny_bundle import make_bundle

    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def packet(tiny: Bundle) -> Callable[[int], bytes]:
    """A packet of the tiny bundle by frame id; other ids, other symbols."""
    codec = PacketCodec(tiny.entropy_model, *tiny.latent_shape[1:])

    def make(frame_id: int) -> bytes:
        symbols = np.random.default_rng(frame_id).integers(0, tiny.levels, tiny.latent_shape, dtype=np.uint8)
        return codec.encode(symbols, frame_id, 1_000_000 * frame_id)

    return make
