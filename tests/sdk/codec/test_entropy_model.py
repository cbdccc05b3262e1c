from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percodec.sdk.codec import EntropyModel
from percodec.sdk.codec.entropy_model import count_pairs
from percodec.sdk.errors import CodecError, EntropyModelError

COUNTS = [[10, 0, 0, 5], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 10**9]]


def test_golden_tables_and_digest() -> None:
    model = EntropyModel.from_counts(COUNTS)
    assert model.cdf.tolist() == [
        [0, 2729, 2730, 2731, 4096],
        [0, 1024, 2048, 3072, 4096],
        [0, 1024, 2048, 3072, 4096],
        [0, 1, 2, 3, 4096],
    ]
    assert model.digest.hex() == "3e92a37353b21de2fd311c1f9f3ec6bd5d70df46d2f5741da839778bea138be3"
    assert model.table_hash == int.from_bytes(model.digest[:8], "little")
    assert (model.channels, model.levels, model.profile) == (4, 4, 0)


def test_serialisation_is_the_written_layout() -> None:
    model = EntropyModel(np.array([[0, 1, 4096]], np.uint16))
    assert model.to_bytes() == b"PCEM\x01\x00\x0c\x00\x01\x00\x02\x00" + b"\x00\x00\x01\x00\x00\x10"
    assert EntropyModel.from_bytes(model.to_bytes()) == model


def test_pairs_are_tables_of_two_neighbours() -> None:
    counts = np.array([[[30, 0], [1, 1]], [[0, 0], [0, 0]]])
    model = EntropyModel.from_counts(counts)
    assert model.cdf.tolist() == [[0, 15359, 15360, 15872, 16384], [0, 4096, 8192, 12288, 16384]]
    assert (model.channels, model.levels, model.profile, model.precision) == (2, 2, 3, 14)
    assert model.to_bytes()[:12] == b"PCEM\x01\x03\x0e\x00\x02\x00\x02\x00"
    assert EntropyModel.from_bytes(model.to_bytes()) == model
    symbols = np.array([[[0, 0, 1]], [[0, 1, 0]]], np.uint8)  # an odd plane: the last symbol is a pair with 0
    bits = 14 - np.log2([15359, 512, 4096, 4096])
    assert model.cost_bits(symbols) == pytest.approx(bits.sum())


def test_pairs_cost_what_their_neighbours_do_not_tell() -> None:
    """Two neighbours that are always equal cost one; the table of each alone pays for both."""
    rng = np.random.default_rng(0)
    symbols = np.repeat(rng.choice(6, (2, 40, 30), p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]), 2, axis=2).astype(np.uint8)
    alone = EntropyModel.from_counts(np.stack([np.bincount(s.ravel(), minlength=6) for s in symbols]))
    pairs = EntropyModel.from_counts(count_pairs(symbols, 6))
    assert pairs.cost_bits(symbols) < 0.51 * alone.cost_bits(symbols)


@pytest.mark.parametrize(
    "cdf",
    [
        np.arange(6)[None],
        np.zeros((2, 0), np.int64),
        np.array([[0, 1, 2, 3, 4096]]),
        np.array([[0, 1, 1, 3, 16384]]),
        np.linspace(0, 16384, 82, dtype=np.int64)[None],
    ],
)
def test_invalid_tables_of_pairs_are_refused(cdf: np.ndarray) -> None:
    with pytest.raises(EntropyModelError):
        EntropyModel(cdf, pairs=True)


