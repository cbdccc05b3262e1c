"""Hands what arrives on one thread to another that takes its time: the newest `depth` wait, what finds no room replaces the oldest."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """`put` never waits; `take` does. `superseded` counts what was replaced before anyone took it."""

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._waiting: deque[T] = deque()
        self._news = threading.Condition()
        self._closed = False
        self.superseded = 0

    def put(self, item: T) -> None:
        """Nothing happens once the mailbox is closed."""
        with self._news:
            if self._closed:
                return
            if len(self._waiting) == self._depth:
                self._waiting.popleft()
                self.superseded += 1
            self._waiting.append(item)
            self._news.notify()

    def take(self) -> T | None:
        """The oldest item that waits. Once closed: the rest, then None for ever."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """No more items; wakes who waits. Idempotent."""
        with self._news:
            self._closed = True
            self._news.notify_all()


__all__ = ["Mailbox"]
