"""Time per stage and frame, and peak memory. One definition of a number: reports, the progress line and benchmarks all read it here."""

from __future__ import annotations

import importlib
import resource
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 65_536  # samples kept per stage: every frame of a 43-minute run at 25 fps, then the latest ones
PERCENTILES = (50, 90, 95, 99, 99.9)


@dataclass(frozen=True)
class StageTiming:
    """Milliseconds. Percentiles (nearest rank) over the last `WINDOW` samples; `count`, `mean` and `max` over all."""

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


@dataclass(frozen=True)
class Spans:
    """The last samples of one stage, oldest first: int64 arrays, monotonic nanoseconds."""

    frame: NDArray[np.int64]
    begin_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]

    @property
    def ms(self) -> NDArray[np.float64]:
        """Durations in milliseconds."""
        out: NDArray[np.float64] = (self.end_ns - self.begin_ns) / 1e6
        return out


class _Stage:
    __slots__ = ("count", "largest", "lock", "samples", "total")

    def __init__(self, columns: int) -> None:
        # Touched at once: pages that only appear as samples come would look like a leak.
        self.samples: NDArray[np.int64] = np.full((columns, WINDOW), -1, np.int64)
        self.count = self.total = self.largest = 0
        self.lock = threading.Lock()


class Profiler:
    """`record` or `span` from any thread. All storage is allocated at construction: 0.5 MB per stage, three times that with `keep_spans`.

    `nvtx`: also open an NVTX range per span, where the nvtx package is installed; `nvtx_missing` says why not.
    """

    def __init__(self, stages: tuple[str, ...], *, keep_spans: bool = False, nvtx: bool = False) -> None:
        self._stages = {name: _Stage(3 if keep_spans else 1) for name in stages}
        self._keep = keep_spans
        self._nvtx: Any = None
        self.nvtx_missing = ""
        if nvtx:
            try:
                self._nvtx = importlib.import_module("nvtx")
            except ImportError:
                self.nvtx_missing = "the Python package nvtx is not installed"

    def record(self, stage: str, begin_ns: int, end_ns: int, frame: int) -> None:
        """Add one sample."""
        entry, elapsed = self._stages[stage], end_ns - begin_ns
        with entry.lock:
            at = entry.count % WINDOW
            entry.samples[0, at] = elapsed
            if self._keep:
                entry.samples[1, at], entry.samples[2, at] = begin_ns, frame
            entry.count += 1
            entry.total += elapsed
            entry.largest = max(entry.largest, elapsed)

    def span(self, stage: str, frame: int) -> _Span:
        """Record what runs inside a `with`; nothing where it raises."""
        return _Span(self, stage, frame, self._nvtx)

    def timings(self) -> dict[str, StageTiming]:
        """Per stage with at least one sample, in the order given at construction."""
        out = {}
        for name, entry in self._stages.items():
            with entry.lock:
                if entry.count == 0:
                    continue
                window = entry.samples[0, : min(entry.count, WINDOW)].copy()
                count, total, largest = entry.count, entry.total, entry.largest
            p50, p90, p99 = (float(v) / 1e6 for v in np.percentile(window, (50, 90, 99), method="inverted_cdf"))
            out[name] = StageTiming(count, total / count / 1e6, p50, p90, p99, largest / 1e6)
        return out

    def spans(self) -> dict[str, Spans]:
        """The kept samples per stage. Raises ValueError without `keep_spans`."""
        if not self._keep:
            raise ValueError("this profiler keeps no spans")
        out = {}
        for name, entry in self._stages.items():
            with entry.lock:
                elapsed, begin, frame = np.roll(entry.samples, -entry.count if entry.count > WINDOW else 0, 1)[:, : entry.count].copy()
            if len(frame):
                out[name] = Spans(frame, begin, begin + elapsed)
        return out


class _Span:
    __slots__ = ("_begin", "_frame", "_nvtx", "_profiler", "_stage")

    def __init__(self, profiler: Profiler, stage: str, frame: int, nvtx: Any) -> None:
        self._profiler, self._stage, self._frame, self._nvtx = profiler, stage, frame, nvtx

    def __enter__(self) -> None:
        if self._nvtx is not None:
            self._nvtx.push_range(self._stage, domain="percodec")
        self._begin = time.monotonic_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end = time.monotonic_ns()
        if self._nvtx is not None:
            self._nvtx.pop_range(domain="percodec")
        if kind is None:
            self._profiler.record(self._stage, self._begin, end, self._frame)


def rss_bytes() -> int:
    """Resident set of this process now, in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


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


__all__ = ["PERCENTILES", "WINDOW", "Profiler", "Spans", "StageTiming", "peak_rss_bytes", "rss_bytes"]
