"""What loading a network may take: a graph of allowed operators can still ask for all memory, or for minutes.

with memory_bounded(): ...     in any process: it may grow by `MEMORY` meanwhile
Limits().apply()               in a process of its own, for good: memory, files, and processor time until `loaded`
"""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY = 4 << 30

_lock = threading.Lock()
_inside = 0
_before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@contextlib.contextmanager
def memory_bounded(most: int | None = None) -> Iterator[None]:
    """Allocations fail where this process grows by more than `most` bytes (None: `MEMORY`).

    Of nested and parallel uses the first one counts.
    """
    global _inside, _before
    with _lock:
        _inside += 1
        if _inside == 1:
            _before = resource.getrlimit(resource.RLIMIT_DATA)
            _lower(resource.RLIMIT_DATA, _data_bytes() + (MEMORY if most is None else most))
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                resource.setrlimit(resource.RLIMIT_DATA, _before)


@dataclass(frozen=True)
class Limits:
    """Of a process that runs engines and nothing else. `cpu_s`: of processor time, until they are loaded and have proved themselves."""

    memory: int = MEMORY
    cpu_s: int = 60
    file_bytes: int = 16 << 20
    files: int = 256

    def apply(self, host: bool) -> None:
        """From now on. `host`: networks run on the CPU; a GPU's driver maps far more than it uses."""
        _lower(resource.RLIMIT_CORE, 0, hard=True)
        _lower(resource.RLIMIT_FSIZE, self.file_bytes, hard=True)
        _lower(resource.RLIMIT_NOFILE, self.files if host else 4096, hard=True)
        if host:
            _lower(resource.RLIMIT_DATA, _data_bytes() + self.memory, hard=True)
        used = resource.getrusage(resource.RUSAGE_SELF)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + self.cpu_s)

    def loaded(self) -> None:
        """Processor time is free again."""
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


def _lower(kind: int, to: int, hard: bool = False) -> None:
    soft, most = resource.getrlimit(kind)
    lowest = min(n for n in (soft, most, to) if n != resource.RLIM_INFINITY)
    resource.setrlimit(kind, (lowest, lowest if hard else most))


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0


__all__ = ["MEMORY", "Limits", "memory_bounded"]
