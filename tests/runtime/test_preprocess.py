"""Each fit policy against the geometry it promises, into the caller's buffer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from percodec.runtime.capture.preprocess import Preprocessor, RawCopy
from percodec.sdk.camera import CameraFormat
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
@pytest.mark.parametrize("kind", [PixelFormat.RGB8, PixelFormat.BGR8])
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


YUV = {"white": (235, 128, 128), "black": (16, 128, 128), "red": (81, 90, 240), "green": (145, 54, 34), "blue": (41, 240, 110)}
RGB = {"white": [255] * 3, "black": [0] * 3, "red": [255, 0, 0], "green": [0, 255, 0], "blue": [0, 0, 255]}


def yuv(kind: PixelFormat, height: int, width: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A picture of one colour as a camera gives it."""
    y, u, v = colour
    if kind is PixelFormat.NV12:
        image = np.full((height * 3 // 2, width), y, np.uint8)
        image[height:, 0::2], image[height:, 1::2] = u, v
        return image
    image = np.full((height, width, 2), y, np.uint8)
    image[:, 0::2, 1], image[:, 1::2, 1] = u, v
    return image


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("size", [(64, 96), (128, 192), (96, 162), (32, 48)])
@pytest.mark.parametrize("name", YUV)
@pytest.mark.parametrize("kind", [PixelFormat.NV12, PixelFormat.YUYV])
def test_yuv_becomes_rgb_by_bt601(kind: PixelFormat, name: str, size: tuple[int, int], fit: str) -> None:
    out = run(yuv(kind, *size, YUV[name]), fit, kind)
    assert np.abs(out.astype(int) - RGB[name]).max() <= 2


@pytest.mark.parametrize("kind", [PixelFormat.NV12, PixelFormat.YUYV])
def test_yuv_keeps_its_place(kind: PixelFormat) -> None:
    """Left half white, right half blue; letterboxed: bars above and below, the border between the halves in the middle."""
    white, blue = (yuv(kind, 50, 150, YUV[name]) for name in ("white", "blue"))
    out = run(np.concatenate([white, blue], 1), "letterbox", kind)
    assert np.all(out[:24] == 0)
    assert np.all(out[40:] == 0)
    assert np.abs(out[24:40, :47].astype(int) - RGB["white"]).max() <= 2
    assert np.abs(out[24:40, 49:].astype(int) - RGB["blue"]).max() <= 2


def test_formats_and_sizes_may_change_from_frame_to_frame() -> None:
    """Scratch is kept between frames; what it held before must never show."""
    preprocess, out = Preprocessor(64, 96, "letterbox"), np.empty((64, 96, 3), np.uint8)
    sizes = ((64, 96), (50, 300), (64, 96), (300, 50))
    for kind in (PixelFormat.NV12, PixelFormat.YUYV):
        for k, (name, size) in enumerate(zip(("red", "green", "blue", "white"), sizes, strict=True)):
            image = yuv(kind, *size, YUV[name])
            preprocess(Frame(image, k, 0, kind), out)
            np.testing.assert_array_equal(out, run(image, "letterbox", kind))
            preprocess(Frame(noise(*size), k, 0), out)
            np.testing.assert_array_equal(out, run(noise(*size), "letterbox"))


def test_yuv_frames_need_no_new_memory() -> None:
    import tracemalloc

    preprocess, out = Preprocessor(64, 96, "letterbox"), np.empty((64, 96, 3), np.uint8)
    frame = Frame(yuv(PixelFormat.NV12, 500, 1000, YUV["red"]), 0, 0, PixelFormat.NV12)
    preprocess(frame, out)
    tracemalloc.start()
    try:
        preprocess(frame, out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000, "the picture in RGB alone would be 1.5 MB"


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (PixelFormat.NV12, (97, 96), r"NV12 is uint8 \[H\*3/2,W\], H and W even, .* got uint8 \[97, 96\]"),
        (PixelFormat.NV12, (96, 95), "NV12 is uint8"),
        (PixelFormat.NV12, (0, 96), "NV12 is uint8"),
        (PixelFormat.NV12, (96, 0), "NV12 is uint8"),
        (PixelFormat.NV12, (96, 96, 3), "NV12 is uint8"),
        (PixelFormat.NV12, (96,), "NV12 is uint8"),
        (PixelFormat.NV12, (), "NV12 is uint8"),
        (PixelFormat.YUYV, (64, 95, 2), r"YUYV is uint8 \[H,W,2\], W even, .* got uint8 \[64, 95, 2\]"),
        (PixelFormat.YUYV, (64, 96, 3), "YUYV is uint8"),
        (PixelFormat.YUYV, (64, 96), "YUYV is uint8"),
        (PixelFormat.YUYV, (0, 96, 2), "YUYV is uint8"),
        (PixelFormat.YUYV, (64, 0, 2), "YUYV is uint8"),
        (PixelFormat.YUYV, (), "YUYV is uint8"),
    ],
)
def test_yuv_frames_that_are_no_pictures(kind: PixelFormat, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        run(np.zeros(shape, np.uint8), kind=kind)


def test_yuv_of_another_type_is_refused() -> None:
    with pytest.raises(SourceError, match="got uint16"):
        run(np.zeros((96, 96), np.uint16), kind=PixelFormat.NV12)  # type: ignore[arg-type]


def test_unknown_fit() -> None:
    with pytest.raises(BundleError, match=r"preprocess\.fit"):
        Preprocessor(8, 8, "zoom")


def test_a_devices_camera_graph_gets_the_picture_as_it_came() -> None:
    camera = CameraFormat.from_text("nv12:32x16")
    out = np.zeros(camera.shape, np.uint8)
    picture = np.random.default_rng(1).integers(0, 256, camera.shape, np.uint8)
    RawCopy(camera)(Frame(picture, 0, 0, PixelFormat.NV12), out)
    assert np.array_equal(out, picture)
    for wrong in (Frame(picture[:-1], 1, 0, PixelFormat.NV12), Frame(picture, 2, 0, PixelFormat.RGB8)):
        with pytest.raises(SourceError, match="the engine was built for nv12:32x16, the source gives"):
            RawCopy(camera)(wrong, out)
