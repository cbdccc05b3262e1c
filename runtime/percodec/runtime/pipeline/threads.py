"""The threads of a run: who still works, the first error, stopping and aborting. All state is guarded by the run's condition."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from percodec.runtime.capture.source import FrameSource
from percodec.runtime.pipeline.records import typed_error
from percodec.sdk.errors import PercodecError, SourceError

STOP_GRACE_S = 5.0


class Crew:
    """`loops`: (stage, function) per thread; a stage may have several. `running[stage]` threads of it have not ended."""

    def __init__(self, cv: threading.Condition, loops: list[tuple[str, Callable[[], None]]]) -> None:
        self._cv = cv
        self.running: dict[str, int] = {}
        for name, _ in loops:
            self.running[name] = self.running.get(name, 0) + 1
        self._threads = [
            threading.Thread(target=self._work, args=(name, loop), name=f"percodec-{name}", daemon=True) for name, loop in loops
        ]
        self.stopping = self.aborting = False
        self._stop_since = math.inf
        self.error: PercodecError | None = None

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more frames are captured; those captured are finished. With the lock held."""
        if not self.stopping:
            self.stopping, self._stop_since = True, time.monotonic()
            self._cv.notify_all()

    def fail(self, error: BaseException, stage: str) -> None:
        """The first error is kept; the run aborts, unless it is only the source that failed. With the lock held."""
        typed = typed_error(error, stage)
        self.error = self.error or typed
        if not (stage == "capture" and isinstance(typed, SourceError)):
            self.aborting = True
        self.stop()
        self._cv.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """True once every thread has ended; at most `timeout_s` later otherwise. A source that does not return is left behind."""
        with self._cv:
            if self.running["capture"] and time.monotonic() - self._stop_since > STOP_GRACE_S:
                self.fail(SourceError(f"the source did not return within {STOP_GRACE_S:g} s of being stopped"), "capture")
                self.running["capture"] = 0  # what it may still read is not taken
                self._cv.notify_all()
            return self._cv.wait_for(lambda: not any(self.running.values()), timeout=timeout_s)

    def join(self, stop: Callable[[], None]) -> None:
        """Wait until every thread has ended. Whatever interrupts that, a Ctrl-C, calls `stop` and is raised when they have."""
        try:
            while not self.wait(0.5):
                pass
        except BaseException:
            stop()
            while not self.wait(0.5):  # no thread calls into what its owner is about to close
                pass
            raise

    def close(self, source: FrameSource) -> None:
        """An error of its own is the run's, unless there is one already."""
        try:
            source.close()
        except Exception as error:
            with self._cv:
                self.fail(error, "capture")

    def _work(self, name: str, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # a sys.exit() in a callback, too, would leave the other stages waiting
            with self._cv:
                self.fail(error, name)
        finally:
            with self._cv:
                self.running[name] = max(0, self.running[name] - 1)
                self._cv.notify_all()


__all__ = ["STOP_GRACE_S", "Crew"]
