"""`Agent`: ships the records of a vehicle's logs, live ones first, and keeps the ledger of what the archive has.

    segments *.mcap --tail--> shelf --choose--> message --link--> broker          ack    -> sent
                                ^                                 archive --------stored -> ledger, and only that frees disk

While a connection is up nothing is sent twice. When one is lost, what was under way goes again. Every `ASK_S` the archive is asked what it
has of what was sent; what it should have by then and has not, a broker forgot, and it goes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from percodec.runtime.uplink.choose import LiveQueue, Pick, backlog, runs
from percodec.runtime.uplink.connect import connect
from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.ledger import Ledger
from percodec.runtime.uplink.link import Link, Unreachable
from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.shelf import Segment, Shelf
from percodec.runtime.uplink.status import Status
from percodec.runtime.uplink.window import Window
from percodec.runtime.uplink.wire import (
    BUNDLE_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_SEGMENTS,
    OVERHEAD,
    Message,
    Record,
    SegmentId,
    packed,
    stored_from,
)
from percodec.sdk.errors import UplinkError

TICK_S = 0.05  # several frames share a message, and each waits at most this long
ASK_S = 5.0
_SCAN_S, _SAVE_S = 1.0, 1.0
_RETRY_S = (0.2, 5.0)


@dataclass(frozen=True)
class AgentSettings:
    """`resend_after_s`: how long the archive may take for what the broker acknowledged; longer than ingest takes to flush, and the broker
    to deliver again. `drain`: end when all is stored and nobody writes.
    """

    source: Path
    url: str
    vehicle: str
    credentials: Credentials | None
    max_bytes: int | None = None
    resend_after_s: float = 60.0
    drain: bool = False


@dataclass
class _UnderWay:
    records: dict[SegmentId, RecordSet]
    bytes: int
    sent_s: float
    since_s: float | None  # when the oldest of it was found; None for backlog

    @property
    def live(self) -> bool:
        return self.since_s is not None


class Agent:
    """Raises `UplinkError`: the folder cannot be used, or the broker refuses before it ever accepted."""

    def __init__(self, settings: AgentSettings, on_status: Callable[[Status], None] | None = None) -> None:
        self._settings, self._on_status = settings, on_status
        self._ledger = Ledger(settings.source)
        self._shelf = Shelf(settings.source, self._ledger, settings.max_bytes)
        self.status = Status(settings.vehicle, settings.url, settings.max_bytes)
        self._link: Link | None = None
        self._window = Window()
        self._live: dict[str, LiveQueue] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._recent: deque[tuple[float, dict[SegmentId, RecordSet]]] = deque()  # acknowledged of late
        self._asks: dict[int, dict[SegmentId, RecordSet]] = {}  # what the archive must have when it answers
        self._count = 0
        self._hold_until = 0.0
        self._stopping = asyncio.Event()
        self._wake: asyncio.Future[None] | None = None
        self._started = time.monotonic()
        self._scan_now = False
        self._looked_s = self._started  # nothing that is new now was there then
        self._more = False  # acknowledgements are waited for, to send on

    def stop(self) -> None:
        """Ends `run` soon."""
        self._stopping.set()
        self._awake()

    async def run(self) -> None:
        """Until `stop`, or with `drain` until all is stored."""
        connecting = asyncio.create_task(self._stay_connected())
        try:
            self._shelf.scan()
            self._shelf.missing()
            await self._loop(connecting)
        finally:
            while not connecting.done():  # what it waits in may swallow a cancellation
                connecting.cancel()
                await asyncio.wait({connecting}, timeout=0.5)
            with contextlib.suppress(asyncio.CancelledError, UplinkError):
                connecting.result()
            if self._link is not None:
                await self._link.close()
            self._lose()
            with contextlib.suppress(OSError):
                self._ledger.save(self._ledger.packed())
            self._tell()
            self._shelf.close()
            self._ledger.close()

    async def _loop(self, connecting: asyncio.Task[None]) -> None:
        scan_at = save_at = ask_at = 0.0
        grown = 0
        while not self._stopping.is_set():
            if connecting.done():
                connecting.result()  # raises
            now = time.monotonic()
            scan, self._scan_now = now >= scan_at or self._scan_now, False
            grown += self._look(now, scan)
            scan_at = now + _SCAN_S if scan else scan_at
            if self._link is not None and now >= self._hold_until:
                await self._send(now)
                if now >= ask_at:
                    await self._ask(now)
                    ask_at = now + (ASK_S if not self._settings.drain else min(ASK_S, 1.0))
            if now >= save_at or self._shelf.tight(grown):
                given_up = self._shelf.trim(2 * grown)
                self.status.discards += [f"segment {name}: {count} records" for name, count in given_up if count]
                grown = 0
            if now >= save_at:
                save_at = now + _SAVE_S
                await asyncio.to_thread(self._save, self._ledger.packed())
                self._tell()
                if self._settings.drain and self._drained():
                    return
            await self._sleep(TICK_S)

    def _look(self, now: float, scan: bool) -> int:
        """New records. Returns their bytes."""
        grown = 0
        if scan:
            for segment in self._shelf.scan():
                if segment.tail.has_writer() and not segment.claimed:
                    self._queue(segment).add(segment, 0, segment.tail.count, self._looked_s)
                grown += segment.tail.total(0, segment.tail.count)
        for segment in self._shelf.open:
            if not segment.growing:
                continue
            before = segment.tail.count
            if self._shelf.grow(segment):
                self._queue(segment).add(segment, before, segment.tail.count, self._looked_s)
                grown += segment.tail.total(before, segment.tail.count)
            self._scan_now |= not segment.growing  # another follows
        for queue in self._live.values():
            queue.age(now)
        self._looked_s = now
        return grown

    def _queue(self, segment: Segment) -> LiveQueue:
        return self._live.setdefault(segment.id.recording, LiveQueue())

    async def _send(self, now: float) -> None:
        window = self._window.bytes(now)
        while self._link is not None and not self._link.lost.is_set():
            live = sum(one.bytes for one in self._under_way.values() if one.live)
            old = sum(one.bytes for one in self._under_way.values() if not one.live)
            picked: Pick = []
            since = now
            if live < max(BUNDLE_BYTES, window):
                since = min((queue.since_s for queue in self._live.values()), default=now)
                left = BUNDLE_BYTES
                for queue in self._live.values():
                    taken = queue.take(max(1, left))
                    left -= sum(segment.tail.size(index) for segment, index in taken)
                    picked += taken
            is_live = bool(picked)
            if not picked and old < window:
                budget = min(BUNDLE_BYTES, max(1, int(min(window / 2, window - old))))
                picked = backlog(self._shelf.open, budget)
            self._more = bool(picked) or old >= window
            if not picked:
                return
            await self._publish(picked, since if is_live else None, now)

    async def _publish(self, picked: Pick, since: float | None, now: float) -> None:
        segments: dict[SegmentId, int] = {}
        claimed: dict[SegmentId, RecordSet] = {}
        records, size = [], 0
        for segment, indices in runs(picked):
            segment.claimed.add(indices.start, indices.stop)
            place = segments.setdefault(segment.id, len(segments))
            whole = claimed.setdefault(segment.id, RecordSet())
            first = indices.start
            for index in indices:
                if (found := self._read(segment, index)) is None:
                    whole.add(first, index)
                    first = index + 1
                    continue
                records.append(Record(place, index, *found))
                size += len(found[1]) + OVERHEAD
            whole.add(first, indices.stop)
        if not records or self._link is None:
            return
        metadata = tuple(self._shelf.segments[one].tail.metadata for one in segments)
        self._count += 1
        number = self._count
        self._under_way[number] = _UnderWay(claimed, size, now, since)
        await self._link.publish(packed(Message(metadata, tuple(records))), lambda refusal: self._answered(number, refusal))

    def _read(self, segment: Segment, index: int) -> tuple[int, bytes] | None:
        """Time in ns and packet; None for one that cannot be sent."""
        if (size := segment.tail.size(index)) + OVERHEAD > MAX_MESSAGE_BYTES - 65536:
            self.status.say("too large", f"packet {index} of segment {segment.id} has {size} bytes, too many to send")
            return None
        try:
            return segment.tail.read(index)
        except OSError as error:
            segment.tail.damaged = str(error)
            return None

    def _answered(self, number: int, refusal: str) -> None:
        one = self._under_way.pop(number, None)
        if one is None:
            return
        now = time.monotonic()
        if refusal:
            self._hold_until = now + 0.5
            self.status.say("refused", refusal)
            self._release(one)
            return
        self.status.unsay("refused")
        self._window.acknowledged(one.bytes, one.sent_s, now)
        if one.since_s is not None:
            self.status.live_delays_s.append(now - one.since_s)
        for name, records in one.records.items():
            if (segment := self._shelf.segments.get(name)) is not None:
                segment.entry.sent.update(records)
        self.status.sent_bytes += one.bytes
        self._recent.append((now, one.records))
        while now - self._recent[0][0] > self._settings.resend_after_s:
            self._recent.popleft()
        if self._more:
            self._awake()

    def _release(self, one: _UnderWay) -> None:
        """It goes again, as backlog."""
        under_way = [other.records for other in self._under_way.values()]
        for name in one.records:
            if (segment := self._shelf.segments.get(name)) is not None:
                self._reclaim(segment, under_way)

    def _reclaim(self, segment: Segment, under_way: list[dict[SegmentId, RecordSet]]) -> None:
        segment.claimed = RecordSet(segment.entry.sent.ranges)
        segment.claimed.update(segment.entry.stored)
        for records in under_way:
            if segment.id in records:
                segment.claimed.update(records[segment.id])

    def _lose(self) -> None:
        """The connection is gone, and with it the answers to what was under way."""
        lost, self._under_way = list(self._under_way.values()), {}
        for one in lost:
            self._ledger.totals.resent += sum(len(records) for records in one.records.values())
            self._release(one)
        self._asks.clear()
        self._link = None

    async def _ask(self, now: float) -> None:
        """Ask for what was sent and is not known to be stored."""
        overdue: dict[SegmentId, RecordSet] = {}
        patient = now - self._started < self._settings.resend_after_s  # the ledger does not say when the earlier ones were sent
        for segment in self._shelf.segments.values():
            waiting = segment.entry.sent.without(segment.entry.stored)
            if waiting and len(overdue) < MAX_SEGMENTS:
                overdue[segment.id] = RecordSet() if patient else waiting
        if not overdue or self._link is None or len(self._asks) > 20:
            return
        for sent_s, records in self._recent:
            if now - sent_s < self._settings.resend_after_s:
                for name in records.keys() & overdue.keys():
                    overdue[name] = overdue[name].without(records[name])
        self._count += 1
        self._asks[self._count] = overdue
        await self._link.publish(packed(Message(ask=self._count, asked=tuple(overdue))), _unheard)

    def _heard(self, data: bytes) -> None:
        try:
            stored = stored_from(data)
        except UplinkError as error:
            self.status.say("archive", str(error))
            return
        for name, records in stored.records.items():
            if (segment := self._shelf.segments.get(name)) is not None:
                segment.entry.stored.update(records)
                segment.claimed.update(records)
        self.status.stored_s = time.monotonic()
        self.status.tell("parked", stored.note)
        if stored.answer is not None and (asked := self._asks.pop(stored.answer, None)) is not None:
            self._judge(asked)

    def _judge(self, overdue: dict[SegmentId, RecordSet]) -> None:
        """The archive answered: what was overdue when it was asked and is not stored, is lost on the way."""
        for name, records in overdue.items():
            segment = self._shelf.segments.get(name)
            if segment is None:
                continue
            lost = records.without(segment.entry.stored)
            if lost:
                self._ledger.totals.resent += len(lost)
                segment.entry.sent = segment.entry.sent.without(lost)
                self._reclaim(segment, [one.records for one in self._under_way.values()])

    async def _stay_connected(self) -> None:
        pause, known = _RETRY_S[0], False
        credentials = self._settings.credentials
        while True:
            try:
                link = await connect(self._settings.url, credentials, self._settings.vehicle, self._heard)
            except Unreachable as error:
                self.status.say("link", str(error))
            except UplinkError as error:
                if not known:
                    raise
                self.status.say("link", str(error))
            else:
                known = True
                self.status.unsay("link")
                self._window.reset()
                certificate = credentials.changed() if credentials else 0
                self._link, pause = link, _RETRY_S[0]
                while not link.lost.is_set():
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(link.lost.wait(), 2)
                    if credentials is not None:
                        with contextlib.suppress(UplinkError):
                            self.status.tell("certificate", credentials.warning())
                        if credentials.changed() != certificate:
                            break
                await link.close()
                self._lose()
                self.status.say("link", f"{self._settings.url}: the connection broke")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RETRY_S[1])

    def _save(self, data: bytes) -> None:
        try:
            self._ledger.save(data)
            self.status.unsay("ledger")
        except OSError as error:
            self.status.say("ledger", f"{self._ledger.folder}: cannot be written ({error.strerror}); free disk space")

    def _drained(self) -> bool:
        if self._under_way or self.status.updated_s == 0 or self._link is None:
            return False
        return all(s.done and not s.tail.has_writer() for s in self._shelf.segments.values())

    def _tell(self) -> None:
        self.status.update(
            self._shelf, self._window, self._ledger, sum(len(r) for o in self._under_way.values() for r in o.records.values())
        )
        self._ledger.publish(self.status.as_dict())
        if self._on_status is not None:
            self._on_status(self.status)

    async def _sleep(self, seconds: float) -> None:
        """Until the next tick, or an acknowledgement."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        handle = loop.call_later(seconds, self._awake)
        await self._wake
        handle.cancel()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _unheard(refusal: str) -> None:
    """Nobody waits for a question's acknowledgement: it is asked again."""


__all__ = ["Agent", "AgentSettings"]
