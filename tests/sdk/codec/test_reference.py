"""The C++ core and the plain-Python reference are the same format, byte for byte."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from percodec.sdk.codec import EntropyModel, PacketCodec, _rans, reference

KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)]


@st.composite
def coded_latents(draw: st.DrawFn) -> tuple[EntropyModel, NDArray[np.uint8]]:
    """Shapes, levels, tables from uniform to nearly deterministic, symbols fitting the tables or not at all."""
    channels, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 14)), draw(st.integers(1, 14))
    levels = draw(st.sampled_from([2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 40, 256]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    concentration = draw(st.sampled_from([0.02, 0.2, 1.0, 50.0]))
    p = rng.dirichlet(np.full(levels, concentration), channels)
    counts = (p * 1e6).astype(np.int64)
    pairs = levels <= 8 and draw(st.booleans())
    model = EntropyModel.from_counts(counts[:, :, None] * counts[:, None, ::-1] if pairs else counts)
    if draw(st.booleans()):
        p = np.full_like(p, 1 / levels)
    symbols = np.stack([rng.choice(levels, size=(height, width), p=row / row.sum()) for row in p])
    return model, symbols.astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(coded_latents(), st.none() | st.integers(1, 64), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 65535))
def test_equal_bytes_and_round_trip(
    case: tuple[EntropyModel, NDArray[np.uint8]], lanes: int | None, frame_id: int, timestamp_ns: int, stream_id: int
) -> None:
    model, symbols = case
    _, height, width = symbols.shape
    codec = PacketCodec(model, height, width, stream_id=stream_id, lanes=lanes)
    packet = codec.encode(symbols, frame_id, timestamp_ns)
    assert packet == reference.encode_packet(model, symbols, frame_id=frame_id, timestamp_ns=timestamp_ns, stream_id=stream_id, lanes=lanes)
    header, decoded = codec.decode(packet)
    assert (decoded == symbols).all()
    assert (header.frame_id, header.timestamp_ns, header.stream_id, header.counter) == (frame_id, timestamp_ns, stream_id, 0)
    reference_header, reference_decoded = reference.decode_packet(model, packet, height, width)
    assert reference_header == header
    assert (reference_decoded == symbols).all()


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64])
@pytest.mark.parametrize(
    ("levels", "plane", "pairs"),
    [
        *[(2, (1, 1), False), (6, (9, 31), False), (8, (16, 16), False), (16, (5, 13), False), (17, (8, 9), False), (256, (3, 50), False)],
        *[(2, (1, 1), True), (6, (9, 31), True), (8, (16, 16), True)],
    ],
)
def test_every_kernel_writes_and_reads_the_same_bytes(lanes: int, levels: int, plane: tuple[int, int], pairs: bool, sample) -> None:
    model, symbols = sample(3, *plane, levels=levels, seed=lanes, pairs=pairs)
    coder = _rans.LatentCoder(model.cdf, *plane, model.profile, model.table_hash)
    expected = reference.encode_packet(model, symbols, frame_id=1, timestamp_ns=2, lanes=lanes)
    for kernel in KERNELS:
        scratch = np.empty(coder.packet_bound, np.uint8)
        assert coder.encode(symbols, scratch, 0, 0, 1, 2, lanes, kernel) == expected, kernel
        out = np.empty_like(symbols)
        status, _ = coder.decode(expected, out, kernel)
        assert _rans.STATUS_NAMES[status] == "ok", kernel
        assert (out == symbols).all(), kernel


@pytest.mark.parametrize(("lanes", "plane"), [(16, (3, 16)), (64, (5, 70))])
def test_every_frequency_codes_exactly(lanes: int, plane: tuple[int, int]) -> None:
    """All 4095 frequencies through the division-free steps, at states spread over the interval."""
    frequencies = np.arange(1, 4096)
    cdf = np.stack([np.zeros_like(frequencies), frequencies, np.full_like(frequencies, 4096)], axis=1).astype(np.uint16)
    rng = np.random.default_rng(3)
    for first in range(0, 4095, 819):
        model = EntropyModel(cdf[first : first + 819])
        symbols = rng.integers(0, 2, (819, *plane)).astype(np.uint8)
        coder = _rans.LatentCoder(model.cdf, *plane, model.profile, model.table_hash)
        packets = [coder.encode(symbols, np.empty(coder.packet_bound, np.uint8), 0, 0, 0, 0, lanes, kernel) for kernel in KERNELS]
        assert all(packet == packets[0] for packet in packets)
        if lanes == 16:
            assert packets[0] == reference.encode_packet(model, symbols, frame_id=0, timestamp_ns=0, lanes=lanes)
        for kernel in KERNELS:
            out = np.empty_like(symbols)
            assert coder.decode(packets[0], out, kernel)[0] == 0
            assert (out == symbols).all()


@pytest.mark.parametrize(("lanes", "plane"), [(4, (3, 16)), (16, (3, 32)), (64, (5, 70))])
def test_every_frequency_of_a_pair_codes_exactly(lanes: int, plane: tuple[int, int]) -> None:
    """All frequencies from 1 to 16381, likely and unlikely pairs alike."""
    frequencies = np.arange(1, 16382)
    cdf = np.stack([np.zeros_like(frequencies), *(frequencies + k for k in range(3)), np.full_like(frequencies, 16384)], 1)
    rng = np.random.default_rng(3)
    for first in range(0, len(cdf), 1024):
        model = EntropyModel(cdf[first : first + 1024].astype(np.uint16), pairs=True)
        symbols = rng.integers(0, 2, (model.channels, *plane)).astype(np.uint8)
        coder = _rans.LatentCoder(model.cdf, *plane, model.profile, model.table_hash)
        packets = [coder.encode(symbols, np.empty(coder.packet_bound, np.uint8), 0, 0, 0, 0, lanes, kernel) for kernel in KERNELS]
        assert all(packet == packets[0] for packet in packets)
        if first in (0, 15 * 1024):
            assert packets[0] == reference.encode_packet(model, symbols, frame_id=0, timestamp_ns=0, lanes=lanes)
        for kernel in KERNELS:
            out = np.empty_like(symbols)
            assert coder.decode(packets[0], out, kernel)[0] == 0
            assert (out == symbols).all()


@pytest.mark.parametrize(("plane", "lanes"), [((48, 45), 16), ((64, 128), 64)])
def test_every_kernel_chooses_the_same_lanes_for_the_rarest_pairs(plane: tuple[int, int], lanes: int) -> None:
    """Sums of costs are kept in words of 16 bits for as long as the dearest pairs fit."""
    counts = np.ones((4, 6, 6), np.int64)
    counts[:, 0, 0] = 10**9
    model, symbols = EntropyModel.from_counts(counts), np.full((4, *plane), 5, np.uint8)
    coder = _rans.LatentCoder(model.cdf, *plane, model.profile, model.table_hash)
    expected = reference.encode_packet(model, symbols, frame_id=0, timestamp_ns=0)
    assert reference.decode_packet(model, expected, *plane)[0].lanes == lanes
    for kernel in KERNELS:
        assert coder.encode(symbols, np.empty(coder.packet_bound, np.uint8), 0, 0, 0, 0, 0, kernel) == expected, kernel


def test_symbols_that_are_no_level_are_refused_by_every_kernel(sample) -> None:
    """Pairs are looked up by three bits a symbol, and kernels find the highest symbol on their way."""
    for lanes in (1, 3, 8, 16, 32, 64):
        model, symbols = sample(2, 9, 31, pairs=True)
        coder = _rans.LatentCoder(model.cdf, 9, 31, model.profile, model.table_hash)
        for place in (0, 100, 2 * 9 * 31 - 1):
            for value in (6, 8, 255):
                wrong = symbols.copy()
                wrong.ravel()[place] = value
                for kernel in KERNELS:
                    status = coder.encode(wrong, np.empty(coder.packet_bound, np.uint8), 0, 0, 0, 0, lanes, kernel)
                    assert isinstance(status, int), (lanes, place, value, kernel)
                    assert _rans.STATUS_NAMES[status] == "symbol_out_of_range"


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_crc32c_equal_and_continuing(data: bytes, more: bytes) -> None:
    assert _rans.crc32c(data) == reference.crc32c(data)
    assert _rans.crc32c(more, _rans.crc32c(data)) == reference.crc32c(data + more)


@pytest.mark.parametrize("size", [3071, 3072, 3073, 3080, 6144, 10_000])
def test_crc32c_of_long_data(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert _rans.crc32c(data) == reference.crc32c(data)
    assert _rans.crc32c(data[1:]) == reference.crc32c(data[1:]), "unaligned"


def test_crc32c_is_castagnoli() -> None:
    assert _rans.crc32c(b"123456789") == 0xE3069283
    assert _rans.crc32c(bytes(32)) == 0x8A9136AA
    assert _rans.crc32c(b"123456789") != zlib.crc32(b"123456789")


def test_integer_logarithm() -> None:
    for frequency in (*range(1, 4097), *range(4099, 16385, 7)):
        assert 0 <= np.log2(frequency) * 256 - reference.log2_q8(frequency) < 1.01
