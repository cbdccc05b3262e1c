"""Scripted parts for the pipeline: engines with delays, sources with faults. What a frame is worth is its first pixel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.pipeline.records import HeadTask
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame

H, W, C, LEVELS, CLASSES = 16, 24, 2, 200, 200
HEADS = {"segmentation": HeadTask("segmentation", CLASSES)}
IMAGE = TensorSpec("image", (1, H, W, 3))
SYMBOLS = TensorSpec("symbols", (1, C, H // 8, W // 8))
LABELS = TensorSpec("labels", (1, H, W))
Step = NDArray[np.uint8] | float | None | Callable[[], object]


class FakeEngine:
    """Writes the input's first value everywhere. `delays`: seconds per call, cycled; `fail_at`: call number that raises.

    Looks at its input before and after the delay: a buffer that was reused too early shows up in `reused`.
    """

    backend = "fake"

    def __init__(self, source: TensorSpec, destination: TensorSpec, delays: Sequence[float] = (), fail_at: int = -1) -> None:
        self.source, self.outputs = source, (destination,)
        self.precision, self.limits = "fp32", None
        self.calls = 0
        self.running = self.most_running = 0
        self.reused: list[tuple[int, int]] = []
        self.bound: list[tuple[int, int]] = []
        self.gate: threading.Event | None = None
        self._delays, self._fail_at = list(delays), fail_at
        self._lock = threading.Lock()

    def bind(self, source: NDArray[np.uint8], destination: NDArray[np.uint8]) -> Callable[[], None]:
        assert source.shape == self.source.shape
        assert destination.shape == self.outputs[0].shape
        self.bound.append((source.ctypes.data, destination.ctypes.data))

        def run() -> None:
            with self._lock:
                call, self.calls = self.calls, self.calls + 1
                self.running += 1
                self.most_running = max(self.most_running, self.running)
            before = int(source.flat[0])
            if self.gate is not None:
                assert self.gate.wait(10)
            if self._delays:
                time.sleep(self._delays[call % len(self._delays)])
            after = int(source.flat[-1])
            if before != after:
                self.reused.append((before, after))
            with self._lock:
                self.running -= 1
            if call == self._fail_at:
                raise RuntimeError("the scripted engine failed")
            destination.fill(before)

        return run


class FakeSource:
    """`count` frames of value frame_id % 199, `period_s` apart. `end`: None for a regular end, an exception to raise instead."""

    def __init__(self, count: int, period_s: float = 0.0, *, live: bool = False, end: Exception | None = None) -> None:
        self.info = SourceInfo("fake", "fake", live, W, H, None, count)
        self._count, self._period_s, self._end = count, period_s, end
        self._next = 0
        self.closed = threading.Event()

    def read(self) -> Frame | None:
        if self._next >= self._count or self.closed.is_set():
            if self._end is not None and not self.closed.is_set():
                raise self._end
            return None
        if self._period_s:
            self.closed.wait(self._period_s)
        index, self._next = self._next, self._next + 1
        stamp = time.monotonic_ns() if self.info.live else index * 1_000_000
        return Frame(np.full((H, W, 3), index % 199, np.uint8), index, stamp)

    def close(self) -> None:
        self.closed.set()


class StuckSource(FakeSource):
    """Gives some frames, then never returns, not even when closed."""

    def read(self) -> Frame | None:
        if self._next >= self._count:
            threading.Event().wait(60)
        return super().read()


class FakeCoder:
    """A packet is the symbols' first value and the frame id as text."""

    def __init__(self, delay_s: float = 0.0, fail_at: int = -1) -> None:
        self._delay_s, self._fail_at, self.calls = delay_s, fail_at, 0

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int) -> bytes:
        first = int(symbols.flat[0])
        self.calls += 1
        if self._delay_s:
            time.sleep(self._delay_s)
        assert int(symbols.flat[-1]) == first, "the slot was reused while it was being coded"
        if self.calls - 1 == self._fail_at:
            raise ValueError("the scripted coder failed")
        return f"{first},{frame_id},{timestamp_ns}".encode()


class FakeCapture:
    """What `cv2.VideoCapture` is to a camera. `script`: arrays to give, a float to sleep, None for a failed read; then silence.

    A function in it is called: to wait for the test, or to tell it how far the camera is.
    """

    def __init__(self, script: Sequence[Step], *, opened: bool = True, then: float = 0.0) -> None:
        self._script: Iterator[Step] = iter(script)
        self._opened, self._then = opened, then
        self.released = False

    def isOpened(self) -> bool:
        return self._opened

    def get(self, name: int) -> float:
        return 0.0

    def release(self) -> None:
        self.released = True

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        for step in self._script:
            if isinstance(step, float):
                time.sleep(step)
            elif callable(step):
                step()
            elif step is None:
                return False, None
            else:
                return True, step
        if self._then:
            time.sleep(self._then)
        return False, None


def copy_preprocess(frame: Frame, out: NDArray[np.uint8]) -> None:
    """Sizes are equal already."""
    np.copyto(out, frame.image)


def source_error() -> SourceError:
    return SourceError("the scripted source failed")
