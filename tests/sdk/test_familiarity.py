"""Statistics of latents against plain numpy; distances that grow in both directions; what is no familiarity is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from percodec.sdk import Bundle, extend_bundle
from percodec.sdk.codec import _rans
from percodec.sdk.errors import BundleError, UsageError
from percodec.sdk.familiarity import BANDS, BEYOND, FARTHEST, Familiarity, band_pixels, feature_count, features

LEVELS, CLASSES = 6, 3


def latents(count: int, seed: int, high: int = LEVELS) -> list[np.ndarray]:
    """Symbols in patches of 2x2, so that neighbours are alike."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, high, (4, 6, 9), dtype=np.uint8).repeat(2, 1).repeat(2, 2)[:, :11, :17].copy() for _ in range(count)]


def made(head: str | None = None) -> Familiarity:
    classes = CLASSES if head else 0
    pixels = np.random.default_rng(3).integers(100, 200, (160, BANDS, CLASSES))[:, :, :classes]
    rows = [features(s, LEVELS, p) for s, p in zip(latents(160, 1), pixels, strict=True)]
    return Familiarity.fit(rows[:100], rows[100:], LEVELS, classes, head)


@pytest.mark.parametrize(("mean", "spread", "inverse"), [(3e38, 1e-30, 0.0), (0.0, 1e-38, 1.0), (0.0, 1.0, 3e38)])
def test_what_cannot_be_computed_is_not_usual(mean: float, spread: float, inverse: float) -> None:
    """Finite numbers of a bundle whose products are none."""
    count = 2 * (LEVELS + 2)
    found = Familiarity([mean] * count, [spread] * count, np.eye(count) * inverse, 1.0, LEVELS, 0)
    assert found.distance(latents(1, 5)[0][:2]) == FARTHEST


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 9), (3, 9, 1), (5, 7, 33), (2, 90, 257), (16, 45, 60)])
def test_the_statistics_are_numpys(shape: tuple[int, int, int]) -> None:
    symbols = np.random.default_rng(7).integers(0, 8, shape, dtype=np.uint8)
    symbols[:, shape[1] // 2 :] = 1  # long runs of equal neighbours, more than a byte counts
    counts = np.full((shape[0], 8), 77, np.uint32)
    _rans.latent_statistics(symbols, counts)
    for level in range(6):  # 6 and 7 are beyond the levels and in none
        assert (counts[:, level] == (symbols == level).sum((1, 2))).all()
    assert (counts[:, 6] == (symbols[:, :, 1:] == symbols[:, :, :-1]).sum((1, 2))).all()
    assert (counts[:, 7] == (symbols[:, 1:] == symbols[:, :-1]).sum((1, 2))).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 9), (3, 9, 1), (5, 7, 33), (2, 200, 257)])
def test_symbols_below_borders_are_counted(shape: tuple[int, int, int]) -> None:
    symbols = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
    symbols[:, shape[1] // 2 :] = 1
    borders = np.array([[0, 1, 2, 128, 255, 256, 300]] * shape[0], np.uint16) + np.arange(shape[0], dtype=np.uint16)[:, None]
    counts = np.full((shape[0], 9), 77, np.uint32)
    _rans.latent_statistics_below(symbols, borders, counts)
    for k in range(7):
        assert (counts[:, k] == (symbols < borders[:, k, None, None]).sum((1, 2))).all()
    assert (counts[:, 7] == (symbols[:, :, 1:] == symbols[:, :, :-1]).sum((1, 2))).all()
    assert (counts[:, 8] == (symbols[:, 1:] == symbols[:, :-1]).sum((1, 2))).all()


def test_symbols_of_uniform_steps_are_counted_by_sign_and_size() -> None:
    """In the first eight channels; of the whole, upper less lower, and left against right."""
    rng, offsets, levels = np.random.default_rng(8), (30, 3, 0, 5, 5, 5, 5, 5, 5, 5), 61
    symbols = np.stack([rng.integers(0, high, (40, 50), dtype=np.uint8) for high in (61, 7, 20, *[11] * 7)])
    borders = np.array([-3, -1, 0, 1, 2, 4])  # where the next kind begins

    def shares(part: np.ndarray) -> np.ndarray:
        found = []
        for channel, offset in zip(part[:8], offsets[:8], strict=True):
            kinds = np.bincount(np.searchsorted(borders, channel.astype(int) - offset, "right").ravel(), minlength=7) / channel.size
            found += [*kinds, (channel[:, 1:] == channel[:, :-1]).mean(), (channel[1:] == channel[:-1]).mean()]
        return np.sqrt(found)

    sides = np.abs(shares(symbols[:, :, :25]) - shares(symbols[:, :, 25:]))
    classes = np.sqrt([0.25, 0.75, 0.25, 0.75, 0.5, 0.5, 0, 1])
    wanted = np.concatenate([shares(symbols), shares(symbols[:, :20]) - shares(symbols[:, 20:]), sides, classes])
    found = features(symbols, levels, [(1, 3), (1, 3), (2, 2), (0, 4)], offsets)
    assert np.allclose(found, wanted)
    assert len(found) == feature_count(10, levels, 2, offsets)


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 1, 9), (4, 9, 1)])
def test_a_latent_of_one_row_has_halves_too(shape: tuple[int, int, int]) -> None:
    assert np.isfinite(features(np.ones(shape, np.uint8), LEVELS, (), (1, 1, 1, 1))).all()


