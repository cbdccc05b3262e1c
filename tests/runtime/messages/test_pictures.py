"""Every encoding to RGB and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.runtime.messages.pictures import ENCODINGS, image_from_rgb, picture_from_image, rgb_from_compressed, rgb_from_image
from percodec.sdk.errors import MessageError
from percodec.sdk.types import Frame, PixelFormat

HEADER = Header(1, 2, "camera")
LOSSLESS = ("rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4")


@pytest.fixture(scope="module")
def smooth() -> NDArray[np.uint8]:
    """A picture whose colours change slowly: what shares or interpolates colour changes it little."""
    y, x = np.mgrid[:48, :64].astype(np.float64)
    return np.stack([60 + 2 * x, 200 - 2 * y, 90 + x + y], axis=2).astype(np.uint8)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_there_and_back(smooth: NDArray[np.uint8], encoding: str) -> None:
    image = image_from_rgb(smooth, encoding, HEADER)
    assert (image.height, image.width, image.encoding, image.header) == (48, 64, encoding, HEADER)
    again = rgb_from_image(image)
    assert again.flags.c_contiguous
    if encoding in LOSSLESS:
        assert np.array_equal(again, smooth)
    elif encoding in ("mono8", "8UC1"):
        assert np.abs(again.astype(int) - cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY)[:, :, None]).max() == 0
    else:
        inner = np.abs(again.astype(int) - smooth)[2:-2, 2:-2]
        assert inner.max() <= 5, encoding  # swapped channels differ by far more


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_padded_rows_and_the_preprocessing_see_the_same(smooth: NDArray[np.uint8], encoding: str) -> None:
    image = image_from_rgb(smooth, encoding, HEADER)
    rows = image.data.reshape(-1, image.step)
    wide = Image(HEADER, 48, 64, encoding, image.step + 5, np.pad(rows, ((0, 0), (0, 5)), constant_values=77).reshape(-1))
    assert np.array_equal(rgb_from_image(wide), rgb_from_image(image))
    out = np.empty((48, 64, 3), np.uint8)
    Preprocessor(48, 64, "stretch")(Frame(*_frame(wide)), out)
    assert np.array_equal(out, rgb_from_image(image))


def _frame(image: Image) -> tuple[NDArray[np.uint8], int, int, PixelFormat]:
    array, kind = picture_from_image(image)
    return array, 0, 0, kind


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "yuyv", "nv12"])
def test_common_pictures_are_not_copied(smooth: NDArray[np.uint8], encoding: str) -> None:
    image = image_from_rgb(smooth, encoding, HEADER)
    assert np.shares_memory(picture_from_image(image)[0], image.data)


def test_bayer_samples_come_back_to_their_places() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 10, 20, 30
    assert image_from_rgb(picture, "bayer_grbg8", HEADER).data.reshape(4, 4)[:2, :2].tolist() == [[20, 10], [30, 20]]


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_an_image_file_is_read(smooth: NDArray[np.uint8], kind: str) -> None:
    data = cv2.imencode(kind, smooth[:, :, ::-1])[1].reshape(-1)
    found = rgb_from_compressed(CompressedImage(HEADER, kind, data))
    assert np.abs(found.astype(int) - smooth).mean() < 3
    with pytest.raises(MessageError, match=r"cut off|not a readable"):
        rgb_from_compressed(CompressedImage(HEADER, kind, data[: len(data) // 2]))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (Image(HEADER, 4, 4, "16UC1", 8, np.zeros(32, np.uint8)), "not coded"),
        (Image(HEADER, 0, 4, "rgb8", 12, np.zeros(0, np.uint8)), "0 pixels|4x0"),
        (Image(HEADER, 4, 4, "rgb8", 11, np.zeros(48, np.uint8)), "step of at least 12"),
        (Image(HEADER, 4, 4, "rgb8", 12, np.zeros(47, np.uint8)), "47 bytes"),
        (Image(HEADER, 3, 4, "nv12", 4, np.zeros(18, np.uint8)), "even"),
        (Image(HEADER, 2**31, 2**31, "mono8", 2**31, np.zeros(4, np.uint8)), "there are from"),
    ],
)
def test_what_is_no_picture_is_refused(image: Image, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        picture_from_image(image)


def test_depth_is_refused() -> None:
    with pytest.raises(MessageError, match="depth"):
        rgb_from_compressed(CompressedImage(HEADER, "16UC1; compressedDepth png", np.zeros(9, np.uint8)))
