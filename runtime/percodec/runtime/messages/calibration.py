"""A camera's calibration in the pixels of the bundle's frame: `CameraInfo` through region of interest, binning and `preprocess.fit`.

Pixel centres have whole coordinates, so a box that begins at `s` and is scaled by `f` to one at `t` takes x to (x + 0.5 - s) f - 0.5 + t.
That map, as a matrix in front of K and of P, is all there is: distortion and rectification are said of rays, which do not change.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.messages.cdr import CameraInfo, Header, RegionOfInterest
from percodec.sdk.errors import MessageError
from percodec.sdk.fit import placement

_Matrix = NDArray[np.float64]


def fitted_camera_info(
    info: CameraInfo, header: Header, height: int, width: int, fit: str, frame_height: int, frame_width: int
) -> CameraInfo:
    """What `info`, of pictures `height` x `width` as sent, says of the bundle's frames, `fit` being one of `percodec.sdk.fit.FITS`.

    The result has `header`, the frame's size, no region of interest and no binning. K all zero, a camera without calibration, stays so.
    Raises `MessageError` where `info` is of pictures of another size.
    """
    sent = sent_size(info)
    if not all(abs(a - b) < 1 for a, b in zip(sent, (height, width), strict=True)):
        raise MessageError(
            f"camera info is of pictures {sent[1]:g}x{sent[0]:g}, the image has {width}x{height}; "
            "let the driver send the camera info of what it sends"
        )
    x0, y0 = _origin(info)
    source, target = placement(fit, height, width, frame_height, frame_width)
    sent_from_full = _scaling(x0, y0, 1 / max(1, info.binning_x), 1 / max(1, info.binning_y), 0, 0)
    sx, sy = target.width / source.width, target.height / source.height
    through = _scaling(source.x, source.y, sx, sy, target.x, target.y) @ sent_from_full
    return dataclasses.replace(
        info,
        header=header,
        height=frame_height,
        width=frame_width,
        k=_through(through, info.k),
        p=_through(through, info.p),
        binning_x=0,
        binning_y=0,
        roi=RegionOfInterest(),
    )


def sent_size(info: CameraInfo) -> tuple[float, float]:
    """Height and width of the pictures this goes with: the region of interest, or all, over the binning."""
    roi = info.roi
    whole = not (roi.height and roi.width)
    height, width = (info.height, info.width) if whole else (roi.height, roi.width)
    return height / max(1, info.binning_y), width / max(1, info.binning_x)


def _origin(info: CameraInfo) -> tuple[int, int]:
    roi = info.roi
    return (roi.x_offset, roi.y_offset) if roi.height and roi.width else (0, 0)


def _scaling(from_x: float, from_y: float, sx: float, sy: float, to_x: float, to_y: float) -> _Matrix:
    return np.array([[sx, 0, (0.5 - from_x) * sx - 0.5 + to_x], [0, sy, (0.5 - from_y) * sy - 0.5 + to_y], [0, 0, 1]])


def _through(map_: _Matrix, values: tuple[float, ...]) -> tuple[float, ...]:
    if not any(values):
        return values
    matrix = np.array(values, np.float64).reshape(3, -1)
    return tuple(float(value) for value in (map_ @ matrix).ravel())


__all__ = ["fitted_camera_info", "sent_size"]
