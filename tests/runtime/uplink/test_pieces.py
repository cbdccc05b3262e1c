"""The pieces of the uplink alone: sets of records, messages, the window, what goes next, the ledger."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percodec.runtime.uplink.choose import LIVE_S, LiveQueue, backlog
from percodec.runtime.uplink.ledger import Entry, Ledger
from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.shelf import Segment, Shelf
from percodec.runtime.uplink.status import Status
from percodec.runtime.uplink.tail import Tail
from percodec.runtime.uplink.window import MIN_BYTES, Window
from percodec.runtime.uplink.wire import Message, Record, SegmentId, Stored, packed, packed_stored, stored_from, unpacked
from percodec.sdk import Bundle, LogWriter, SegmentedLogWriter, UplinkError
from percodec.sdk.log.segments import segment_paths

Write = Callable[..., SegmentedLogWriter]
RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)
METADATA = {"recording": "00ff" * 4, "segment": "7", "stream_id": "3"}
ID = SegmentId("00ff" * 4, 7)


@given(RANGES, RANGES, st.integers(0, 80))
def test_record_sets_are_sets(some: list[tuple[int, int]], others: list[tuple[int, int]], start: int) -> None:
    def both(pairs: list[tuple[int, int]]) -> tuple[RecordSet, set[int]]:
        return RecordSet((a, a + n) for a, n in pairs), {k for a, n in pairs for k in range(a, a + n)}

    (a, plain_a), (b, plain_b) = both(some), both(others)
    assert set(a) == plain_a
    assert len(a) == len(plain_a)
    assert set(a.without(b)) == plain_a - plain_b
    assert len(a.without(b)) == len(plain_a - plain_b)
    assert a.first_missing(start) == next(k for k in range(start, 200) if k not in plain_a)
    assert (start in a) == (start in plain_a)
    assert RecordSet(a.ranges) == a
    assert all(end < begin for (_, end), (begin, _) in zip(a.ranges, a.ranges[1:], strict=False))
    a.update(b)
    assert set(a) == plain_a | plain_b


def test_messages_arrive_as_they_were_sent(packets: list[bytes]) -> None:
    other = METADATA | {"segment": "8"}
    records = tuple(Record(k % 2, k, 10 * k, packet) for k, packet in enumerate(packets[:30]))
    message = Message((METADATA, other), records, ask=5, asked=(ID,))
    again = unpacked(packed(message))
    assert (again.records, again.ask, again.asked) == (records, 5, (ID,))
    assert [again.segment_id(record).number for record in again.records[:2]] == [7, 8]
    stored = Stored({SegmentId(ID.recording, n): RecordSet([(2 * k, 2 * k + 1) for k in range(3000)]) for n in range(30)}, 5)
    found: dict[SegmentId, RecordSet] = {}
    parts = [stored_from(part) for part in packed_stored(stored)]
    for part in parts:
        for name, ranges in part.records.items():
            found.setdefault(name, RecordSet()).update(ranges)
    assert found == stored.records
    assert [part.answer for part in parts] == [None] * (len(parts) - 1) + [5]
    assert max(map(len, packed_stored(stored))) < 1_000_000


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.long)])
def test_what_is_no_message_is_refused(packets: list[bytes], count: int) -> None:
    rng = random.Random(4)
    whole = packed(Message((METADATA,), (Record(0, 1, 2, packets[0]),), 3, (ID,)))
    watermark = packed_stored(Stored({ID: RecordSet([(0, 9)])}))[0]
    for _ in range(count):
        for original, reader in ((whole, unpacked), (watermark, stored_from)):
            data = bytearray(original)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            data = data[: rng.randrange(len(data)) if rng.random() < 0.3 else len(data)]
            if bytes(data) == original:
                continue
            try:
                reader(bytes(data))
            except UplinkError:
                continue
            assert reader is stored_from  # JSON of another value; a message has a checksum
    for bad in ({"recording": "../../etc", "segment": "7"}, {"recording": "00ff" * 4, "segment": "-1"}, {}):
        with pytest.raises(UplinkError, match="no segment"):
            unpacked(packed(Message((bad,))))
    with pytest.raises(UplinkError, match="too large"):
        unpacked(packed(Message((METADATA | {"more": "x" * (2 << 20)},))))
    for ranges in ([[5, 2]], [[-1, 2]], [[0, 1 << 40]], [1], [[None, 2]]):
        with pytest.raises(UplinkError):
            stored_from(json.dumps({"stored": {str(ID): ranges}, "answer": None}).encode())


@pytest.mark.parametrize(
    "head",
    [
        {"segments": [], "ask": float("inf")},
        {"segments": [], "ask": float("nan")},
        {"segments": [[]]},
        {"segments": {"a": METADATA}},
        {"segments": [METADATA | {"boot_id": "\ud800"}]},
        {"segments": [METADATA | {"\ud800": "x"}]},
        {"segments": [METADATA | {"more": "x" * 70_000}]},
        {"segments": [METADATA], "asked": [None]},
        {"segments": [METADATA] * 600},
        [],
        None,
    ],
)
def test_a_head_that_no_vehicle_writes_is_refused(head: object) -> None:
    """Behind a checksum that agrees. An ingest that ended here would end again, for the broker sends the message once more."""
    words = zlib.compress(json.dumps(head).encode())
    body = struct.pack("<4sBI", b"PCUP", 1, len(words)) + words
    with pytest.raises(UplinkError, match="none of an uplink's"):
        unpacked(body + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.parametrize("text", ['{"stored": {}, "answer": Infinity}', '{"stored": {"%s": [[Infinity, 3]]}}', '{"stored": []}', "[]", "1"])
def test_a_watermark_that_no_archive_writes_is_refused(text: str) -> None:
    with pytest.raises(UplinkError, match="none of an archive's"):
        stored_from(text.replace("%s", str(ID)).encode())


def test_what_an_archive_says_steers_no_terminal() -> None:
    assert stored_from(b'{"stored": {}, "note": "\\ud800\\u001b[2J"}').note == "\\ud800\\x1b[2J"


def test_the_window_follows_the_link() -> None:
    """A link of 750 kB/s with 20 ms: the window settles where the queue adds its share, and no more."""
    window, now, queue_free_at = Window(), 0.0, 0.0
    for _ in range(3000):
        size = 10_000
        in_queue = max(0.0, queue_free_at - now)
        waiting = int(window.bytes(now) / size)
        for _ in range(waiting):
            queue_free_at = max(queue_free_at, now) + size / 750_000
        window.acknowledged(size * waiting, now, queue_free_at + 0.02)
        now += max(0.005, in_queue / 2)
    assert MIN_BYTES < window.bytes(now) < 120_000
    window.reset()
    assert window.bytes(now) == MIN_BYTES


def open_segments(folder: Path) -> list[Segment]:
    found = []
    for path in segment_paths(folder):
        tail = Tail(path)
        tail.grow()
        found.append(Segment(tail, Entry(count=tail.count)))
    return found


def test_the_backlog_is_oldest_first_and_has_no_holes(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "log", 0, 60)
    first, second, *_ = segments = open_segments(tmp_path / "log")
    first.claimed.add(0, 3)
    first.claimed.add(5, 6)
    picked = backlog(segments, 10**6)
    assert [index for segment, index in picked if segment is first] == [3, 4]
    assert [index for segment, index in picked if segment is second] == list(range(second.tail.count))
    assert backlog(segments, 1) == [(first, 3)]
    second.live_from = 2
    assert [index for segment, index in backlog(segments, 10**6) if segment is second] == [0, 1]


def test_live_records_begin_at_a_key_packet_after_a_gap(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "log", 0, 16, size=10**6)
    (segment,) = open_segments(tmp_path / "log")
    segment.tail._keys[:] = bytes(k in (0, 4, 9) for k in range(16))
    queue, size = LiveQueue(), segment.tail.size(0)
    queue.add(segment, 1, 6, now_s=0)
    assert [k for _, k in queue.take(10**6)] == [4, 5]  # 1 to 3 have nothing before them
    queue.add(segment, 6, 8, now_s=0.1)
    assert [k for _, k in queue.take(10**6)] == [6, 7]  # they follow
    queue.add(segment, 8, 12, now_s=0.2)
    assert [k for _, k in queue.take(3 * size + 60)] == [9, 10, 11]  # not all fit: from the newest key packet on
    queue.add(segment, 12, 14, now_s=0.3)
    queue.age(0.4 + LIVE_S)
    queue.add(segment, 14, 16, now_s=2)
    assert queue.take(10**6) == []  # after the gap no key packet came
    assert segment.live_from == 14


def test_of_packets_that_stand_alone_the_newest_is_live(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "log", 0, 16, size=10**6)
    (segment,) = open_segments(tmp_path / "log")
    queue = LiveQueue()
    queue.add(segment, 0, 16, now_s=0)
    assert [k for _, k in queue.take(segment.tail.size(15))] == [15]
    assert segment.live_from is None
    assert len(backlog([segment], 10**6)) == 16  # nothing is claimed before it is sent


def test_a_tail_sees_what_is_appended_and_stops_at_damage(write: Write, tmp_path: Path, packets: list[bytes]) -> None:
    writer = write(tmp_path / "log", 0, 4, close=False)
    (path,) = segment_paths(tmp_path / "log")
    tail = Tail(path)
    assert (tail.grow(), tail.grow(), tail.has_writer()) == (4, 0, True)
    writer.append(packets[4], 4, 4000)
    assert tail.grow() == 1
    assert tail.read(4) == (4000, packets[4])
    writer.close()
    assert (tail.grow(), tail.ended, tail.has_writer()) == (0, True, False)
    data = path.read_bytes()
    (tmp_path / "half.mcap").write_bytes(data[: data.index(packets[3]) + 9])
    half = Tail(tmp_path / "half.mcap")
    assert (half.grow(), half.ended, half.damaged) == (3, False, "")
    (tmp_path / "bad.mcap").write_bytes(data[: data.index(packets[3]) + len(packets[3])] + b"\xee" * 40)
    bad = Tail(tmp_path / "bad.mcap")
    assert bad.grow() == 4
    assert "kind 238" in bad.damaged


def test_the_ledger_outlives_its_process_and_survives_damage(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entry = ledger.entry(ID)
    entry.sent.add(0, 9)
    entry.stored.add(0, 4)
    entry.count = 12
    with pytest.raises(UplinkError, match="another uplink"):
        Ledger(tmp_path)
    ledger.save(ledger.packed())
    ledger.close()
    again = Ledger(tmp_path)
    assert (again.entries[ID].sent.ranges, again.entries[ID].stored.ranges, again.entries[ID].count) == ([[0, 9]], [[0, 4]], 12)
    assert again.forget(ID) == 8
    assert (again.totals.stored, again.totals.discarded) == (4, 8)
    again.close()
    for bad in (b"", b"{}", b"[1]", b'{"version": 9}', b"\xff", json.dumps({"version": 1, "totals": {"x": 1}, "segments": {}}).encode()):
        (tmp_path / ".uplink" / "ledger.json").write_bytes(bad)
        empty = Ledger(tmp_path)
        assert (empty.entries, "could not be read" in empty.note) == ({}, True)
        empty.close()


def test_the_disk_is_kept_within_its_limit(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a", 0, 200)
    writer = write(tmp_path / "logs" / "b", 200, 230, close=False)
    ledger = Ledger(tmp_path / "logs")
    limit = 12_000
    shelf = Shelf(tmp_path / "logs", ledger, limit)
    segments = shelf.scan()
    total = sum(segment.tail.count for segment in segments)
    assert total == 230
    stored = list(shelf.segments.values())[2]  # stored ones go first, whatever their age
    stored.entry.stored.add(0, stored.tail.count)
    gone = shelf.trim(0)
    assert gone[0] == (stored.id, 0)
    assert shelf.disk_bytes <= limit
    assert all(count > 0 for _, count in gone[1:])
    assert ledger.totals.discarded == sum(count for _, count in gone)
    here = sum(entry.count for entry in ledger.entries.values())
    assert here + ledger.totals.stored + ledger.totals.discarded == total
    shelf.max_bytes = 1000
    shelf.trim(0)
    assert shelf.over  # what is being written stays
    assert len(shelf.segments) == 1
    writer.close()


def test_a_log_that_cannot_be_sent_is_named(write: Write, tiny: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "logs" / "sent", 0, 8)
    LogWriter(tmp_path / "logs" / "packets.mcap", tiny).close()
    (tmp_path / "logs" / "other.mcap").write_bytes(b"of somebody else")
    ledger = Ledger(tmp_path)
    shelf = Shelf(tmp_path / "logs", ledger, None)
    assert shelf.scan()
    status = Status("v1", "nats://127.0.0.1:1", None)
    status.update(shelf, Window(), ledger, 0)
    assert status.reasons == [f"{tmp_path / 'logs' / 'packets.mcap'}: not in segments, and not sent; run with --log-segment"]
    (tmp_path / "logs" / "packets.mcap").unlink()
    shelf.scan()
    status.update(shelf, Window(), ledger, 0)
    assert (status.state, status.reasons) == ("READY", [])
    shelf.close()
    ledger.close()
