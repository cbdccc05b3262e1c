"""Calibration files: the form that ROS tools write, and what is wrong with any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from percodec.runtime.messages.calibration_file import camera_info_from_yaml
from percodec.sdk.errors import UsageError

TEXT = """image_width: 640
image_height: 480
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [500, 0, 319.5, 0, 501.0, 239.5, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [500, 0, 319.5, 0, 0, 501, 239.5, 0, 0, 0, 1, 0]}
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text(TEXT, encoding="utf-8")
    info = camera_info_from_yaml(tmp_path / "front.yaml")
    assert (info.width, info.height, info.distortion_model) == (640, 480, "plumb_bob")
    assert info.d == (0.1, -0.2, 0.0, 0.0, 0.0)
    assert info.k[2] == info.p[2] == 319.5
    assert info.r == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("image_width: 640", "image_width: wide", "image_width is a number of pixels"),
        ("image_height: 480", "image_height: 0", "image_height is a number of pixels"),
        ("0, 0, 1]\ndist", "0, 0]\ndist", "camera_matrix has `data`, a list of 9 numbers"),
        ("[0.1, -0.2", "[yes, -0.2", "distortion_coefficients has `data`"),
        ("projection_matrix", "projection", "projection_matrix has `data`, a list of 12 numbers"),
        ("plumb_bob", "[a]", "distortion_model is a word"),
        ("image_width: 640", "image_width: [", "is no YAML"),
        (TEXT, "7", "a calibration file has keys"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    (tmp_path / "front.yaml").write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=why):
        camera_info_from_yaml(tmp_path / "front.yaml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a calibration file"):
        camera_info_from_yaml(tmp_path / "none.yaml")
