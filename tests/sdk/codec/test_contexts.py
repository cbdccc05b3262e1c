"""Profile 1: contexts are integers, the same in C++, numpy and plain Python, and a reader refuses what it could not follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from percodec.sdk.codec import PacketCodec, _rans, reference
from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour
from percodec.sdk.codec.entropy_model import EntropyModel
from percodec.sdk.errors import CodecError, EntropyModelError, PacketError

LEVELS, CHANNELS, K = 6, 5, 10
KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)]


def random_contexts(rng: np.random.Generator, levels: int = LEVELS, most: int = 12, contexts: int = K, reach: int = 100) -> Contexts:
    """With `reach` times `most` above 127 there are sums that wrap."""
    channels = []
    for c in range(CHANNELS):
        count = int(rng.integers(0, most + 1))
        neighbours = []
        for _ in range(count):
            own = c == 0 or rng.integers(3) == 0
            channel = c if own else int(rng.integers(c))
            dy, dx = int(rng.integers(-2, 0 if own else 3)), int(rng.integers(-2, 3))
            tables = rng.integers(-reach, reach + 1, (2, levels)).astype(np.int8)
            neighbours.append(Neighbour(channel, dy, dx, tables[0], tables[1]))
        borders = [np.sort(rng.integers(-90, 91, n - 1)).astype(np.int8) for n in (MEAN_BINS, SPREAD_BINS)]
        mapped = rng.integers(0, contexts, MEAN_BINS * SPREAD_BINS).astype(np.uint8)
        channels.append(ChannelContexts(tuple(neighbours), borders[0], borders[1], mapped, int(rng.integers(levels))))
    return Contexts(tuple(channels), levels, contexts)


def model_of(seed: int, levels: int = LEVELS) -> EntropyModel:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 1000, (CHANNELS * K, levels))
    return EntropyModel(EntropyModel.from_counts(counts).cdf.reshape(CHANNELS, K, levels + 1), random_contexts(rng, levels))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 33), (7, 300)])
@pytest.mark.parametrize("levels", [2, 6, 17])
def test_core_and_reference_write_the_same_bytes(shape: tuple[int, int], levels: int) -> None:
    model = model_of(levels * 100 + shape[1], levels)
    symbols = np.random.default_rng(1).integers(0, levels, (CHANNELS, *shape), np.uint8)
    for lanes in (None, 1, 3, 8, 16, 61, 64):
        codec = PacketCodec(model, *shape, lanes=lanes)
        packet = codec.encode(symbols, 4, 5)
        assert packet == reference.encode_packet(model, symbols, frame_id=4, timestamp_ns=5, lanes=lanes)
        header, again = codec.decode(packet)
        assert header.profile == 1
        assert np.array_equal(again, symbols)
        assert np.array_equal(reference.decode_packet(model, packet, *shape)[1], symbols)


@pytest.mark.parametrize("levels", [3, 6, 8, 9, 16])
@pytest.mark.parametrize("shape", [(3, 5), (13, 20), (4, 60), (3, 64), (11, 130), (2, 257), (1, 600)])
@pytest.mark.parametrize(("most", "k", "reach"), [(1, 5, 127), (7, 16, 40), (32, 10, 10)])
def test_every_kernel_writes_and_reads_the_same_bytes(levels: int, shape: tuple[int, int], most: int, k: int, reach: int) -> None:
    """Portable, AVX2 and AVX-512 forms of contexts and coder, and any of them decoding another's."""
    rng = np.random.default_rng(levels * 1000 + shape[1] + most)
    counts = rng.integers(1, 1000, (CHANNELS * k, levels))
    contexts = random_contexts(rng, levels, most, k, reach)
    model = EntropyModel(EntropyModel.from_counts(counts).cdf.reshape(CHANNELS, k, levels + 1), contexts)
    symbols = rng.integers(0, levels, (CHANNELS, *shape), np.uint8)
    coder = PacketCodec(model, *shape)._coder
    for lanes in (0, 1, 2, 4, 8, 16, 24, 32, 64):
        packets = {way: coder.encode(symbols, np.empty(coder.packet_bound, np.uint8), 0, 0, 1, 2, lanes, way) for way in KERNELS}
        assert len(set(packets.values())) == 1, lanes
        for kernel, packet in packets.items():
            out = np.full_like(symbols, 255)
            status, _ = coder.decode(packet, out, kernel)
            assert _rans.STATUS_NAMES[status] == "ok", (lanes, kernel)
            assert np.array_equal(out, symbols), (lanes, kernel)


def test_every_kernel_finds_what_the_last_contexts_cost() -> None:
    """Sixteen contexts of six levels are more than 64 costs. Those of the last five are low: so is the number of lanes that suits them."""
    counts = np.ones((CHANNELS * 16, LEVELS), np.int64)
    counts[:, 0] = [(1, 1000)[k >= 11] for k in range(16)] * CHANNELS
    counts[:, 5] = 1001 - counts[:, 0]
    contexts = random_contexts(np.random.default_rng(4), contexts=16)
    model = EntropyModel(EntropyModel.from_counts(counts).cdf.reshape(CHANNELS, 16, LEVELS + 1), contexts)
    for height in range(2, 60, 3):
        symbols = (np.random.default_rng(height).random((CHANNELS, height, 40)) < 0.1).astype(np.uint8)
        coder = PacketCodec(model, height, 40)._coder
        made = {way: coder.encode(symbols, np.empty(coder.packet_bound, np.uint8), 0, 0, 1, 2, 0, way) for way in KERNELS}
        assert len(set(made.values())) == 1, height
        assert made[KERNELS[0]] == reference.encode_packet(model, symbols, frame_id=1, timestamp_ns=2)


