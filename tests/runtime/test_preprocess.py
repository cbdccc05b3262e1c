"""Each fit policy against the geometry it promises, into the caller's buffer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from percodec.runtime.preprocess import Preprocessor
from percodec.sdk.errors import BundleError, SourceError
from percodec.sdk.types import Frame, PixelFormat


def run(
    image: NDArray[np.uint8], fit: str = "stretch", kind: PixelFormat = PixelFormat.RGB8, height: int = 64, width: int = 96
) -> NDArray[np.uint8]:
    out = np.full((height, width, 3), 7, np.uint8)
    Preprocessor(height, width, fit)(Frame(image, 0, 0, kind), out)
    return out


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("kind", list(PixelFormat))
def test_right_size_is_passed_through_as_rgb(fit: str, kind: PixelFormat) -> None:
    image = noise(64, 96)
    np.testing.assert_array_equal(run(image, fit, kind), image if kind is PixelFormat.RGB8 else image[..., ::-1])


def test_shrinking_averages() -> None:
    image = noise(128, 192)
    expected = image.reshape(64, 2, 96, 2, 3).astype(np.float64).mean((1, 3))
    assert np.abs(run(image) - expected).max() <= 0.51


def test_growing_interpolates() -> None:
    ramp = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    out = run(ramp)
    assert np.all(np.diff(out[10, :, 0].astype(int)) >= 0)
    assert len(np.unique(out[10, :, 0])) > 60, "nearest neighbour would repeat the 48 values"


def test_bgr_is_reordered_after_resizing() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 0] = 200
    assert run(image, kind=PixelFormat.BGR8)[5, 5].tolist() == [0, 0, 200]


def test_letterbox_keeps_shape_between_black_bars() -> None:
    out = run(np.full((50, 300, 3), 255, np.uint8), "letterbox")  # 6:1 into 96x64: 96x16, 24 rows above and below
    assert np.all(out[:24] == 0)
    assert np.all(out[40:] == 0)
    assert np.all(out[24:40] == 255)


def test_crop_keeps_the_middle() -> None:
    image = np.zeros((64, 400, 3), np.uint8)
    image[:, 152:248] = 255
    assert np.all(run(image, "crop") == 255)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (63, 97), (720, 1280)])
def test_any_size_fills_the_buffer(fit: str, size: tuple[int, int]) -> None:
    out = run(np.full((*size, 3), 90, np.uint8), fit)
    assert set(np.unique(out)) <= ({0, 90} if fit == "letterbox" else {90})
    assert out.max() == 90


def test_grey_is_accepted() -> None:
    assert run(np.full((20, 20), 90, np.uint8))[0, 0].tolist() == [90, 90, 90]  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 0, 3), (5, 0, 3), (5, 5, 4), (5, 5, 1)])
def test_frames_that_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(SourceError, match="expected uint8"):
        run(np.zeros(shape, np.uint8))


def test_unknown_fit() -> None:
    with pytest.raises(BundleError, match=r"preprocess\.fit"):
        Preprocessor(8, 8, "zoom")
