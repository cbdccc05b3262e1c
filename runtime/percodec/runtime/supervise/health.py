"""READY, DEGRADED(reasons), FAULT(reason): what the rest of the vehicle is told about this process, in one place.

Reasons are kept by name, so that two causes of trouble neither hide nor undo each other. FAULT stays until the process is replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

READY, DEGRADED, FAULT = "READY", "DEGRADED", "FAULT"


@dataclass(frozen=True)
class Status:
    """`reasons`: by cause, in the order they came. `since_ns`: monotonic, when the state was entered."""

    state: str
    reasons: dict[str, str]
    since_ns: int

    def __str__(self) -> str:
        return self.state + (f" ({'; '.join(self.reasons.values())})" if self.reasons else "")


class Health:
    """Any thread may report. `on_change` is called outside of the lock, once per change of state or reasons."""

    def __init__(self, on_change: Callable[[Status], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._fault = False
        self._since = time.monotonic_ns()
        self._on_change = on_change

    @property
    def status(self) -> Status:
        """Now."""
        with self._lock:
            return self._status()

    def degrade(self, cause: str, reason: str) -> None:
        """Works, but not as asked for."""
        self._change(cause, reason, fault=False)

    def clear(self, cause: str) -> None:
        """This cause is over."""
        self._change(cause, None, fault=False)

    def fault(self, cause: str, reason: str) -> None:
        """Does not work and will not by itself."""
        self._change(cause, reason, fault=True)

    def _change(self, cause: str, reason: str | None, *, fault: bool) -> None:
        with self._lock:
            before = self._status()
            if reason is None:
                if not self._fault:
                    self._reasons.pop(cause, None)
            else:
                self._reasons[cause] = reason
            self._fault = self._fault or fault
            after = self._status()
            if after.state != before.state:
                self._since = time.monotonic_ns()
                after = self._status()
        if (after.state, after.reasons) != (before.state, before.reasons) and self._on_change is not None:
            self._on_change(after)

    def _status(self) -> Status:
        return Status(FAULT if self._fault else DEGRADED if self._reasons else READY, dict(self._reasons), self._since)


__all__ = ["DEGRADED", "FAULT", "READY", "Health", "Status"]
