"""A point's pixel by the fitted calibration is where the preprocessing really puts it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.messages.calibration import fitted_camera_info, sent_size
from percodec.runtime.messages.cdr import CameraInfo, Header, RegionOfInterest
from percodec.sdk.errors import MessageError
from percodec.sdk.types import Frame

FULL_H, FULL_W = 720, 1280
FX, FY, CX, CY, BASELINE = 900.0, 880.0, 655.25, 340.5, -108.0
K = (FX, 0.0, CX, 0.0, FY, CY, 0.0, 0.0, 1.0)
P = (FX, 0.0, CX, BASELINE, 0.0, FY, CY, 0.0, 0.0, 0.0, 1.0, 0.0)
INFO = CameraInfo(Header(9, 9, "old"), FULL_H, FULL_W, "plumb_bob", (0.1, -0.2, 0.0, 0.0, 0.01), K, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), P)
RAYS = [(x, y) for x in (-0.25, 0.02, 0.21) for y in (-0.13, 0.01, 0.12)]
HEADER = Header(1, 2, "camera")


def _pixel(matrix: tuple[float, ...], ray: tuple[float, float]) -> tuple[float, float]:
    u, v, w = np.array(matrix).reshape(3, -1)[:, :3] @ np.array([*ray, 1.0])
    return u / w, v / w


def _blob(x: float, y: float) -> NDArray[np.uint8]:
    """A bright Gaussian at a pixel of the full picture; sigma well above what resampling smooths."""
    ys, xs = np.mgrid[:FULL_H, :FULL_W]
    blob = 250 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 9.0**2))
    return np.repeat(np.rint(blob).astype(np.uint8)[:, :, None], 3, axis=2)


def _centre(picture: NDArray[np.uint8]) -> tuple[float, float]:
    grey = picture[:, :, 0].astype(np.float64)
    ys, xs = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return float((grey * xs).sum() / grey.sum()), float((grey * ys).sum() / grey.sum())


def _sent(full: NDArray[np.uint8], info: CameraInfo) -> NDArray[np.uint8]:
    """What a camera with that region and binning sends."""
    roi, bx, by = info.roi, max(1, info.binning_x), max(1, info.binning_y)
    part = full[roi.y_offset : roi.y_offset + roi.height, roi.x_offset : roi.x_offset + roi.width] if roi.width else full
    height, width = part.shape[0] // by, part.shape[1] // bx
    return np.ascontiguousarray(
        part[: height * by, : width * bx].reshape(height, by, width, bx, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    )


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(360, 480), (1080, 1440)])
@pytest.mark.parametrize(
    "info",
    [
        INFO,
        dataclasses.replace(INFO, roi=RegionOfInterest(160, 70, 560, 1000)),
        dataclasses.replace(INFO, binning_x=2, binning_y=2),
        dataclasses.replace(INFO, roi=RegionOfInterest(161, 71, 558, 999), binning_x=3, binning_y=2),
    ],
    ids=["whole", "roi", "binning", "both"],
)
def test_the_blob_is_where_the_calibration_says(info: CameraInfo, fit: str, size: tuple[int, int]) -> None:
    out = np.empty((*size, 3), np.uint8)
    preprocess = Preprocessor(*size, fit)
    worst = 0.0
    for ray in RAYS[::4]:
        picture = _sent(_blob(*_pixel(info.k, ray)), info)
        fitted = fitted_camera_info(info, HEADER, picture.shape[0], picture.shape[1], fit, *size)
        x, y = _pixel(fitted.k, ray)
        assert (x, y) == pytest.approx(_pixel(fitted.p, ray))
        margin = 40 * size[0] / 360
        if not (margin < x < size[1] - margin and margin < y < size[0] - margin):
            continue  # cropped away
        preprocess(Frame(picture, 0, 0), out)
        found = _centre(out)
        worst = max(worst, abs(found[0] - x), abs(found[1] - y))
    assert 0 < worst < 0.05


def test_what_has_no_pixels_stays_and_the_size_is_the_frames() -> None:
    fitted = fitted_camera_info(INFO, HEADER, FULL_H, FULL_W, "crop", 360, 480)
    assert (fitted.d, fitted.r, fitted.distortion_model) == (INFO.d, INFO.r, INFO.distortion_model)
    assert (fitted.height, fitted.width, fitted.header, fitted.roi) == (360, 480, HEADER, RegionOfInterest())
    assert fitted.p[3] / fitted.p[0] == pytest.approx(BASELINE / FX)  # the baseline in metres


def test_a_camera_without_calibration_stays_without() -> None:
    bare = CameraInfo(HEADER, FULL_H, FULL_W)
    fitted = fitted_camera_info(bare, HEADER, FULL_H, FULL_W, "stretch", 360, 480)
    assert (fitted.k, fitted.p) == (bare.k, bare.p)


def test_camera_info_of_other_pictures_is_refused() -> None:
    with pytest.raises(MessageError, match=r"of pictures 1280x720, the image has 640x360"):
        fitted_camera_info(INFO, HEADER, 360, 640, "crop", 360, 480)
    assert sent_size(dataclasses.replace(INFO, binning_x=3)) == (720, pytest.approx(426.67, abs=0.01))
    fitted_camera_info(dataclasses.replace(INFO, binning_x=3), HEADER, 720, 426, "crop", 360, 480)


def test_undistorting_with_the_fitted_calibration_agrees() -> None:
    """Distortion is of rays: undistorted through K or through the fitted K, a pixel is the same ray."""
    fitted = fitted_camera_info(INFO, HEADER, FULL_H, FULL_W, "crop", 360, 480)
    through = np.array(fitted.k).reshape(3, 3) @ np.linalg.inv(np.array(INFO.k).reshape(3, 3))
    pixels = np.array([[400.0, 200.0], [700.0, 500.0]])
    moved = (np.c_[pixels, np.ones(2)] @ through.T)[:, :2]
    rays = [
        cv2.undistortPoints(points[:, None], np.array(k).reshape(3, 3), np.array(INFO.d))
        for points, k in ((pixels, INFO.k), (moved, fitted.k))
    ]
    assert np.allclose(rays[0], rays[1], atol=1e-9)
