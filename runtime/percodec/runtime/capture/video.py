"""Video files: every good frame is delivered, and a file that ends before its header says so ends in a SourceError.

Truncation is judged two ways: by structure (an MP4 box or AVI/RIFF chunk that reaches beyond the end of the file) and by the
header's frame count. The count alone is an estimate in some containers and open-ended edits drop a few frames, so a shortfall of up
to 2 % is accepted when the structure is whole.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import opencv
from percodec.runtime.capture.source import DEFAULT_FRAME_RATE, SourceInfo
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame, PixelFormat


class VideoFile:
    """Frames of a video file in order, BGR as decoded, stamped with media time at the file's frame rate."""

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        self._path, self._cv2 = path, cv2
        self._cut = container_is_cut(path)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
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
            frames if 0 < frames < 2**31 else None,
        )
        self._period_ns = 1e9 / (self.info.fps or DEFAULT_FRAME_RATE)
        self._next = 0
        self._lock = threading.Lock()  # close() may come from another thread while a frame is being decoded
        self._buffer: NDArray[np.uint8] | None = None

    def read(self) -> Frame | None:
        with self._lock:
            if self._capture is None:
                return None
            ok, image = self._capture.read(self._buffer)
        if not ok:
            self._check_end()
            return None
        self._buffer = image
        index, self._next = self._next, self._next + 1
        return Frame(image, index, round(index * self._period_ns), PixelFormat.BGR8)

    def close(self) -> None:
        with self._lock:
            if self._capture is not None:
                self._capture.release()
                self._capture = None

    def _check_end(self) -> None:
        promised = self.info.frames or 0
        missing = promised - self._next
        if self._next == 0:
            raise SourceError(f"{self._path}: no frame could be decoded; the file is damaged or holds no video")
        if missing > 0 and (self._cut or missing > max(2, promised // 50)):
            raise SourceError(
                f"{self._path}: the video ends after {self._next} of {promised} frames (cut off or damaged); "
                f"the {self._next} frames were processed"
            )
        if self._cut:
            raise SourceError(f"{self._path}: the file is cut off; the {self._next} frames it holds were processed")


def container_is_cut(path: Path) -> bool:
    """True when an MP4/MOV box or an AVI/RIFF chunk at the top level claims more bytes than the file has."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if head[:4] == b"RIFF" and len(head) >= 12:
                return 8 + int(struct.unpack_from("<I", head, 4)[0]) > size
            if head[4:8] != b"ftyp":
                return False
            at = 0
            while at < size:
                file.seek(at)
                head = file.read(16)
                if len(head) < 8:
                    return True
                box = int(struct.unpack_from(">I", head)[0])
                if box == 1 and len(head) == 16:
                    box = int(struct.unpack_from(">Q", head, 8)[0])
                elif box == 0:
                    return False
                if box < 8 or at + box > size:
                    return True
                at += box
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or 'cannot be read'}") from error
    return False


__all__ = ["VideoFile", "container_is_cut"]
