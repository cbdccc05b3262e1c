"""`cv2`, imported once and quietly: its own chatter never reaches the terminal, only our one-line errors do."""

from __future__ import annotations

import functools
import os
from typing import Any

from percodec.sdk.errors import BackendError

MAX_PIXELS = 1 << 27  # a picture larger than this (134 Mpixel) is refused before it is decoded


@functools.cache
def opencv() -> Any:
    """The `cv2` module. Raises BackendError where OpenCV is not installed."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    try:
        import cv2
    except ImportError as error:
        raise BackendError(f"OpenCV cannot be imported ({_first_line(error)}): run `pip install percodec[ort]`") from error
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)  # whoever imported cv2 before us may have left it talkative
    # One thread: resizing a frame costs less than waking helpers that would compete with the networks for cores.
    cv2.setNumThreads(1)
    return cv2


def build_supports(feature: str) -> bool:
    """True when OpenCV's build report says YES for `feature` ("GStreamer", "FFMPEG", "v4l/v4l2")."""
    for line in str(opencv().getBuildInformation()).splitlines():
        name, _, value = line.strip().partition(":")
        if name == feature:
            return value.strip().startswith("YES")
    return False


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


__all__ = ["MAX_PIXELS", "build_supports", "opencv"]
