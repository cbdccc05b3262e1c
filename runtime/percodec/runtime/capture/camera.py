"""Cameras: a device that blocks can never block us, and an old frame is never handed out as a new one.

    grabber thread (may hang in the driver) -> newest frame + count -> read() waits at most `timeout_s` for a higher count

A reader that is slower than the camera gets the newest frame; ids of frames nobody fetched are skipped, so gaps are visible.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import build_supports, opencv
from percodec.runtime.capture.source import FrameSource, SourceInfo
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame, PixelFormat


def no_camera(device: str) -> SourceError:
    """The error for a device that is not there, naming the ones that are."""
    there = sorted(str(path) for path in Path("/dev").glob("video*"))
    return SourceError(f"{device}: no such camera; this machine has {', '.join(there) if there else 'no camera at all'}")


class Camera:
    """A live source over anything with `read() -> (ok, image)`, `get(property)` and `release()` (an OpenCV capture)."""

    def __init__(self, spec: str, kind: str, open_capture: Callable[[], Any], timeout_s: float, raw: CameraFormat | None = None) -> None:
        self.info = SourceInfo(spec, kind, True)
        self._raw = raw
        self._timeout_s = timeout_s
        self._open_capture = open_capture
        self._news = threading.Condition()
        self._image: NDArray[np.uint8] | None = None
        self._count = self._served = self._stamp_ns = self._last_ns = 0
        self._fault: str | None = None
        self._opened = self._closing = False
        self._thread = threading.Thread(target=self._grab, name="percodec-camera", daemon=True)
        self._thread.start()
        with self._news:
            # Opening a network camera or a busy driver takes longer than a frame; it is bounded all the same.
            ready = self._news.wait_for(lambda: self._opened or self._fault is not None, timeout=max(timeout_s, 10.0))
            fault = self._fault
        if fault is not None or not ready:
            self.close()
            raise SourceError(f"{spec}: {fault or 'the camera did not open within 10 s'}")

    @classmethod
    def from_device(cls, device: str, timeout_s: float, raw: CameraFormat | None = None) -> Camera:
        """A V4L2 or USB camera; `raw`: its own format and size instead of OpenCV's BGR. Raises SourceError when it is absent or busy."""
        if not Path(device).exists():
            raise no_camera(device)
        cv2 = opencv()

        def open_capture() -> Any:
            capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
            if raw is not None:
                fourcc = {"nv12": "NV12", "yuyv": "YUYV", "bgr": "BGR3", "rgb": "RGB3"}[raw.format]
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*fourcc))
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, raw.width)
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, raw.height)
                capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            return capture

        return cls(device, "v4l2", open_capture, timeout_s, raw)

    @classmethod
    def from_gstreamer(cls, pipeline: str, timeout_s: float, raw: CameraFormat | None = None) -> Camera:
        """A GStreamer pipeline that ends in `appsink`; `raw`: the format of its caps. Raises SourceError where OpenCV has no GStreamer."""
        cv2 = opencv()
        if "appsink" not in pipeline:
            raise SourceError(f"gstreamer://{pipeline}: the pipeline must end in `! appsink`")
        if not build_supports("GStreamer"):
            raise SourceError("gstreamer://: this OpenCV was built without GStreamer; use JetPack's or your distribution's python3-opencv")

        def open_capture() -> Any:
            capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
            if raw is not None:
                capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            return capture

        return cls(f"gstreamer://{pipeline}", "gstreamer", open_capture, timeout_s, raw)

    def read(self) -> Frame | None:
        with self._news:
            fresh = self._news.wait_for(
                lambda: self._count > self._served or self._fault is not None or self._closing, timeout=self._timeout_s
            )
            if self._closing:
                return None
            if self._count > self._served and self._image is not None:
                self._served = self._count
                self._last_ns = max(self._stamp_ns, self._last_ns + 1)
                kind = self._raw.pixel_format if self._raw is not None else PixelFormat.BGR8
                return Frame(self._image, self._served - 1, self._last_ns, kind)
            if fresh:
                raise SourceError(f"{self.info.spec}: {self._fault} after {self._count} frames")
        raise SourceError(
            f"{self.info.spec}: no new frame for {self._timeout_s:g} s after {self._count} frames; the camera is gone or stuck"
        )

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify_all()
        # A grabber stuck in the driver is left behind (daemon); releasing the capture under it would crash the process.
        self._thread.join(timeout=0.8)

    def _grab(self) -> None:
        capture: Any = None
        try:
            capture = self._open_capture()
            if not capture.isOpened():
                self._stop("cannot be opened (busy, no permission, or not a camera)")
                return
            cv2 = opencv()
            with self._news:
                self.info.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) or None
                self.info.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) or None
                fps = float(capture.get(cv2.CAP_PROP_FPS))
                self.info.fps = fps if 0.1 <= fps <= 1000 else None
                self._opened = True
                self._news.notify_all()
            failures = 0
            while not self._closing:
                ok, image = capture.read()
                now = time.monotonic_ns()
                if not ok or image is None or image.size == 0:
                    failures += 1
                    if failures >= 3:
                        self._stop("the camera stopped giving frames")
                        return
                    time.sleep(0.01)
                    continue
                failures = 0
                if self._raw is not None:
                    if image.dtype != np.uint8 or image.size != int(np.prod(self._raw.shape)):
                        self._stop(f"the camera gives {image.dtype} {list(image.shape)}, which is not {self._raw}")
                        return
                    image = image.reshape(self._raw.shape)  # OpenCV hands raw formats out as rows of bytes
                driver_ns = int(float(capture.get(cv2.CAP_PROP_POS_MSEC)) * 1e6)
                with self._news:
                    self._image, self._count = image, self._count + 1
                    self._stamp_ns = driver_ns if 0 <= now - driver_ns < 1_000_000_000 else now
                    self._news.notify_all()
        except Exception as error:  # whatever a driver or binding throws is the camera's fault, reported by read()
            self._stop(f"the camera failed ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
        finally:
            if capture is not None:
                capture.release()

    def _stop(self, fault: str) -> None:
        with self._news:
            self._fault = fault
            self._news.notify_all()


class Reconnecting:
    """A camera that is opened again when it is lost, for `patience_s` at most. Ids go on counting; the time without it is their gap."""

    def __init__(self, source: FrameSource, again: Callable[[], FrameSource], patience_s: float) -> None:
        self.info = source.info
        self._source: FrameSource | None = source
        self._again, self._patience_s = again, patience_s
        self._next_id = self._first_id = self._last_ns = 0
        self._closing = threading.Event()

    def read(self) -> Frame | None:
        lost: SourceError | None = None
        while not self._closing.is_set():
            try:
                if self._source is None:
                    self._source = self._reopen(lost)
                    self._first_id = self._next_id + 1
                frame = self._source.read()
            except SourceError as error:
                if self._source is None:
                    raise
                lost = error
                self._source.close()
                self._source = None
                continue
            if frame is None:
                return None
            self._next_id = self._first_id + frame.frame_id + 1
            self._last_ns = max(frame.timestamp_ns, self._last_ns + 1)
            return Frame(frame.image, self._first_id + frame.frame_id, self._last_ns, frame.pixel_format)
        return None

    def close(self) -> None:
        self._closing.set()
        if self._source is not None:
            self._source.close()

    def _reopen(self, lost: SourceError | None) -> FrameSource:
        begin, pause, last = time.monotonic(), 0.1, lost
        while not self._closing.is_set():
            try:
                return self._again()
            except SourceError as error:
                last = error
            if time.monotonic() - begin > self._patience_s:
                raise SourceError(f"{lost}; it did not come back within {self._patience_s:g} s ({last})")
            self._closing.wait(pause)
            pause = min(2 * pause, 2.0)
        raise SourceError(str(lost))


__all__ = ["Camera", "Reconnecting", "no_camera"]