def test_a_frame_upside_down_or_half_covered_is_far() -> None:
    """By what is where alone: the whole's counts are those of a usual frame."""
    offsets = (2, 2, 2, 2)
    rows = [features(np.sort(s, 1), LEVELS, (), offsets) for s in latents(160, 1)]  # small values above, large ones below
    usual = Familiarity.fit(rows[:100], rows[100:], LEVELS, 0, None, offsets)
    one = np.sort(latents(1, 9)[0], 1)
    assert usual.distance(one) < 1.1
    assert usual.distance(one[:, ::-1]) > 2
    covered = one.copy()
    covered[:, :, :8] = 2
    assert usual.distance(covered) > 1.5


@pytest.mark.parametrize("shape", [(8, 6), (1, 16, 5), (7, 3)])
def test_classes_are_counted_by_quarters_of_the_rows(shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(2).integers(0, CLASSES + 1, shape, dtype=np.uint8)  # one class more than there are
    found = band_pixels(labels, CLASSES, np.empty(shape, bool))
    rows = labels.reshape(-1, shape[-1])
    for band in range(BANDS):
        part = rows[len(rows) * band // BANDS : len(rows) * (band + 1) // BANDS]
        assert found[band].tolist() == [int((part == k).sum()) for k in range(CLASSES)]
    assert (found.sum(0) == [(labels == k).sum() for k in range(CLASSES)]).all()


def test_a_familiarity_of_uniform_steps_comes_back_from_its_bytes() -> None:
    offsets = (2, 0, 5, 1)
    rows = [features(s, LEVELS, (), offsets) for s in latents(160, 1)]
    usual = Familiarity.fit(rows[:100], rows[100:], LEVELS, 0, None, offsets)
    again = Familiarity.from_bytes(usual.to_bytes(), usual.limit, 4, LEVELS, 0, None, offsets)
    one = latents(1, 9)[0]
    assert again.distance(one) == usual.distance(one) < 1.5 < usual.distance(np.full_like(one, 3))
    with pytest.raises(BundleError, match="has"):
        Familiarity.from_bytes(usual.to_bytes(), usual.limit, 4, LEVELS, 0, None)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    symbols = np.zeros((2, 3, 3), np.uint8)
    for counts in (np.zeros((1, 8), np.uint32), np.zeros((2, 2), np.uint32), np.zeros((2, 300), np.uint32)):
        with pytest.raises(ValueError, match="counts are"):
            _rans.latent_statistics(symbols, counts)
    with pytest.raises(ValueError, match="counts are"):
        _rans.latent_statistics(np.zeros((2, 0, 3), np.uint8), np.zeros((2, 8), np.uint32))
    for channels, count, width in ((1, 3, 5), (2, 4, 5), (2, 3, 4)):
        with pytest.raises(ValueError, match="counts are"):
            _rans.latent_statistics_below(symbols, np.zeros((channels, count), np.uint16), np.zeros((2, width), np.uint32))


@pytest.mark.parametrize("head", [None, "segmentation"])
def test_what_is_like_it_is_familiar_and_what_is_not_is_far(head: str | None) -> None:
    usual = made(head)
    pixels = [[150, 150, 150]] * BANDS if head else []
    near = [usual.distance(s, pixels) for s in latents(50, 2)]
    assert max(near) <= 1.1
    assert np.median(near) < 1
    rng = np.random.default_rng(5)
    strange = {
        "flat": np.full((4, 11, 17), 3, np.uint8),
        "noise": rng.integers(0, LEVELS, (4, 11, 17), dtype=np.uint8),  # the same levels, other neighbours
        "low": latents(1, 4, high=3)[0],
    }
    assert {name for name, s in strange.items() if usual.distance(s, pixels) > 1.2} == set(strange)
    if head:
        assert usual.distance(latents(1, 2)[0], [[450, 0, 0]] * BANDS) > 1.2, "labels are a part of it"


def test_the_oddest_frames_that_set_the_limit_are_beyond_it() -> None:
    rows = [features(s, LEVELS) for s in latents(160, 1)]
    usual = Familiarity.fit(rows[:100], rows[100:], LEVELS, 0)
    assert sum(usual.distance_of(row) > 1 for row in rows[100:]) == round(BEYOND * 60)


def test_the_size_of_a_latent_does_not_matter() -> None:
    usual = made()
    large = np.concatenate(latents(6, 9), axis=1)
    assert usual.distance(large) < 1.1


def test_bytes_give_it_back() -> None:
    usual = made("segmentation")
    again = Familiarity.from_bytes(usual.to_bytes(), usual.limit, 4, LEVELS, CLASSES, "segmentation")
    for symbols in latents(5, 6):
        assert again.distance(symbols, [[1, 2, 3]] * BANDS) == usual.distance(symbols, [[1, 2, 3]] * BANDS)
    with pytest.raises(ValueError, match="read-only"):
        again.mean[0] = 1


def test_what_is_none_is_refused() -> None:
    usual = made()
    data, count = usual.to_bytes(), usual.mean.size
    with pytest.raises(BundleError, match=f"has {len(data)} bytes, got {len(data) - 4}"):
        Familiarity.from_bytes(data[:-4], 1.0, 4, LEVELS, 0, None)
    rows = np.frombuffer(data, np.float32).reshape(count + 2, count).copy()
    for row, value, said in ((0, np.nan, "finite"), (1, 0.0, "above 0"), (1, -1.0, "above 0"), (2, np.inf, "finite")):
        spoiled = rows.copy()
        spoiled[row, 3] = value
        with pytest.raises(BundleError, match=said):
            Familiarity.from_bytes(spoiled.tobytes(), 1.0, 4, LEVELS, 0, None)
    with pytest.raises(BundleError, match="above 0"):
        Familiarity.from_bytes(data, float("nan"), 4, LEVELS, 0, None)
    with pytest.raises(BundleError, match="cannot have"):
        Familiarity(rows[0], rows[1], rows[2:], 1.0, 5, 0)
    with pytest.raises(UsageError, match="4 channels and 0 classes, got a latent \\[3, 2, 2\\]"):
        usual.distance(np.zeros((3, 2, 2), np.uint8))
    with pytest.raises(UsageError, match="and 2 classes"):
        usual.distance(np.zeros((4, 2, 2), np.uint8), [[1, 2]] * BANDS)
    with pytest.raises(UsageError, match="at least 32 frames"):
        Familiarity.fit(np.zeros((5, count)), np.zeros((99, count)), LEVELS, 0)


def test_a_bundle_keeps_it(tmp_path: Path, tiny_folder: Path) -> None:
    tiny = Bundle.open(tiny_folder)
    assert tiny.familiarity is None
    usual = made("segmentation")
    bundle = extend_bundle(tiny, tmp_path / "b", familiarity=usual)
    assert bundle.familiarity is not None
    assert (bundle.familiarity.head, bundle.familiarity.limit, bundle.familiarity.to_bytes()) == (
        "segmentation",
        usual.limit,
        usual.to_bytes(),
    )
    assert bundle.answers_to(tiny.digest)
    text = (tmp_path / "b" / "manifest.json").read_text()
    for key, value in (("head", "nobody"), ("limit", 0), ("limit", "1"), ("file", "x")):
        manifest = json.loads(text)
        manifest["familiarity"][key] = value
        (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match=rf"familiarity\.{key}"):
            Bundle.open(tmp_path / "b")
