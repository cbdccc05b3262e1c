"""How many bytes may be under way: what the link takes in a round trip and a little more, learnt from acknowledgements."""

from __future__ import annotations

MIN_BYTES = 16_000
MAX_BYTES = 4_000_000
QUEUE_S = 0.04  # what the backlog may add to the delay of what comes after it
_FORGET_S = 30.0  # a path's shortest delay is measured anew after that


class Window:
    """Grown while acknowledgements come as fast as the link alone explains, halved when they do not, once a round trip."""

    def __init__(self) -> None:
        self.bytes = float(MIN_BYTES)
        self.rtt_s = 0.0  # of late
        self._least, self._least_at, self._halved_at = 0.0, 0.0, 0.0

    def acknowledged(self, size: int, sent_s: float, now_s: float) -> None:
        """`size` bytes came back acknowledged; both times by one clock."""
        delay = now_s - sent_s
        self.rtt_s = delay if not self.rtt_s else 0.9 * self.rtt_s + 0.1 * delay
        if not self._least or delay < self._least or now_s - self._least_at > _FORGET_S:
            self._least, self._least_at = delay, now_s
        if delay <= self._least + QUEUE_S:
            self.bytes = min(MAX_BYTES, self.bytes + size * min(1.0, 32_000 / self.bytes))
        elif sent_s > self._halved_at:
            self.bytes, self._halved_at = max(MIN_BYTES, self.bytes / 2), now_s

    def reset(self) -> None:
        """A new connection, perhaps over another link."""
        self.__init__()  # type: ignore[misc]


__all__ = ["MIN_BYTES", "Window"]
