"""Frames at a rate, and what the machine does meanwhile: the two sides of every measurement.

`FixedRate` gives pictures from memory at their due times, whether or not anybody is ready: a late reader finds the due time passed and the
age of the frame already growing, so that a stall counts for every frame it delays and not only for the one it hit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.source import FrameSource, SourceInfo
from percodec.runtime.measure.sensors import Sensors, summarize
from percodec.runtime.measure.statistics import slope
from percodec.runtime.pipeline.timing import peak_rss_bytes, rss_bytes
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame, PixelFormat

MOST_SAMPLES = 512


class Pictures:
    """The first frames of a source, in memory, at their own size."""

    def __init__(self, source: FrameSource, most: int) -> None:
        self.info = source.info
        self.images: list[NDArray[np.uint8]] = []
        self.pixel_format = PixelFormat.RGB8
        try:
            while len(self.images) < most and (frame := source.read()) is not None:
                self.images.append(frame.image.copy())
                self.pixel_format = frame.pixel_format
        finally:
            source.close()
        if not self.images:
            raise SourceError(f"{source.info.spec}: gave no frame to measure with")


class FixedRate:
    """`count` pictures, going round, `fps` a second; 0: as fast as they are taken (and then stamped when they are)."""

    def __init__(self, pictures: Pictures, count: int, fps: float = 0.0) -> None:
        height, width = pictures.images[0].shape[:2]
        self.info = SourceInfo(pictures.info.spec, "memory", fps > 0, width, height, fps or pictures.info.fps, count)
        self._pictures, self._count, self._fps, self._next = pictures, count, fps, 0
        self._begin = 0
        self._closed = threading.Event()

    def read(self) -> Frame | None:
        if self._next >= self._count or self._closed.is_set():
            return None
        index, self._next = self._next, self._next + 1
        now = time.monotonic_ns()
        self._begin = self._begin or now
        stamp = now
        if self._fps:
            stamp = self._begin + int(index * 1e9 / self._fps)
            if stamp > now and self._closed.wait((stamp - now) / 1e9):
                return None
        images = self._pictures.images
        return Frame(images[index % len(images)], index, stamp, self._pictures.pixel_format)

    def close(self) -> None:
        self._closed.set()


class Meter:
    """Samples memory and sensors every `period_s` from a thread of its own, while `with` lasts; `MOST_SAMPLES` at most.

    `frames`: how many were done so far. `device`: bytes in use on a GPU.
    """

    def __init__(self, sensors: Sensors, frames: Callable[[], int], device: Callable[[], int] | None = None, period_s: float = 0.1) -> None:
        self._sensors, self._frames, self._device, self._period = sensors, frames, device, period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="percodec-meter", daemon=True)
        self.memory: list[tuple[int, int, int, int]] = []  # monotonic ns, frames, RSS, bytes used on the device
        self.readings: list[tuple[int, dict[str, float]]] = []

    def __enter__(self) -> Meter:
        self._cpu, self._begin = time.process_time(), time.monotonic()
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._take()
        self.cpu_s, self.seconds = time.process_time() - self._cpu, time.monotonic() - self._begin

    def _sample(self) -> None:
        while not self._ended.wait(self._period):
            self._take()
            if len(self.memory) >= MOST_SAMPLES:  # a long run is sampled more rarely, not with more memory: it measures growth
                del self.memory[1::2], self.readings[1::2]
                self._period *= 2

    def _take(self) -> None:
        now = time.monotonic_ns()
        self.memory.append((now, self._frames(), rss_bytes(), self._device() if self._device is not None else 0))
        self.readings.append((now, self._sensors.sample()))

    def memory_figures(self) -> dict[str, Any]:
        """MB, and growth: the slope of resident bytes over frames after the first third, when buffers, caches and pools are warm."""
        rows = np.array(self.memory, np.float64)
        warm = rows[rows[:, 1] >= rows[-1, 1] / 3]
        growth = slope(warm[:, 1].tolist(), warm[:, 2].tolist())
        out = {
            "rss_mb": {
                "begin": _mb(rows[0, 2]),
                "end": _mb(rows[-1, 2]),
                "max": _mb(rows[:, 2].max()),
                "process_peak": _mb(peak_rss_bytes()),
            },
            "growth_bytes_per_frame": round(growth, 2),
            "growth_kb_per_1000_frames": round(growth, 2),
            "curve": [[round((r[0] - rows[0, 0]) / 1e9, 3), int(r[1]), _mb(r[2])] for r in rows[:: max(1, len(rows) // 200)]],
        }
        if self._device is not None:
            out["device_mb"] = {"begin": _mb(rows[0, 3]), "end": _mb(rows[-1, 3]), "max": _mb(rows[:, 3].max())}
        return out

    def machine_figures(self, frames: int) -> dict[str, Any]:
        """Power, clocks, temperature, throttling, and why what is missing is."""
        return {**summarize(self.readings, frames), "missing": dict(self._sensors.missing), "settings": dict(self._sensors.settings)}


def _mb(value: float) -> float:
    return round(float(value) / 1e6, 2)


__all__ = ["FixedRate", "Meter", "Pictures"]
