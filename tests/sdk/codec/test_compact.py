"""Compact packets: as the reference writes them, by every kernel; small; and nothing else is accepted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from percodec.sdk.codec import CompactCodec, EntropyModel, PacketCodec, _rans, reference
from percodec.sdk.errors import CodecError, PacketError

KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)]
LANES = [None, 2, 3, 4, 7, 8, 16, 17, 31, 32, 33, 40, 47, 48, 49, 63, 64]


def drawn(shape: tuple[int, int, int], levels: int, concentration: float, seed: int) -> tuple[EntropyModel, NDArray[np.uint8]]:
    """Tables of pairs from even to nearly certain, and symbols drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(levels * levels, concentration), shape[0])
    model = EntropyModel.from_counts((p * 1e9).astype(np.int64).reshape(-1, levels, levels))
    plane = shape[1] * shape[2]
    pairs = np.stack([rng.choice(levels * levels, size=(plane + 1) // 2, p=np.diff(row / 16384)) for row in model.cdf])
    return model, np.stack(np.divmod(pairs, levels), 2).reshape(shape[0], -1)[:, :plane].reshape(shape).astype(np.uint8)


def same_everywhere(model: EntropyModel, symbols: NDArray[np.uint8], lanes: int | None) -> bytes:
    packet = reference.encode_compact(model, symbols, lanes)
    coder = CompactCodec(model, *symbols.shape[1:], lanes=lanes)._coder
    for kernel in KERNELS:
        assert coder.encode_compact(symbols, lanes or 0, kernel) == packet, kernel
        out = np.full_like(symbols, 255)
        assert coder.decode_compact(packet, out, kernel) == 0, kernel
        assert (out == symbols).all(), kernel
    assert (reference.decode_compact(model, packet, *symbols.shape[1:]) == symbols).all()
    return packet


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 16), st.integers(1, 40)),
    st.integers(2, 8),
    st.sampled_from([0.02, 0.2, 1.0, 50.0]),
    st.sampled_from(LANES),
    st.integers(0, 2**32 - 1),
)
def test_every_kernel_writes_and_reads_what_the_reference_does(
    shape: tuple[int, int, int], levels: int, concentration: float, lanes: int | None, seed: int
) -> None:
    same_everywhere(*drawn(shape, levels, concentration, seed), lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_a_tail_over_several_channels_and_a_cut_one(lanes: int | None) -> None:
    model, symbols = drawn((9, 7, 33), 6, 0.3, 1)
    packet = same_everywhere(model, symbols, lanes)
    tail = int.from_bytes(packet[2:4], "little")
    assert 0 < tail < 9 * 116  # pairs in all
    if lanes == 64:
        assert tail > 2 * 116
        assert tail % 116  # pairs in a channel


@pytest.mark.parametrize("shape", [(90, 1, 2), (60, 1, 3), (40, 2, 2)])
@pytest.mark.parametrize("lanes", [2, 4, 7, 16])
def test_a_tail_that_begins_where_a_channel_does(shape: tuple[int, int, int], lanes: int) -> None:
    packet = same_everywhere(*drawn(shape, 6, 1.0, 2), lanes)
    if shape[2] == 2 and shape[1] == 1:
        assert 0 < packet[2] < shape[0]


@pytest.mark.parametrize(
    ("pairs", "lanes"), [(72 * 4 * 4 - 1, 4), (72 * 4 * 4, 8), (72 * 12 * 4 - 1, 8), (72 * 12 * 4, 16), (72 * 60 * 4, 64)]
)
def test_lanes_by_the_ideal_length(pairs: int, lanes: int) -> None:
    """Pairs of two bits each, four to a byte."""
    model, symbols = EntropyModel.from_counts(np.ones((1, 2, 2), np.int64)), np.zeros((1, 1, 2 * pairs), np.uint8)
    coder = CompactCodec(model, 1, 2 * pairs)._coder
    assert reference.compact_lanes_for(model, symbols) == lanes
    for kernel in KERNELS:
        packet = coder.encode_compact(symbols, 0, kernel)
        assert isinstance(packet, bytes)
        assert packet[1] == lanes


def test_the_tail_is_as_long_as_two_bytes_say() -> None:
    """Symbols that cost next to nothing: lanes would hold more of them than can be counted."""
    counts = np.ones((2, 6, 6), np.int64)
    counts[:, 0, 0] = 10**9
    model, symbols = EntropyModel.from_counts(counts), np.zeros((2, 300, 250), np.uint8)
    assert same_everywhere(model, symbols, 64)[2:4] == b"\xff\xff"


@pytest.mark.parametrize(
    ("shape", "per_cent", "lanes"), [((32, 28, 28), 1.0, 48), ((8, 28, 28), 2.5, 16), ((32, 45, 60), 0.5, 64), ((3, 4, 4), 1e4, 4)]
)
def test_size_and_lanes(shape: tuple[int, int, int], per_cent: float, lanes: int) -> None:
    """Latents of 1.2 to 1.3 bits a symbol; the chosen lanes, and the whole packet's distance from the ideal length."""
    rng = np.random.default_rng(3)
    p = np.exp(-0.5 * ((np.arange(6) - rng.uniform(1.5, 3.5, shape[0])[:, None]) / 0.57) ** 2) + 1e-4
    p /= p.sum(axis=1, keepdims=True)
    model = EntropyModel.from_counts((p[:, :, None] * p[:, None, :] * 1e9).astype(np.int64))
    symbols = np.stack([rng.choice(6, size=shape[1:], p=row) for row in p]).astype(np.uint8)
    packet, ideal = CompactCodec(model, *shape[1:]).encode(symbols), model.cost_bits(symbols) / 8
    assert packet[1] == lanes
    assert packet == reference.encode_compact(model, symbols)
    assert ideal < len(packet) <= min(ideal * (1 + per_cent / 100), ideal + 13 + lanes / 2)
    assert len(packet) + 20 < len(PacketCodec(model, *shape[1:]).encode(symbols, 0, 0))


def test_a_packet_by_hand() -> None:
    """BITSTREAM.md: two lanes hold the checksum and then the pairs; there is no other lane to send a word to."""
    model = EntropyModel.from_counts(np.ones((1, 2, 2), np.int64))  # every pair a quarter
    symbols = np.array([1, 0], np.uint8).reshape(1, 1, 2)
    crc = reference.crc32c(model.table_hash.to_bytes(8, "little"), reference.latent_crc(symbols))

    def packet(begin: int) -> bytes:
        first, second = begin + (crc & 0xFFFF), begin + (crc >> 16)
        first = (first // 4096 << 14) + first % 4096 + 2 * 4096  # pair 2 of 0..3
        beyond = [x.bit_length() - 17 for x in (first, second)]
        bits = (first >> 16) - (1 << beyond[0]) | (second >> 16) - (1 << beyond[1]) << beyond[0]
        head = bytes([0x63, 2, 1, 0, beyond[0] | beyond[1] << 4])
        lows = b"".join((x & 0xFFFF).to_bytes(2, "little") for x in (first, second))
        return head + lows + bits.to_bytes(-(-sum(beyond) // 8), "little")

    codec = CompactCodec(model, 1, 2, lanes=2)
    assert codec.encode(symbols) == packet(2**16)
    assert (codec.decode(packet(2**16)) == symbols).all()
    with pytest.raises(PacketError, match="initial state"):  # the same symbols and checksum, from where no encoder begins
        codec.decode(packet(2**17))
    with pytest.raises(PacketError, match="where one begins"):
        reference.decode_compact(model, packet(2**17), 1, 2)


@pytest.mark.parametrize("lanes", [2, 3, 7, 16, 33, 64])
@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 6, 30)])
def test_altered_cut_and_longer_packets_are_refused(shape: tuple[int, int, int], lanes: int) -> None:
    model, symbols = drawn(shape, 6, 0.3, lanes)
    codec = CompactCodec(model, *shape[1:], lanes=lanes)
    packet = codec.encode(symbols)
    wrong = (
        [packet[:n] for n in range(len(packet))] + [packet + bytes(n) for n in range(1, 70)] + [packet + b"\xff" * n for n in (1, 2, 200)]
    )
    for bit in range(8 * len(packet)):
        altered = bytearray(packet)
        altered[bit // 8] ^= 1 << bit % 8
        wrong.append(bytes(altered))
    for other in wrong:
        with pytest.raises(PacketError):
            codec.decode(other)
        if len(wrong) < 1500:
            with pytest.raises(PacketError):
                reference.decode_compact(model, other, *shape[1:])


def test_a_tail_that_could_be_longer_is_refused() -> None:
    """With two lanes alone the pair before the tail is the same lane's, which has room: one pair less says the same symbols."""
    model = EntropyModel.from_counts(np.ones((1, 2, 2), np.int64))
    packet = bytearray(CompactCodec(model, 1, 4, lanes=2).encode(np.array([1, 0, 0, 1], np.uint8).reshape(1, 1, 4)))
    assert packet[2] == 2
    packet[2] = 0  # pair 0 by lane 0, pair 1 by lane 1: the tail has them the other way round
    crossed = bytes(packet)
    packet[2] = 1
    for other in (crossed, bytes(packet)):
        with pytest.raises(PacketError, match="does not hold what its first bytes declare"):
            CompactCodec(model, 1, 4).decode(other)
        with pytest.raises(PacketError, match="could be longer"):
            reference.decode_compact(model, other, 1, 4)


def test_a_lane_too_many_is_refused() -> None:
    """A packet of three lanes with a fourth that holds nothing: the tail could have sent it a word."""
    model = EntropyModel.from_counts(np.ones((1, 2, 2), np.int64))
    rng = np.random.default_rng(0)
    for width in range(30, 60):
        symbols = rng.integers(0, 2, (1, 1, width), np.uint8)
        packet = CompactCodec(model, 1, width, lanes=3).encode(symbols)
        if packet[2] != (width + 1) // 2 - 1:  # one pair before the tail, lane 0's with three lanes and with four
            continue
        forged = b"c\x04" + packet[2:12] + b"\0\0" + packet[12:]
        with pytest.raises(PacketError, match="goes on after the last symbol"):
            CompactCodec(model, 1, width).decode(forged)
        with pytest.raises(PacketError, match="tail"):
            reference.decode_compact(model, forged, 1, width)
        return
    raise AssertionError("no such packet among these")


@pytest.mark.parametrize("lanes", [2, 3, 64])
def test_a_tail_that_needs_more_words_than_lanes_hold_is_refused(lanes: int) -> None:
    """All pairs declared to be the tail, and no words but the lanes'."""
    model, symbols = drawn((9, 7, 34), 6, 1.0, 1)
    packet = bytes([0x63, lanes]) + (9 * 119).to_bytes(2, "little") + bytes((lanes + 1) // 2) + b"\x5a" * (2 * lanes)
    coder = CompactCodec(model, 7, 34)._coder
    for kernel in KERNELS:
        assert _rans.STATUS_NAMES[coder.decode_compact(packet, np.empty_like(symbols), kernel)] == "truncated_payload"
    with pytest.raises(PacketError, match="before the symbols"):
        reference.decode_compact(model, packet, 7, 34)


def test_random_bytes_behind_a_right_head_are_refused_alike_by_every_kernel() -> None:
    model, symbols = drawn((3, 6, 30), 6, 0.3, 0)
    rng = np.random.default_rng(5)
    coder = CompactCodec(model, 6, 30)._coder
    found = set()
    for lanes in (2, 3, 8, 16, 33, 48, 64):
        for _ in range(150):
            lengths = rng.integers(0, 2, (lanes + 1) // 2, dtype=np.uint8) if rng.random() < 0.5 else rng.integers(0, 256, (lanes + 1) // 2)
            tail = int(rng.integers(0, 280))
            body = bytes(lengths.astype(np.uint8)) + rng.bytes(int(rng.integers(2 * lanes, 700)))
            packet = bytes([0x63, lanes]) + tail.to_bytes(2, "little") + body
            statuses = {coder.decode_compact(packet, np.empty_like(symbols), kernel) for kernel in KERNELS}
            assert len(statuses) == 1
            found |= {_rans.STATUS_NAMES[s] for s in statuses}
            with pytest.raises(PacketError):
                reference.decode_compact(model, packet, 6, 30)
    assert "ok" not in found
    assert {"bad_length", "truncated_payload", "trailing_payload"} <= found


def test_a_symbol_outside_the_latent_is_refused() -> None:
    """A latent of three symbols, and of the same three and one more that is not 0: the same pairs, shape and checksum forged."""
    model = EntropyModel.from_counts(np.ones((1, 2, 2), np.int64))
    odd = np.array([1, 0, 1], np.uint8).reshape(1, 1, 3)
    low, high = divmod(reference.crc32c(model.table_hash.to_bytes(8, "little"), reference.latent_crc(odd)), 1 << 16)[::-1]
    for last, accepted in ((2, True), (3, False)):  # the pair 1, 0 and the pair 1, 1
        states = [2**16 + low, 2**16 + high]
        for k, pair in enumerate((last, 2)):
            states[k] = (states[k] // 4096 << 14) + states[k] % 4096 + pair * 4096
        beyond = [x.bit_length() - 17 for x in states]
        bits = (states[0] >> 16) - (1 << beyond[0]) | (states[1] >> 16) - (1 << beyond[1]) << beyond[0]
        lows = b"".join((x & 0xFFFF).to_bytes(2, "little") for x in states)
        packet = bytes([0x63, 2, 2, 0, beyond[0] | beyond[1] << 4]) + lows + bits.to_bytes(-(-sum(beyond) // 8), "little")
        if accepted:
            assert (CompactCodec(model, 1, 3).decode(packet) == odd).all()
            assert (reference.decode_compact(model, packet, 1, 3) == odd).all()
        else:
            with pytest.raises(PacketError, match="initial state"):
                CompactCodec(model, 1, 3).decode(packet)
            with pytest.raises(PacketError, match="is not 0"):
                reference.decode_compact(model, packet, 1, 3)


def test_wrong_arguments_say_what_is_wrong(sample) -> None:
    model, symbols = sample(3, 6, 30, pairs=True)
    plain, _ = sample(3, 6, 30)
    codec = CompactCodec(model, 6, 30)
    with pytest.raises(CodecError, match="tables of pairs"):
        CompactCodec(plain, 6, 30)
    for lanes in (0, 1, 65):
        with pytest.raises(CodecError, match=r"lanes must be 2\.\.64"):
            CompactCodec(model, 6, 30, lanes=lanes)
    with pytest.raises(CodecError, match=r"latent size must be"):
        CompactCodec(model, 0, 30)
    for wrong in (symbols.astype(np.int32), symbols[:2], symbols[0], symbols.tolist()):
        with pytest.raises(CodecError, match=r"symbols must be uint8 \[3, 6, 30\]"):
            codec.encode(wrong)
    for place in (0, 270, 539):
        high = symbols.copy()
        high.ravel()[place] = 6
        for kernel in KERNELS:
            for lanes in (0, 2, 64):
                status = codec._coder.encode_compact(high, lanes, kernel)
                assert isinstance(status, int)
                assert _rans.STATUS_NAMES[status] == "symbol_out_of_range"
        with pytest.raises(CodecError, match=r"symbols reach 6, the tables have levels 0\.\.5"):
            codec.encode(high)
    packet = codec.encode(symbols)
    with pytest.raises(CodecError, match="out must be uint8"):
        codec.decode(packet, np.empty((3, 6, 29), np.uint8))
    locked = np.empty_like(symbols)
    locked.flags.writeable = False
    for out in (locked, np.empty((3, 6, 60), np.uint8)[:, :, ::2]):
        with pytest.raises(CodecError, match="C-contiguous, writable"):
            codec.decode(packet, out)
    for nothing in (7, "packet", None):
        with pytest.raises(PacketError, match="bytes-like"):
            codec.decode(nothing)  # type: ignore[arg-type]


def test_other_tables_shapes_and_formats_are_told_apart(sample) -> None:
    model, symbols = sample(3, 6, 30, pairs=True)
    other, _ = sample(3, 6, 30, pairs=True, seed=1)
    packet = CompactCodec(model, 6, 30).encode(symbols)
    with pytest.raises(PacketError):
        CompactCodec(other, 6, 30).decode(packet)
    for height, width in ((30, 6), (5, 30), (6, 31)):
        with pytest.raises(PacketError):
            CompactCodec(model, height, width).decode(packet)
    with pytest.raises(PacketError, match="begin with 'PC'"):
        PacketCodec(model, 6, 30).decode(packet)
    with pytest.raises(PacketError, match="not a compact packet"):
        CompactCodec(model, 6, 30).decode(PacketCodec(model, 6, 30).encode(symbols, 0, 0))


def test_layouts_buffers_and_threads(sample) -> None:
    model, symbols = sample(3, 6, 30, pairs=True)
    codec = CompactCodec(model, 6, 30)
    packet = codec.encode(symbols)
    assert codec.encode(np.asfortranarray(symbols)) == packet
    out = np.empty_like(symbols)
    assert codec.decode(memoryview(bytearray(packet)), out) is out
    assert (out == symbols).all()
    latents = [drawn((3, 6, 30), 6, 0.3, 0)[1] % np.uint8(k) for k in (1, 2, 3, 4, 5, 6)]
    with ThreadPoolExecutor(4) as pool:
        for latent, back in zip(latents * 20, pool.map(lambda s: codec.decode(codec.encode(s)), latents * 20), strict=True):
            assert (back == latent).all()
