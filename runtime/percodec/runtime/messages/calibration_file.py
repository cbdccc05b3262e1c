"""A camera's calibration as ROS tools write it (`camera_calibration`, `camera_info_manager`): YAML with matrices as lists of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from percodec.runtime.messages.cdr import CameraInfo, Header
from percodec.sdk.errors import UsageError
from percodec.sdk.files import read_file
from percodec.sdk.yaml_text import read_yaml

MAX_COEFFICIENTS = 100


def camera_info_from_yaml(path: Path) -> CameraInfo:
    """The file's `CameraInfo`, with an empty header. Raises `UsageError` naming the key that is missing or is not what it must be."""
    try:
        found = read_yaml(read_file(path, 1 << 20).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}; give a calibration file (YAML)") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no YAML ({error})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: a calibration file has keys such as image_width and camera_matrix")
    model = found.get("distortion_model", "")
    if not isinstance(model, str):
        raise UsageError(f"{path}: distortion_model is a word, for example plumb_bob")
    return CameraInfo(
        Header(),
        _side(path, found, "image_height"),
        _side(path, found, "image_width"),
        model,
        _numbers(path, found, "distortion_coefficients", None),
        k=_numbers(path, found, "camera_matrix", 9),
        r=_numbers(path, found, "rectification_matrix", 9),
        p=_numbers(path, found, "projection_matrix", 12),
    )


def _side(path: Path, found: dict[str, Any], key: str) -> int:
    value = found.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise UsageError(f"{path}: {key} is a number of pixels from 1 to 65535, got {value!r}")
    return value


def _numbers(path: Path, found: dict[str, Any], key: str, count: int | None) -> tuple[float, ...]:
    entry = found.get(key)
    data = entry.get("data") if isinstance(entry, dict) else None
    values = data if isinstance(data, list) else [None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numbers or (len(values) != count if count is not None else len(values) > MAX_COEFFICIENTS):
        raise UsageError(f"{path}: {key} has `data`, a list of {'numbers' if count is None else f'{count} numbers'}")
    return tuple(float(value) for value in values if value is not None)


__all__ = ["MAX_COEFFICIENTS", "camera_info_from_yaml"]
