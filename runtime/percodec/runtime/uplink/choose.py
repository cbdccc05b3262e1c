"""What goes next: live records first, the newest of them where not all fit; then the backlog, oldest first, in whole runs.

A record is live for `LIVE_S` after it was found; then it is backlog like any other. After a gap, live records of a stream begin at a key
packet, for nobody could decode those before it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from percodec.runtime.uplink.shelf import Segment

LIVE_S = 1.0
Pick = list[tuple[Segment, int]]


class LiveQueue:
    """The live records of one recording, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Segment, int]] = deque()
        self.bytes = 0  # of those that wait
        self._next: tuple[Segment, int] | None = None  # what would follow the last live record

    def add(self, segment: Segment, first: int, end: int, now_s: float) -> None:
        """Records that were just found."""
        if segment.live_from is None:
            segment.live_from = first
        self._waiting.extend((now_s, segment, index) for index in range(first, end))
        self.bytes += segment.tail.total(first, end)

    @property
    def since_s(self) -> float:
        """When the first of those that wait was found; infinite where none does."""
        return self._waiting[0][0] if self._waiting else math.inf

    def age(self, now_s: float) -> None:
        """Leave to the backlog what has waited too long."""
        while self._waiting and now_s - self._waiting[0][0] > LIVE_S:
            self._pop()
            self._next = None

    def take(self, budget: int) -> Pick:
        """Records of at most `budget` bytes, or one; in order."""
        if not self._waiting:
            return []
        total = self.bytes
        follows = self._next is not None and self._follows(self._waiting[0][1], self._waiting[0][2])
        if total > budget or not follows:
            keys = [k for k, (_, segment, index) in enumerate(self._waiting) if segment.tail.key(index)]
            if not keys and not follows:
                return []  # they wait for a key packet, and age
            for _ in range(0 if not keys else keys[-1] if total > budget else 0 if follows else keys[0]):
                self._pop()
        picked: Pick = []
        left = budget
        while self._waiting:
            _, segment, index = self._waiting[0]
            left -= segment.tail.size(index)
            if picked and left < 0:
                break
            self._pop()
            self._next = segment, index + 1
            picked.append((segment, index))
        return picked

    def _follows(self, segment: Segment, index: int) -> bool:
        assert self._next is not None
        last, expected = self._next
        return (segment is last and index == expected) or (index == 0 and segment.id.number == last.id.number + 1)

    def _pop(self) -> None:
        _, segment, index = self._waiting.popleft()
        self.bytes -= segment.tail.size(index)
        after = self._waiting[0] if self._waiting else None
        segment.live_from = after[2] if after and after[1] is segment else None


def backlog(segments: Iterable[Segment], budget: int) -> Pick:
    """Records of at most `budget` bytes, or one: the oldest that nobody claimed, without a hole between those of one segment."""
    picked: Pick = []
    left = budget
    for segment in segments:
        index = segment.gap()
        if index is None:
            continue
        end = segment.tail.count if segment.live_from is None else segment.live_from
        while index < end and index not in segment.claimed:
            left -= segment.tail.size(index)
            if picked and left < 0:
                return picked
            picked.append((segment, index))
            index += 1
        if left <= 0:
            break
    return picked


def runs(picked: Pick) -> Iterator[tuple[Segment, range]]:
    """Records that follow each other in one segment, together."""
    start = 0
    for k in range(1, len(picked) + 1):
        segment, first = picked[start]
        if k == len(picked) or picked[k][0] is not segment or picked[k][1] != first + k - start:
            yield segment, range(first, first + k - start)
            start = k


__all__ = ["LIVE_S", "LiveQueue", "Pick", "backlog", "runs"]
