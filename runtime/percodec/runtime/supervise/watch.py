"""Turns what a pipeline does, or no longer does, into health: no signal, too slow, outputs that cannot be used. Looks; changes nothing."""

from __future__ import annotations

import threading
import time

from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.supervise.health import Health

SILENT_PERIODS = 2.5  # without a frame: no signal; said within three periods, as it looks twice in each
LATE_SHARE = 0.2  # of the last second's frames dropped: too slow
USELESS = 5  # predictions in a row


class Watch:
    """A thread that looks twice per frame period. `fps`: of the source; None: learned from what comes."""

    def __init__(self, pipeline: Pipeline, health: Health, *, live: bool, fps: float | None) -> None:
        self._pipeline, self._health, self._live, self._fps = pipeline, health, live, fps
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="percodec-watch", daemon=True)
        self._familiar = (0, 0)  # predicted and unfamiliar when a familiar frame was last seen
        self._history: list[tuple[int, int, int]] = []  # (ns, captured, dropped) of the last second

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """No further change of health."""
        self._ended.set()
        self._thread.join(timeout=1)

    def _period_s(self, captured: int) -> float:
        if self._fps:
            return 1 / self._fps
        first, last = self._pipeline.first_capture_ns, self._pipeline.last_capture_ns
        return min(1.0, max(0.01, (last - first) / 1e9 / (captured - 1))) if captured > 5 else 1.0

    def _look(self) -> None:
        period = 0.05
        while not self._ended.wait(period / 2):
            counts, now = self._pipeline.counts, time.monotonic_ns()
            period = self._period_s(counts.captured)
            if self._live and counts.captured:
                self._signal((now - self._pipeline.last_capture_ns) / 1e9, period)
            self._rate(now, counts.captured, sum(counts.dropped.values()) - counts.dropped.get("engine", 0))
            self._scene(counts.predicted, counts.unfamiliar)
            bad = self._pipeline.invalid_in_a_row
            if bad[0] >= USELESS:
                self._health.degrade("output", f"predictions cannot be used: {bad[1]}")
            elif bad[0] == 0:
                self._health.clear("output")

    def _signal(self, silent_s: float, period: float) -> None:
        if silent_s > SILENT_PERIODS * period:
            self._health.degrade("signal", "no signal from the camera")
        else:
            self._health.clear("signal")

    def _scene(self, predicted: int, unfamiliar: int) -> None:
        strange = unfamiliar - self._familiar[1]
        if predicted - self._familiar[0] > strange:
            self._familiar = (predicted, unfamiliar)
            self._health.clear("scene")
        elif strange >= USELESS:
            self._health.degrade("scene", "unfamiliar scene")

    def _rate(self, now: int, captured: int, dropped: int) -> None:
        self._history.append((now, captured, dropped))
        while now - self._history[0][0] > 1_000_000_000:
            self._history.pop(0)
        frames, lost = captured - self._history[0][1], dropped - self._history[0][2]
        if frames >= 5 and lost > LATE_SHARE * frames:
            self._health.degrade("rate", "frames come faster than they can be predicted")
        elif frames >= 5 and lost <= LATE_SHARE / 2 * frames:
            self._health.clear("rate")


__all__ = ["LATE_SHARE", "SILENT_PERIODS", "USELESS", "Watch"]
