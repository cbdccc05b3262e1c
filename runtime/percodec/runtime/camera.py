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

from percodec.runtime.capture import SourceInfo
from percodec.runtime.vision import build_supports, opencv
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame, PixelFormat


def no_camera(device: str) -> SourceError:
    """The error for a device that is not there, naming the ones that are."""
    there = sorted(str(path) for path in Path("/dev").glob("video*"))
    return SourceError(f"{device}: no such camera; this machine has {', '.join(there) if there else 'no camera at all'}")


class Camera:
    """A live source over anything with `read() -> (ok, image)`, `get(property)` and `release()` (an OpenCV capture)."""

    def __init__(self, spec: str, kind: str, open_capture: Callable[[], Any], timeout_s: float) -> None:
        self.info = SourceInfo(spec, kind, True)
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
    def from_device(cls, device: str, timeout_s: float) -> Camera:
        """A V4L2 or USB camera. Raises SourceError when it is absent, busy, or not a camera."""
        if not Path(device).exists():
            raise no_camera(device)
        cv2 = opencv()

        def open_capture() -> Any:
            capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
            return capture

        return cls(device, "v4l2", open_capture, timeout_s)

    @classmethod
    def from_gstreamer(cls, pipeline: str, timeout_s: float) -> Camera:
        """A GStreamer pipeline that ends in `appsink`. Raises SourceError where OpenCV was built without GStreamer."""
        cv2 = opencv()
        if "appsink" not in pipeline:
            raise SourceError(f"gstreamer://{pipeline}: the pipeline must end in `! appsink`")
        if not build_supports("GStreamer"):
            raise SourceError("gstreamer://: this OpenCV was built without GStreamer; use JetPack's or your distribution's python3-opencv")
        return cls(f"gstreamer://{pipeline}", "gstreamer", lambda: cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER), timeout_s)

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
                return Frame(self._image, self._served - 1, self._last_ns, PixelFormat.BGR8)
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


__all__ = ["Camera", "no_camera"]
