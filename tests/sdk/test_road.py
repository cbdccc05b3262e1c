"""The synthetic road: seeded, exact labels, every class, a picture and not noise."""

import numpy as np
import pytest

from percodec.sdk.synthetic.road import CLASSES, RoadScene


def test_same_seed_and_index_give_the_same_picture():
    a, b = RoadScene(3).render(10), RoadScene(3).render(10)
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], RoadScene(4).render(10)[0])


def test_order_of_rendering_does_not_matter():
    scene = RoadScene(5, 180, 240)
    scene.render(200)
    again = scene.render(3)
    assert np.array_equal(again[0], RoadScene(5, 180, 240).render(3)[0])


def test_shapes_dtypes_and_classes():
    seen = np.zeros(256, int)
    for seed in range(24):
        image, labels = RoadScene(seed, 180, 240).render(seed)
        assert image.shape == (180, 240, 3)
        assert image.dtype == np.uint8
        assert labels.dtype == np.uint8
        seen += np.bincount(labels.ravel(), minlength=256)
    assert (seen[: len(CLASSES)] > 0).all()
    assert seen[len(CLASSES) :].sum() == 0
    assert 0.15 < seen[3] / seen.sum() < 0.6  # road


def test_consecutive_frames_move_but_stay_alike():
    scene = RoadScene(2)
    a, b, c = (scene.render(k)[1] for k in (0, 1, 40))
    assert (a != b).mean() < 0.15 < (a != c).mean() + 0.15
    assert (a != b).any()


def test_sky_is_above_road():
    labels = RoadScene(1).render(0)[1]
    rows = np.arange(labels.shape[0])[:, None] * np.ones_like(labels)
    assert rows[labels == 0].mean() < rows[labels == 3].mean()


@pytest.mark.parametrize("size", [(0, 10), (16, 480), (10_000, 10_000)])
def test_absurd_sizes_are_refused(size):
    with pytest.raises(ValueError, match="synthetic road"):
        RoadScene(1, *size)
