"""`Shelf`: the segments below a folder, oldest first, and what of each is claimed; it keeps the disk within its limit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from percodec.runtime.uplink.ledger import Entry, Ledger
from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.tail import Tail
from percodec.runtime.uplink.wire import SegmentId
from percodec.sdk.errors import LogError, UplinkError


class Segment:
    """One segment of the vehicle's log. `claimed`: sent, stored or under way; `live_from`: records from here on are live, for now."""

    def __init__(self, tail: Tail, entry: Entry) -> None:
        self.tail, self.entry = tail, entry
        self.id = tail.id
        self.claimed = RecordSet(entry.sent.ranges)
        self.claimed.update(entry.stored)
        self.live_from: int | None = None

    @property
    def growing(self) -> bool:
        return not (self.tail.ended or self.tail.damaged)

    @property
    def done(self) -> bool:
        """Whether everything that can be read of it is stored."""
        return not self.tail.damaged and self.entry.stored.count >= self.tail.count

    def gap(self) -> int | None:
        """The first record of the backlog that is not claimed."""
        end = self.tail.count if self.live_from is None else self.live_from
        first = self.claimed.first_missing()
        return first if first < end else None


class Shelf:
    """Raises `UplinkError` where `source` is no folder that can be read."""

    def __init__(self, source: Path, ledger: Ledger, max_bytes: int | None) -> None:
        self.source, self.ledger, self.max_bytes = source, ledger, max_bytes
        self.segments: dict[SegmentId, Segment] = {}
        self.open: list[Segment] = []  # those that grow or have a backlog, as of the last scan
        self.over = False  # the limit cannot be kept: what is open alone is larger
        self.disk_bytes = 0
        self.unsegmented: set[Path] = set()  # logs that are there and cannot be sent
        self._foreign: dict[Path, int] = {}  # size when it was looked at
        self._paths: set[Path] = set()

    def scan(self) -> list[Segment]:
        """Look for new files, and for those that are gone. Returns the new segments, oldest first."""
        found, there = [], set()
        for path in self._walk():
            there.add(path)
            if path in self._paths:
                continue
            try:
                size = path.stat().st_size
                if self._foreign.get(path) == size:
                    continue
                self._foreign[path] = size
                tail = Tail(path)
            except ValueError:
                self.unsegmented.add(path)
                continue
            except (LogError, OSError):
                continue  # no log of ours, or one whose head is being written
            del self._foreign[path]
            if tail.id in self.segments:  # a copy
                tail.close()
                continue
            segment = Segment(tail, self.ledger.entry(tail.id))
            self.segments[tail.id] = segment
            self._paths.add(path)
            self.grow(segment)
            found.append(segment)
        self.unsegmented &= there
        if gone := self._paths - there:
            for segment in [s for s in self.segments.values() if s.tail.path in gone]:
                self._drop(segment)
        if found:
            self.segments = dict(sorted(self.segments.items(), key=lambda item: (item[1].tail.begun_ns, item[0])))
        self.open = [s for s in self.segments.values() if s.growing or s.claimed.count < s.tail.count]
        return sorted(found, key=lambda s: s.id)

    def missing(self) -> None:
        """Give up what the ledger tells of and is no longer here; to be called once, after the first scan."""
        for one in [key for key in self.ledger.entries if key not in self.segments]:
            self.ledger.forget(one)

    def grow(self, segment: Segment) -> int:
        """Returns how many records were appended."""
        grown = segment.tail.grow()
        segment.entry.count = max(segment.entry.count, segment.tail.count)
        return grown

    def tight(self, grown: int) -> bool:
        """Whether `grown` bytes since the last `trim` need another one now."""
        return self.max_bytes is not None and grown > 0 and self.disk_bytes + 2 * grown > self.max_bytes and not self.over

    def trim(self, reserve: int) -> list[tuple[SegmentId, int]]:
        """Delete until `reserve` bytes more would fit: the oldest that is stored, then the oldest. Returns segment and records given up."""
        gone = []
        reserve = min(reserve, (self.max_bytes or 0) // 10)
        self.disk_bytes = sum(segment.tail.disk_bytes for segment in self.segments.values())
        self.over = False
        while self.max_bytes is not None and self.disk_bytes + reserve > self.max_bytes:
            finished = [segment for segment in self.segments.values() if not segment.tail.has_writer()]
            victim = next((s for s in finished if s.done), finished[0] if finished else None)
            if victim is None:
                self.over = self.disk_bytes > self.max_bytes
                break
            try:
                self.ledger.save(self.ledger.packed())  # `stored` first: what is deleted must not count as given up
                victim.tail.path.unlink()
            except OSError as error:
                raise UplinkError(f"{victim.tail.path}: cannot be deleted ({error.strerror}); the disk fills up") from error
            self.disk_bytes -= victim.tail.disk_bytes
            gone.append((victim.id, self._drop(victim)))
        return gone

    def _drop(self, segment: Segment) -> int:
        segment.tail.close()
        self._paths.discard(segment.tail.path)
        del self.segments[segment.id]
        self.open = [one for one in self.open if one is not segment]
        return self.ledger.forget(segment.id)

    def _walk(self) -> Iterator[Path]:
        if not self.source.is_dir():
            raise UplinkError(f"{self.source}: is no folder; give the one that holds the runs' folders")
        for folder, names, files in os.walk(self.source):
            names[:] = sorted(name for name in names if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(files) if name.endswith(".mcap") and not name.startswith("."))

    def close(self) -> None:
        for segment in self.segments.values():
            with contextlib.suppress(OSError):
                segment.tail.close()


__all__ = ["Segment", "Shelf"]
