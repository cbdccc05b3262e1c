"""`RecordSet`: which records of a segment, as few numbers as they need; they come in order, give or take a few holes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class RecordSet:
    """A set of record numbers. `ranges`: sorted, apart from each other, [first, end) each."""

    __slots__ = ("_ends", "_starts", "count")

    def __init__(self, ranges: Iterable[Iterable[int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.count = 0
        for first, end in ranges:
            self.add(first, end)

    @property
    def ranges(self) -> list[list[int]]:
        return [[first, end] for first, end in zip(self._starts, self._ends, strict=True)]

    def add(self, first: int, end: int) -> None:
        """Add first .. end - 1."""
        if first >= end:
            return
        at = bisect_right(self._ends, first - 1)  # the first range that ends at `first` or later
        to = bisect_right(self._starts, end)  # those before begin at `end` or earlier
        if at < to:
            first, end = min(first, self._starts[at]), max(end, self._ends[to - 1])
        self.count += end - first - sum(self._ends[k] - self._starts[k] for k in range(at, to))
        self._starts[at:to], self._ends[at:to] = [first], [end]

    def update(self, other: RecordSet) -> None:
        for first, end in zip(other._starts, other._ends, strict=True):
            self.add(first, end)

    def first_missing(self, start: int = 0) -> int:
        """The smallest number from `start` on that is not in the set."""
        at = bisect_right(self._starts, start) - 1
        return self._ends[at] if at >= 0 and start < self._ends[at] else start

    def without(self, other: RecordSet) -> RecordSet:
        """What is in this one and not in `other`."""
        left = RecordSet()
        for first, end in zip(self._starts, self._ends, strict=True):
            while first < end:
                first = other.first_missing(first)
                if first >= end:
                    break
                at = bisect_right(other._starts, first)
                stop = min(end, other._starts[at]) if at < len(other._starts) else end
                left.add(first, stop)
                first = stop
        return left

    def __contains__(self, number: int) -> bool:
        return self.first_missing(number) != number

    def __iter__(self) -> Iterator[int]:
        for first, end in zip(self._starts, self._ends, strict=True):
            yield from range(first, end)

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordSet) and self.ranges == other.ranges

    __hash__ = None  # type: ignore[assignment]


__all__ = ["RecordSet"]
