"""`Ingest`: takes what vehicles sent from the broker into the archive, and tells them what is stored. Any number may share the work.

    message --check--> batch --flush--> archive, synced --> "stored" to the vehicle --> acknowledged to the broker

A message is acknowledged to the broker after its records are on the archive's disk, so whatever dies, it comes again; the archive leaves
out what it has. Who a vehicle is, the broker says by the subject that it lets a certificate publish to; no field of a message does.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from percodec.runtime.uplink.archive import Archive
from percodec.runtime.uplink.link import Unreachable
from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.wire import Message, Record, SegmentId, Stored, packed_stored, unpacked
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import parse_header
from percodec.sdk.errors import PacketError, UplinkError

FLUSH_BYTES = 8 << 20
_WAIT_S = 0.25
_RETRY_S = (0.2, 5.0)


class Delivery(Protocol):
    """One message as the broker delivers it."""

    vehicle: str
    data: bytes

    async def acknowledge(self) -> None:
        """The broker may forget it."""


class Source(Protocol):
    """A connection to the broker that takes messages; what is not acknowledged comes again, to whoever takes messages then."""

    lost: asyncio.Event

    async def take(self, seconds: float) -> list[Delivery]:
        """Some messages, none after `seconds` without any."""

    async def tell(self, vehicle: str, data: bytes) -> None:
        """Send to a vehicle, if it listens."""

    async def close(self) -> None: ...


@dataclass
class Counts:
    """Since ingest began. `repeated`: records that the archive had already; `quarantined`: damaged ones, set aside; `parked`: whole ones of
    a bundle that this ingest does not know, set aside too.
    """

    messages: int = 0
    stored: int = 0
    repeated: int = 0
    quarantined: int = 0
    parked: int = 0
    bytes: int = 0
    shards: int = 0


@dataclass
class _Batch:
    records: dict[tuple[str, SegmentId], dict[int, Record]] = field(default_factory=dict)
    metadata: dict[tuple[str, SegmentId], Mapping[str, str]] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    settled: dict[tuple[str, SegmentId], RecordSet] = field(default_factory=dict)  # quarantined
    bytes: int = 0
    begun_s: float = 0.0


class Ingest:
    """`flush_s`: how long a record may wait for others to share its shard. `bundles`: whose packets it takes; None: anybody's."""

    def __init__(
        self,
        archive: Archive,
        flush_s: float = 5.0,
        on_status: Callable[[Counts, str], None] | None = None,
        bundles: Sequence[Bundle] | None = None,
    ) -> None:
        self.counts = Counts()
        self._tables = None if bundles is None else {bundle.digest: _tables_of(bundle) for bundle in bundles}
        self._unknown: dict[str, str] = {}  # what was parked last, by vehicle
        self._archive, self._flush_s = archive, flush_s
        self._tell = on_status or (lambda counts, trouble: None)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends `run` after what was taken is stored."""
        self._stopping.set()

    async def run(self, connect: Callable[[], Awaitable[Source]]) -> None:
        """Until `stop`. `connect()` awaits a `Source`. Raises `UplinkError`: refused at once, or the archive cannot be written."""
        pause, known = _RETRY_S[0], False
        await asyncio.to_thread(self._archive.index_anew)
        while not self._stopping.is_set():
            try:
                source = await connect()
            except (Unreachable, UplinkError) as error:
                if not known and isinstance(error, UplinkError):
                    raise
                self._tell(self.counts, str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_S[1])
                continue
            known, pause = True, _RETRY_S[0]
            try:
                await self._serve(source)
            finally:
                await source.close()

    async def _serve(self, source: Source) -> None:
        batch = _Batch()
        while not source.lost.is_set() and not self._stopping.is_set():
            for delivery in await source.take(_WAIT_S):
                await self._take(source, delivery, batch)
            due = batch.deliveries and time.monotonic() - batch.begun_s >= self._flush_s
            if due or batch.bytes >= FLUSH_BYTES:
                await self._flush(source, batch)
                batch = _Batch()
            self._tell(self.counts, "; ".join(self._unknown.values()))
        if batch.deliveries:
            await self._flush(source, batch)
            self._tell(self.counts, "")

    async def _take(self, source: Source, delivery: Delivery, batch: _Batch) -> None:
        self.counts.messages += 1
        vehicle = delivery.vehicle
        try:
            message = unpacked(delivery.data)
        except UplinkError as error:
            name = f"messages/{hashlib.sha256(delivery.data).hexdigest()[:24]}"
            await asyncio.to_thread(self._archive.quarantine, vehicle, name, delivery.data, str(error))
            self.counts.quarantined += 1
            await delivery.acknowledge()
            return
        if message.ask is not None:
            await self._answer(source, vehicle, message)
        if not message.records:
            await delivery.acknowledge()
            return
        for record in message.records:
            await self._add(vehicle, message, record, batch)
        batch.begun_s = batch.begun_s or time.monotonic()
        batch.deliveries.append(delivery)
        batch.bytes += len(delivery.data)

    async def _add(self, vehicle: str, message: Message, record: Record, batch: _Batch) -> None:
        segment = message.segment_id(record)
        place = vehicle, segment
        metadata = message.segments[record.segment]
        digest = metadata.get("bundle_digest", "")
        try:
            header = parse_header(record.packet)  # its checksum, over all of it
            if header.table_hash not in (self._tables or {}).get(digest, {header.table_hash}):
                raise PacketError(f"packet is of other tables than those of bundle {digest[:12]}, which its log names")
        except PacketError as error:
            name = f"{segment.recording}/{segment.number}-{record.sequence}"
            await asyncio.to_thread(self._archive.quarantine, vehicle, name, record.packet, str(error))
            self.counts.quarantined += 1
            batch.settled.setdefault(place, RecordSet()).add(record.sequence, record.sequence + 1)
            return
        batch.metadata[place] = metadata
        held = batch.records.setdefault(place, {})
        self.counts.repeated += record.sequence in held
        held[record.sequence] = record

    async def _flush(self, source: Source, batch: _Batch) -> None:
        told: dict[str, dict[SegmentId, RecordSet]] = {}
        for (vehicle, segment), settled in batch.settled.items():
            told.setdefault(vehicle, {})[segment] = settled
        for (vehicle, segment), records in batch.records.items():
            metadata = batch.metadata[vehicle, segment]
            parked = self._tables is not None and metadata.get("bundle_digest", "") not in self._tables
            stored = await asyncio.to_thread(self._archive.store, vehicle, segment, metadata, records, parked)
            if parked:
                self.counts.parked += stored
                self._unknown[vehicle] = _unknown_bundle(vehicle, metadata)
            else:
                self.counts.stored += stored
            self.counts.shards += stored > 0
            self.counts.repeated += len(records) - stored
            self.counts.bytes += sum(len(record.packet) for record in records.values()) if stored else 0
            held = told.setdefault(vehicle, {}).setdefault(segment, RecordSet())
            for number in records:
                held.add(number, number + 1)
        for vehicle, segments in told.items():
            await self._say(source, vehicle, Stored(segments, note=self._unknown.get(vehicle, "")))
        for delivery in batch.deliveries:
            await delivery.acknowledge()

    async def _answer(self, source: Source, vehicle: str, message: Message) -> None:
        found: dict[SegmentId, RecordSet] = {}
        for recording in {segment.recording for segment in message.asked}:
            held = await asyncio.to_thread(self._archive.stored, vehicle, recording)
            found |= {one: held.get(one.number, RecordSet()) for one in message.asked if one.recording == recording}
        await self._say(source, vehicle, Stored(found, message.ask, self._unknown.get(vehicle, "")))

    async def _say(self, source: Source, vehicle: str, stored: Stored) -> None:
        for part in packed_stored(stored):
            await source.tell(vehicle, part)


def _tables_of(bundle: Bundle) -> frozenset[int]:
    """What packets of this bundle name as their tables."""
    return frozenset(model.table_hash for model in (bundle.entropy_model, bundle.stream_model) if model is not None)


def _unknown_bundle(vehicle: str, metadata: Mapping[str, str]) -> str:
    name, digest = (metadata.get(key, "")[:length] for key, length in (("bundle_name", 64), ("bundle_digest", 12)))
    return f"{vehicle} sends packets of bundle {name!r} {digest}, which the archive was not given (--bundle); they are set aside"


__all__ = ["Counts", "Delivery", "Ingest", "Source"]