@given(st.data())
def test_any_counts_give_a_valid_model_close_to_them(data: st.DataObject) -> None:
    levels = data.draw(st.integers(2, 256))
    row = st.lists(st.integers(0, 2**62), min_size=levels, max_size=levels)
    counts = np.array(data.draw(st.lists(row, min_size=1, max_size=3)), np.int64)
    model = EntropyModel.from_counts(counts)
    frequencies = np.diff(model.cdf.astype(np.int64), axis=1)
    assert frequencies.min() >= 1
    assert (frequencies.sum(axis=1) == 4096).all()
    for row_counts, row_frequencies in zip(counts.tolist(), frequencies.tolist(), strict=True):
        total = sum(row_counts) or 1
        for count, frequency in zip(row_counts, row_frequencies, strict=True):
            if sum(row_counts):
                assert abs(frequency - 1 - count * (4096 - levels) / total) <= 1
    assert EntropyModel.from_bytes(model.to_bytes()) == model


@pytest.mark.parametrize(
    "cdf",
    [
        np.array([[0, 4096]], np.uint16),
        np.array([[1, 2, 4096]], np.uint16),
        np.array([[0, 2, 4095]], np.uint16),
        np.array([[0, 0, 4096]], np.uint16),
        np.array([[0, 4096, 4096]], np.uint16),
        np.array([[0, 5, 4, 4096]], np.uint16),
        np.array([[0, 1, 4096], [0, 4097, 4096]], np.uint16),
        np.array([[0, -1, 4096]], np.int32),
        np.array([[0.0, 1.0, 4096.0]]),
        np.array([0, 1, 4096], np.uint16),
        np.zeros((0, 3), np.uint16),
        np.arange(258, dtype=np.uint16)[None] * 16,
        np.zeros((1025, 3), np.uint16),
    ],
)
def test_invalid_tables_are_refused(cdf: np.ndarray) -> None:
    with pytest.raises(EntropyModelError):
        EntropyModel(cdf)


@pytest.mark.parametrize(
    "counts", [[[1]], [[-1, 2]], [[0.5, 0.5]], [1, 2], *(np.zeros(shape, np.int64) for shape in ((1, 257), (0, 4), (1, 9, 9), (1, 2, 3)))]
)
def test_invalid_counts_are_refused(counts: object) -> None:
    with pytest.raises(EntropyModelError):
        EntropyModel.from_counts(counts)  # type: ignore[arg-type]


def test_every_altered_serialisation_is_refused_or_another_model() -> None:
    model = EntropyModel.from_counts(COUNTS)
    data = model.to_bytes()
    for length in range(len(data)):
        with pytest.raises(EntropyModelError):
            EntropyModel.from_bytes(data[:length])
    with pytest.raises(EntropyModelError):
        EntropyModel.from_bytes(data + b"\0")
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            other = EntropyModel.from_bytes(bytes(altered))
        except EntropyModelError:
            continue
        assert bit >= 8 * 12, "no bit of the header may be free"
        assert other.digest != model.digest


def test_immutable_and_independent_of_its_input() -> None:
    cdf = np.array([[0, 1, 4096]], np.uint16)
    model = EntropyModel(cdf)
    cdf[0, 1] = 7
    assert model.cdf[0, 1] == 1
    with pytest.raises(ValueError, match="read-only"):
        model.cdf[0, 1] = 2
    with pytest.raises(AttributeError):
        model.cdf = cdf  # type: ignore[misc]


def test_cost_bits_is_the_ideal_length() -> None:
    model = EntropyModel(np.array([[0, 1024, 3072, 4096]], np.uint16))
    assert model.cost_bits(np.array([[[0, 1, 2, 1]]], np.uint8)) == 2 + 1 + 2 + 1
    with pytest.raises(EntropyModelError, match=r"levels 0\.\.2"):
        model.cost_bits(np.array([[[3]]], np.uint8))
    with pytest.raises(EntropyModelError, match="uint8"):
        model.cost_bits(np.zeros((2, 1, 1), np.uint8))


def test_pairs_are_counted_of_few_levels_only() -> None:
    symbols = np.full((1, 2, 2), 6, np.uint8)
    assert count_pairs(symbols, 7).sum() == 2
    for levels in (0, 1, 6, 9, 10**6):
        with pytest.raises(CodecError, match="pairs are of 2 to 8 levels"):
            count_pairs(symbols, levels)
