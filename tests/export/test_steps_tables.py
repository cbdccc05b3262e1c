"""Tables of uniform steps that were learnt: packets as small as they promise, and much smaller than by channels alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from percodec.export.bundles.steps_tables import learn_steps
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import EntropyModelError

CHANNELS = 14
OFFSETS = [40, *[9] * (CHANNELS - 1)]
ZEROS = np.zeros((1, 2, 2), np.uint8)
LEVELS = [81, *[19] * (CHANNELS - 1)]


def latents(count: int, seed: int) -> list[NDArray[np.uint8]]:
    """A smooth first channel, the slope of it in the second, the others Laplace, wide where a hidden picture says so, the last 0."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        height, width = int(rng.integers(18, 30)), int(rng.integers(20, 40))
        coarse = rng.normal(size=(height // 6 + 2, width // 6 + 2))
        grown = np.kron(coarse, np.ones((6, 6)))[:height, :width]
        smooth = sum(np.roll(grown, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)) / 25
        wide = np.exp(1.5 * np.roll(smooth, 7, 1))
        values = rng.laplace(size=(CHANNELS, height, width)) * wide * np.geomspace(1, 0.1, CHANNELS)[:, None, None]
        values[0] = 14 * smooth + rng.normal(size=(height, width))
        values[1] += np.gradient(14 * smooth, axis=1)
        values[-1] = 0
        offsets = np.array(OFFSETS)[:, None, None]
        out.append((np.rint(values) + offsets).clip(0, np.array(LEVELS)[:, None, None] - 1).astype(np.uint8))
    return out


def test_packets_are_as_small_as_the_tables_promise() -> None:
    train, unseen = latents(12, 0), latents(4, 1)
    model = learn_steps(train, OFFSETS, LEVELS)
    assert model.offsets == tuple(OFFSETS)
    assert model.levels_per_channel == tuple(LEVELS)
    assert model.planes[0].place, "a smooth channel is predicted from the row above"
    counts = [sum(np.bincount(z[c].ravel(), minlength=256) for z in train) + 1e-3 for c in range(CHANNELS)]
    alone = actual = promised = 0.0
    for z in unseen:
        packet = PacketCodec(model, *z.shape[1:]).encode(z, 0, 0)
        assert (PacketCodec(model, *z.shape[1:]).decode(packet)[1] == z).all()
        alone += sum(float(-np.log2(counts[c] / counts[c].sum())[z[c]].sum()) for c in range(CHANNELS)) / 8
        promised += model.cost_bits(z) / 8
        actual += len(packet) - 48
    assert promised < actual < 1.013 * promised
    assert actual < 0.85 * alone


def test_predicted_packets_are_smaller_where_frames_follow_each_other() -> None:
    """Frames that slide by a symbol: tables of profile 5 know it from the latent before, those of profile 4 cannot."""
    pairs = []
    for z in latents(16, 3):
        before = np.roll(z, -1, axis=2)
        before[:, :, -1] = np.array(OFFSETS)[:, None]
        pairs.append(np.concatenate([before, z]))
    train, unseen = pairs[:12], pairs[12:]
    alone = learn_steps([p[CHANNELS:] for p in train], OFFSETS, LEVELS)
    predicted = learn_steps(train, OFFSETS, LEVELS, temporal=True)
    assert predicted.profile == 5
    actual = 0
    for p in unseen:
        codec = PacketCodec(predicted, *p.shape[1:])
        packet = codec.encode(p, 0, 0)
        hidden = p.copy()
        hidden[CHANNELS:] = 255
        assert (codec.decode(packet, hidden)[1] == p).all()
        actual += len(packet)
    assert actual < 0.5 * sum(alone.cost_bits(p[CHANNELS:]) for p in unseen) / 8


def test_the_same_latents_give_the_same_bytes() -> None:
    few = latents(3, 2)
    assert learn_steps(few, OFFSETS, LEVELS).to_bytes() == learn_steps(list(few), tuple(OFFSETS), np.array(LEVELS).tolist()).to_bytes()


def test_a_latent_of_one_value_has_tables() -> None:
    model = learn_steps(np.full((2, 3, 4, 5), 7, np.uint8), [7, 7, 7], [8, 8, 8])
    symbols = np.full((3, 4, 5), 7, np.uint8)
    assert (PacketCodec(model, 4, 5).decode(PacketCodec(model, 4, 5).encode(symbols, 0, 0))[1] == symbols).all()
    symbols[2, 1, 1] = 3  # never seen
    assert (PacketCodec(model, 4, 5).decode(PacketCodec(model, 4, 5).encode(symbols, 0, 0))[1] == symbols).all()


@pytest.mark.parametrize(
    ("symbols", "offsets", "levels"),
    [([], [1], [2]), ([ZEROS], [1], [2, 2]), ([ZEROS + 2], [1], [2])],
)
def test_latents_that_do_not_fit_are_refused(symbols: list[NDArray[np.uint8]], offsets: list[int], levels: list[int]) -> None:
    with pytest.raises(EntropyModelError):
        learn_steps(symbols, offsets, levels)