def test_a_context_is_what_the_page_says() -> None:
    rng, wrapped = np.random.default_rng(7), 0
    contexts = random_contexts(rng)
    symbols = rng.integers(0, LEVELS, (CHANNELS, 6, 9), np.uint8)
    found = contexts.of(symbols)
    for c, y, x in np.ndindex(*symbols.shape):
        sums = np.zeros(2, int)
        for n in contexts.channels[c].neighbours:
            yy, xx = y + n.dy, x + n.dx
            inside = 0 <= yy < 6 and 0 <= xx < 9
            symbol = symbols[n.channel, yy, xx] if inside else contexts.channels[n.channel].fill
            sums += [int(n.mean[symbol]), int(n.spread[symbol])]
        wrapped += int((sums > 127).any() or (sums < -128).any())
        sums = (sums + 128) % 256 - 128
        m = sum(int(b) <= sums[0] for b in contexts.channels[c].mean_borders)
        s = sum(int(b) <= sums[1] for b in contexts.channels[c].spread_borders)
        assert found[c, y, x] == contexts.channels[c].map[5 * m + s]
    assert wrapped > 20


def test_serialisation_is_exact_and_hashed() -> None:
    model = model_of(3)
    again = EntropyModel.from_bytes(model.to_bytes())
    assert again == model
    assert again.table_hash == model.table_hash
    assert (again.profile, again.channels, again.rows_per_channel) == (1, CHANNELS, K)
    plain = EntropyModel.from_counts(np.ones((CHANNELS, LEVELS), np.int64))
    assert plain.profile == 0
    assert EntropyModel.from_bytes(plain.to_bytes()) == plain


def test_every_cut_and_every_altered_byte_is_refused_or_another_model() -> None:
    data = model_of(5).to_bytes()
    for end in range(len(data)):
        with pytest.raises(EntropyModelError):
            EntropyModel.from_bytes(data[:end])
    with pytest.raises(EntropyModelError):
        EntropyModel.from_bytes(data + b"\0")
    for at in range(4, len(data)):
        altered = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        try:
            other = EntropyModel.from_bytes(altered)
        except EntropyModelError:
            continue
        assert other.digest != model_of(5).digest
        PacketCodec(other, 3, 4)  # what one reader takes, the core takes


def channel(**parts: Any) -> ChannelContexts:
    given = {
        "neighbours": (Neighbour(0, -1, 0, np.zeros(LEVELS, np.int8), np.zeros(LEVELS, np.int8)),),
        "mean_borders": np.zeros(MEAN_BINS - 1, np.int8),
        "spread_borders": np.zeros(SPREAD_BINS - 1, np.int8),
        "map": np.zeros(MEAN_BINS * SPREAD_BINS, np.uint8),
        "fill": 0,
    }
    return ChannelContexts(**{**given, **parts})


ZERO = np.zeros(LEVELS, np.int8)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"neighbours": (Neighbour(0, 0, -1, ZERO, ZERO),)}, "known by then"),
        ({"neighbours": (Neighbour(1, -1, 0, ZERO, ZERO),)}, "known by then"),
        ({"neighbours": (Neighbour(0, -3, 0, ZERO, ZERO),)}, "near"),
        ({"neighbours": (Neighbour(0, -1, 0, ZERO, ZERO),) * 33}, "33 neighbours"),
        ({"mean_borders": np.arange(MEAN_BINS - 1, dtype=np.int8)[::-1]}, "not falling"),
        ({"map": np.full(MEAN_BINS * SPREAD_BINS, K, np.uint8)}, "below 10"),
        ({"fill": LEVELS}, "fill 6"),
    ],
)
def test_what_a_decoder_could_not_follow_is_refused(parts: dict[str, Any], why: str) -> None:
    with pytest.raises(EntropyModelError, match=why):
        Contexts((channel(**parts),), LEVELS, K)


def test_packets_of_the_two_profiles_are_not_taken_for_each_other() -> None:
    with_contexts, plain = model_of(1), EntropyModel.from_counts(np.ones((CHANNELS, LEVELS), np.int64))
    symbols = np.random.default_rng(2).integers(0, LEVELS, (CHANNELS, 4, 5), np.uint8)
    for a, b in ((with_contexts, plain), (plain, with_contexts)):
        packet = PacketCodec(a, 4, 5).encode(symbols, 0, 0)
        with pytest.raises(PacketError, match="coding profile"):
            PacketCodec(b, 4, 5).decode(packet)


def test_every_altered_bit_of_a_packet_is_refused() -> None:
    codec = PacketCodec(model_of(9), 4, 5)
    symbols = np.random.default_rng(2).integers(0, LEVELS, (CHANNELS, 4, 5), np.uint8)
    packet = codec.encode(symbols, 0, 0)
    for bit in range(8 * len(packet)):
        altered = bytearray(packet)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PacketError):
            codec.decode(bytes(altered))
    with pytest.raises(CodecError, match="symbols reach"):
        codec.encode(np.full((CHANNELS, 4, 5), LEVELS, np.uint8), 0, 0)
