"""How many bytes of backlog may be under way: what the link takes in a round trip and a little more, learnt from acknowledgements."""

from __future__ import annotations

import math

MIN_BYTES = 16_000
MAX_BYTES = 4_000_000
QUEUE_S = 0.03  # what the backlog may add to the delay of what comes after it
_STEP = 8_000  # bytes, a round trip
_PROBE_EVERY_S, _PROBE_S = 10.0, 0.3


class Window:
    """Grown while acknowledgements come as fast as the link alone explains, cut when they do not, once a round trip.

    Every `_PROBE_EVERY_S` it is small for a moment, so that the queue it may have made empties and the link's own delay shows.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new connection, perhaps over another link."""
        self._bytes = float(MIN_BYTES)
        self.rtt_s = 0.0  # of late
        self._least = math.inf
        self._cut_at = 0.0
        self._probe_at = math.inf

    def bytes(self, now_s: float) -> float:
        """How many may be under way now."""
        if now_s > self._probe_at + _PROBE_EVERY_S:
            self._probe_at, self._least = now_s, math.inf
        return MIN_BYTES if now_s < self._probe_at + _PROBE_S and math.isfinite(self._probe_at) else self._bytes

    def acknowledged(self, size: int, sent_s: float, now_s: float) -> None:
        """`size` bytes came back acknowledged; both times by one clock."""
        delay = now_s - sent_s
        self.rtt_s = delay if not self.rtt_s else 0.9 * self.rtt_s + 0.1 * delay
        if math.isinf(self._probe_at):
            self._probe_at = now_s - _PROBE_S
        self._least = min(self._least, delay)
        if delay <= self._least + QUEUE_S:
            growth = size if self._bytes < 2 * MIN_BYTES else size * _STEP / self._bytes
            self._bytes = min(MAX_BYTES, self._bytes + growth)
        elif sent_s > self._cut_at:
            self._bytes, self._cut_at = max(MIN_BYTES, 0.7 * self._bytes), now_s


__all__ = ["MIN_BYTES", "Window"]
