"""Profiles 4 and 5: the core writes what the reference writes, reads it back, and refuses what cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.steps_models import random_latent, random_model

from percodec.sdk.codec import EntropyModel, PacketCodec, StepsModel, _rans, read_model, reference
from percodec.sdk.codec.steps import CLASSES, Near
from percodec.sdk.errors import CodecError, EntropyModelError

KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)]


def model_of(seed: int, channels: int = 6, heads: int = 2, temporal: bool = False) -> StepsModel:
    rng = np.random.default_rng(seed)
    return random_model(lambda n: int(rng.integers(n)), channels, heads, temporal)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 75), st.none() | st.integers(1, 64),
    st.booleans(),
)  # fmt: skip
def test_the_core_and_the_reference_agree(
    seed: int, channels: int, heads: int, height: int, width: int, lanes: int | None, temporal: bool
) -> None:
    rng = np.random.default_rng(seed)

    def below(n: int) -> int:
        return int(rng.integers(n))

    model = random_model(below, channels, min(heads, channels), temporal)
    symbols = random_latent(below, model, height, width)
    before, now = symbols[:-channels], symbols[-channels:]
    expected = reference.encode_packet(model, symbols, frame_id=1, timestamp_ns=2, lanes=lanes)
    coder = PacketCodec(model, height, width)._coder
    for kernel in KERNELS:
        assert coder.encode(symbols, np.empty(coder.packet_bound, np.uint8), 0, 0, 1, 2, lanes or 0, kernel) == expected, kernel
        out = np.concatenate([before, 255 - now])
        assert _rans.STATUS_NAMES[coder.decode(expected, out, kernel)[0]] == "ok", kernel
        assert (out == symbols).all(), kernel
    assert (reference.decode_packet(model, expected, height, width, before if temporal else None)[1] == now).all()


def test_bytes_are_the_ideal_length_and_a_little() -> None:
    rng = np.random.default_rng(1)
    model = model_of(4, channels=9, heads=3)
    symbols = random_latent(lambda n: int(rng.integers(n)), model, 60, 80)
    packet = PacketCodec(model, 60, 80).encode(symbols, 0, 0)
    ideal = model.cost_bits(symbols) / 8
    assert ideal < len(packet) < 1.013 * ideal + 48


def test_a_model_is_its_bytes() -> None:
    for seed in range(8):
        model = model_of(seed, 1 + seed, 1 + seed // 2, temporal=seed % 2 == 1)
        assert StepsModel.from_bytes(model.to_bytes()) == model
        assert read_model(model.to_bytes()) == model
        assert isinstance(read_model(EntropyModel.from_counts([[1, 2]]).to_bytes()), EntropyModel)
        assert model.levels == max(model.levels_per_channel)
        for cut in (*range(40), *range(40, len(model.to_bytes()), 37)):
            with pytest.raises(EntropyModelError):
                StepsModel.from_bytes(model.to_bytes()[:cut])
            with pytest.raises(ValueError, match="entropy model"):
                _rans.coder_of(model.to_bytes()[:cut], 3, 4)
        with pytest.raises(EntropyModelError, match="1 bytes follow"):
            StepsModel.from_bytes(model.to_bytes() + b"\0")
        with pytest.raises(EntropyModelError, match="read_model"):
            EntropyModel.from_bytes(model.to_bytes())


@pytest.mark.parametrize(
    ("plane", "change"),
    [
        (0, {"offset": 200}),
        (0, {"shift": 8}),
        (0, {"bias": 40_000}),
        (0, {"width": (Near(0, 0, -1, 1),)}),  # the symbol before: of the same row
        (0, {"width": (Near(1, 0, 0, 1),)}),
        (3, {"width": (Near(3, -1, 0, 1),)}),  # of its own channel: a tail
        (3, {"width": (Near(4, 0, 0, 1),)}),
        (3, {"width": (Near(0, 2, 0, 1),)}),
        (3, {"width": (Near(0, 0, 0, 64),)}),
        (3, {"width": (Near(0, 0, 0, -1),)}),
        (3, {"place": (Near(0, 0, 0, 65),)}),
        (3, {"place": (Near(7, 0, 0, 1),)}),
        (3, {"width": (Near(0, 0, 0, 1),) * 17}),
        (3, {"place": (Near(0, 0, 0, 1),) * 9}),
        (3, {"borders": np.array([5, 4, *[9] * 13], np.uint8)}),
        (3, {"digits": None}),
        (6, {"place": (Near(0, 0, 0, 1),)}),
        (6, {"width": (Near(2, 0, 0, 1),)}),  # a tail, which comes after the extents
        (6, {"levels": 3}),
        (6, {"bias": 1}),
        (3, {"place": (Near(8, 0, 0, 1),)}),  # of the latent before: only in profile 5
    ],
)
def test_what_no_decoder_could_follow_is_refused(plane: int, change: dict[str, object]) -> None:
    """By Python where it is made, by the core where it is read."""
    good = model_of(1)
    planes = list(good.planes)
    planes[0] = replace(planes[0], levels=12, offset=3)
    planes[plane] = replace(planes[plane], **change)  # type: ignore[arg-type]
    with pytest.raises(EntropyModelError):
        StepsModel(tuple(planes), good.heads, good.bands)
    if all(isinstance(value, (int, tuple)) for value in change.values()) and plane < 6 and change != {"bias": 40_000}:
        forged = object.__new__(StepsModel)
        forged.planes, forged.heads, forged.bands, forged.temporal, forged._channels = tuple(planes), good.heads, good.bands, False, 6
        with pytest.raises(ValueError, match="entropy model"):
            _rans.coder_of(forged._packed(), 3, 4)


def test_tables_that_do_not_rise_are_refused() -> None:
    good = model_of(1)
    flat = good.planes[0].cdf.copy()
    flat[3, 4] = flat[3, 5]
    with pytest.raises(EntropyModelError, match="rise"):
        StepsModel((replace(good.planes[0], cdf=flat), *good.planes[1:]), good.heads, good.bands)
    data = bytearray(good.to_bytes())
    data[-2:] = b"\xff\xff"
    with pytest.raises(EntropyModelError, match="rise"):
        StepsModel.from_bytes(bytes(data))
    with pytest.raises(ValueError, match="rise"):
        _rans.coder_of(bytes(data), 3, 4)


def test_a_symbol_that_is_no_level_is_refused_by_its_channel() -> None:
    model = model_of(1)
    channel = int(np.argmin(model.levels_per_channel))
    symbols = np.zeros((6, 5, 7), np.uint8)
    symbols[channel, 4, 6] = model.levels_per_channel[channel]
    with pytest.raises(CodecError, match=f"channel {channel} reach {model.levels_per_channel[channel]}"):
        PacketCodec(model, 5, 7).encode(symbols, 0, 0)
    with pytest.raises(EntropyModelError, match=f"channel {channel} reach"):
        model.cost_bits(symbols)


def test_nothing_is_coded_where_the_extents_do_not_reach() -> None:
    """All offsets: a step for each head and each extent, and none for 46 tails."""
    rng = np.random.default_rng(0)
    model = random_model(lambda n: int(rng.integers(n)), 48, 2)
    symbols = np.empty((48, 9, 11), np.uint8)
    symbols[:] = np.array(model.offsets, np.uint8)[:, None, None]
    assert sum(1 for _ in reference.steps_of(model, symbols)) <= (2 * 3 + 1) * 9 * 11
    assert model.band_of(1) is None
    assert model.band_of(47) == len(model.bands) - 1
    assert model.planes[2].cdf.shape[0] == 2 * CLASSES


def test_one_coder_serves_many_threads() -> None:
    rng = np.random.default_rng(2)
    model = model_of(5)
    latents = np.stack([random_latent(lambda n: int(rng.integers(n)), model, 20, 30) for _ in range(12)])
    codec = PacketCodec(model, 20, 30)
    packets = codec.encode_batch(latents, range(12), range(12), threads=4)
    assert packets == [PacketCodec(model, 20, 30).encode(z, k, k, counter=k) for k, z in enumerate(latents)]
    assert (codec.decode_batch(packets, threads=4)[1] == latents).all()
