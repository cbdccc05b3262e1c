"""Time per stage and peak memory. One definition of a number: reports, the progress line and benchmarks all read it here."""

from __future__ import annotations

import resource
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WINDOW = 65_536  # samples kept per stage: every frame of a 43-minute run at 25 fps, then the latest ones


@dataclass(frozen=True)
class StageTiming:
    """Milliseconds. Percentiles over the last `WINDOW` samples; `count`, `mean` and `max` over all."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    def as_dict(self) -> dict[str, float]:
        """JSON form, rounded to microseconds."""
        values = {"mean": self.mean, "p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max}
        return {"count": self.count, **{name: round(value, 3) for name, value in values.items()}}


class _Stage:
    __slots__ = ("count", "largest", "lock", "samples", "total")

    def __init__(self) -> None:
        self.samples: NDArray[np.int64] = np.zeros(WINDOW, np.int64)
        self.count = self.total = self.largest = 0
        self.lock = threading.Lock()


class Profiler:
    """`record(stage, nanoseconds)` from any thread. All storage is allocated at construction."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self._stages = {name: _Stage() for name in stages}

    def record(self, stage: str, elapsed_ns: int) -> None:
        """Add one sample."""
        entry = self._stages[stage]
        with entry.lock:
            entry.samples[entry.count % WINDOW] = elapsed_ns
            entry.count += 1
            entry.total += elapsed_ns
            entry.largest = max(entry.largest, elapsed_ns)

    def timings(self) -> dict[str, StageTiming]:
        """Per stage with at least one sample, in the order given at construction."""
        out = {}
        for name, entry in self._stages.items():
            with entry.lock:
                if entry.count == 0:
                    continue
                window = entry.samples[: min(entry.count, WINDOW)].copy()
                count, total, largest = entry.count, entry.total, entry.largest
            p50, p90, p99 = (float(v) / 1e6 for v in np.percentile(window, (50, 90, 99)))
            out[name] = StageTiming(count, total / count / 1e6, p50, p90, p99, largest / 1e6)
        return out


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far, in bytes."""
    try:
        # VmHWM starts anew with the program; ru_maxrss is inherited from whoever launched it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


__all__ = ["WINDOW", "Profiler", "StageTiming", "peak_rss_bytes"]
