"""Video files: every good frame is delivered with its own presentation time, and a file that was cut off or damaged ends in a SourceError.

A frame count is an estimate in many containers. Fewer frames are an error only where the file's structure shows that some are missing
(`container`); elsewhere the source's notes say so.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.container import container_is_cut, container_is_damaged, tracks_of_pictures
from percodec.runtime.capture.opencv import opencv
from percodec.runtime.capture.source import DEFAULT_FRAME_RATE, SourceInfo
from percodec.sdk.errors import SourceError
from percodec.sdk.text import native_name
from percodec.sdk.types import Frame, PixelFormat


class VideoFile:
    """Frames of a video file in order, BGR as decoded, stamped with their time after the first.

    Frames without a time (raw streams have none), and frames whose time does not advance, follow the one before at the file's frame rate.
    """

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        self._path, self._cv2 = path, cv2
        self._cut = container_is_cut(path)
        self._capture = cv2.VideoCapture(native_name(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            why = "the file is cut off" if self._cut else "it is not a video OpenCV can decode"
            raise SourceError(f"{path}: cannot be opened as a video: {why}")
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.info = SourceInfo(
            str(path),
            "video",
            False,
            int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            fps if 0.1 <= fps <= 1000 else DEFAULT_FRAME_RATE,
            frames if 0 < frames < 2**30 else None,
        )
        if (tracks := tracks_of_pictures(path)) > 1:
            self.info.notes.append(f"{tracks} tracks of pictures; one of them is read")
        self._period_ns = 1e9 / (self.info.fps or DEFAULT_FRAME_RATE)
        self._next, self._first_ms = 0, 0.0
        self._last_ns = self._base_ns = self._untimed = 0
        self._lock = threading.Lock()  # close() may come from another thread while a frame is being decoded
        self._buffer: NDArray[np.uint8] | None = None

    def read(self) -> Frame | None:
        with self._lock:
            if self._capture is None:
                return None
            ok, image = self._capture.read(self._buffer)
            at_ms = float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC))
        if not ok:
            self._check_end()
            return None
        self._buffer = image
        index, self._next = self._next, self._next + 1
        return Frame(image, index, self._time_ns(index, at_ms), PixelFormat.BGR8)

    def close(self) -> None:
        with self._lock:
            if self._capture is not None:
                self._capture.release()
                self._capture = None

    def _time_ns(self, index: int, at_ms: float) -> int:
        if index == 0:
            self._first_ms = at_ms
            return 0
        time_ns = round((at_ms - self._first_ms) * 1e6)
        if time_ns <= self._last_ns:
            self._untimed += 1
            time_ns = self._base_ns + round(self._untimed * self._period_ns)
        else:
            self._untimed = 0
        self._last_ns = time_ns
        if not self._untimed:
            self._base_ns = time_ns
        return time_ns

    def _check_end(self) -> None:
        if self._next == 0:
            raise SourceError(f"{self._path}: no frame could be decoded; the file is damaged or holds no video")
        promised, period_s = self.info.frames or 0, self._period_ns / 1e9
        missing = promised - self._next
        if missing > 0 and (
            self._cut or (missing > max(2, promised // 50) and container_is_damaged(self._path, self._last_ns / 1e9, period_s, missing))
        ):
            raise SourceError(
                f"{self._path}: the video ends after {self._next} of {promised} frames (cut off or damaged); "
                f"the {self._next} frames were processed"
            )
        if self._cut:
            raise SourceError(f"{self._path}: the file is cut off; the {self._next} frames it holds were processed")
        if missing > 0:
            self.info.notes.append(f"{self._next} frame{'s' * (self._next != 1)}, where the container's estimate was {promised}")


__all__ = ["VideoFile"]
