"""A log holds every acknowledged frame: after a close, a kill, a full disk or a damaged byte."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percodec.sdk import Bundle, ClockAnchor, LogError, LogWriter, mcap, read_log
from percodec.sdk.clock import utc_ns_from_monotonic

Packet = Callable[[int], bytes]


def write(path: Path, bundle: Bundle, packet: Packet, count: int, close: bool = True) -> LogWriter:
    writer = LogWriter(path, bundle)
    for k in range(count):
        writer.append(packet(k), k, 1_000_000 * k)
    if close:
        writer.close()
    return writer


def test_what_was_appended_is_read(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    writer = write(tmp_path / "a.mcap", tiny, packet, 9)
    writer.close()
    log = read_log(tmp_path / "a.mcap")
    records = list(log)
    assert len({r.packet for r in records}) == 9
    assert [(r.frame_id, r.timestamp_ns, r.sequence) for r in records] == [(k, 1_000_000 * k, k) for k in range(9)]
    assert (log.bundle_name, log.bundle_digest) == ("tiny", tiny.digest)
    assert not log.truncated
    assert log.damaged == 0
    assert len(list(log)) == 9  # a second look
    assert writer.bytes == (tmp_path / "a.mcap").stat().st_size


def test_the_mcap_package_reads_it_with_checksums(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    mcap = pytest.importorskip("mcap.reader", reason="an independent reader, not a dependency")
    write(tmp_path / "a.mcap", tiny, packet, 5)
    with (tmp_path / "a.mcap").open("rb") as f:
        reader = mcap.make_reader(f, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == 5
        assert [c.message_encoding for c in summary.channels.values()] == ["application/x-percodec-packet"]
        messages = list(reader.iter_messages())
        assert [m.log_time for _, _, m in messages] == [1_000_000 * k for k in range(5)]
        begun, closed = reader.iter_metadata()
        assert (begun.name, closed.name) == ("percodec", "percodec.closed")
        assert begun.metadata["bundle_digest"] == tiny.digest
        assert int(closed.metadata["utc_ns"]) > int(begun.metadata["utc_ns"])
        assert summary.statistics.metadata_count == len(summary.metadata_indexes) == 2


def test_a_live_log_tells_the_time_of_day_of_its_frames(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    with LogWriter(tmp_path / "a.mcap", tiny, live=True) as writer:
        frames = []
        for k in range(3):
            frames.append((time.time_ns(), time.monotonic_ns()))
            writer.append(packet(k), k, frames[-1][1])
            time.sleep(0.01)
    log = read_log(tmp_path / "a.mcap")
    assert log.live
    begun, closed = log.anchors
    assert begun.monotonic_ns < frames[0][1] < frames[-1][1] < closed.monotonic_ns
    for (utc_ns, monotonic_ns), record in zip(frames, log, strict=True):
        assert record.timestamp_ns == monotonic_ns
        found = log.utc_ns_of(record.timestamp_ns)
        assert found is not None
        assert abs(found - utc_ns) < 5_000_000  # between the two readings above a thread may have waited
    killed = tmp_path / "killed.mcap"
    killed.write_bytes((tmp_path / "a.mcap").read_bytes()[:-1])
    assert read_log(killed).anchors == (begun,)
    assert read_log(killed).utc_ns_of(begun.monotonic_ns + 10**15) == begun.utc_ns + 10**15


def test_the_clocks_are_interpolated_between_anchors_and_held_outside() -> None:
    anchors = ClockAnchor(1000, 50_000), ClockAnchor(3000, 52_100)  # 49000 apart, then 49100
    for timestamp_ns, utc_ns in ((0, 49_000), (1000, 50_000), (2000, 51_050), (3000, 52_100), (9000, 58_100)):
        assert utc_ns_from_monotonic(timestamp_ns, anchors) == utc_ns
    assert utc_ns_from_monotonic(7, anchors[:1]) == 49_007
    assert utc_ns_from_monotonic(1000, (anchors[0], anchors[0])) == 50_000
    late = 1_790_000_000_000_000_000  # whole numbers: no nanosecond is rounded away
    assert utc_ns_from_monotonic(late + 1, (ClockAnchor(late, late), ClockAnchor(late + 2, late + 2))) == late + 1


def test_an_anchor_is_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(20):
        before, anchor, after = ClockAnchor.now(), ClockAnchor.now(), ClockAnchor.now()
        assert before.monotonic_ns < anchor.monotonic_ns < after.monotonic_ns
    readings = [(0, 10_000, 900), (2000, 12_010, 2020), (3000, 13_500, 9000)]  # monotonic, UTC, monotonic: the second try is tight
    values = iter([value for reading in readings for value in reading])
    from percodec.sdk import clock

    monkeypatch.setattr(clock, "_TRIES", 3)
    monkeypatch.setattr(clock.time, "monotonic_ns", lambda: next(values))
    monkeypatch.setattr(clock.time, "time_ns", lambda: next(values))
    assert ClockAnchor.now() == ClockAnchor(2010, 12_010)


def test_media_time_has_no_time_of_day(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    write(tmp_path / "a.mcap", tiny, packet, 2)
    log = read_log(tmp_path / "a.mcap")
    assert not log.live
    assert len(log.anchors) == 2  # when it was written is known all the same
    assert log.utc_ns_of(0) is None


def test_a_log_without_anchors_is_read_and_knows_no_time_of_day(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    write(tmp_path / "a.mcap", tiny, packet, 3, close=False)
    data = (tmp_path / "a.mcap").read_bytes()
    for key in (b"clock", b"monotonic_ns", b"utc_ns"):  # as earlier versions wrote it: without these keys
        data = data.replace(key, key[::-1])
    (tmp_path / "a.mcap").write_bytes(data)
    log = read_log(tmp_path / "a.mcap")
    assert len(list(log)) == 3
    assert log.damaged == 0
    assert (log.anchors, log.live, log.utc_ns_of(5)) == ((), False, None)


def test_metadata_of_others_within_a_log_changes_no_anchor(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    writer = write(tmp_path / "a.mcap", tiny, packet, 2, close=False)
    with (tmp_path / "a.mcap").open("ab") as f:
        f.write(mcap.metadata_record("somebody", {"utc_ns": "5", "monotonic_ns": "5"}))
    log = read_log(tmp_path / "a.mcap")
    assert len(list(log)) == 2
    assert log.damaged == 0
    assert log.anchors == (writer.begun,)


def test_cut_anywhere_it_yields_exactly_the_complete_records(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, tiny)
    ends = [writer.bytes]
    for k in range(6):
        writer.append(packet(k), k, k)
        ends.append(writer.bytes)
    writer.close()
    whole = path.read_bytes()
    for size in random.Random(1).sample(range(ends[0], len(whole)), 150):
        path.write_bytes(whole[:size])
        log = read_log(path)
        assert [r.frame_id for r in log] == list(range(sum(end <= size for end in ends[1:])))
        assert log.truncated
        assert log.damaged == 0


def test_a_damaged_packet_is_counted_and_the_rest_is_read(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, tiny)
    writer.append(packet(0), 0, 0)
    at = writer.bytes + 60  # inside the next record's packet
    writer.append(packet(1), 1, 1)
    writer.append(packet(2), 2, 2)
    writer.close()
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    log = read_log(path, allow_damaged=True)
    assert [r.frame_id for r in log] == [0, 2]
    assert log.damaged == 1
    assert not log.truncated
    frames = []
    with pytest.raises(LogError, match=r"1 damaged record: .*the other 2 records were read"):
        frames += [r.frame_id for r in read_log(path)]
    with pytest.raises(LogError):  # noqa: PT012
        for record in read_log(path):
            frames.append(record.frame_id)
    assert frames == [0, 2], "the good ones come first"


def test_no_flipped_bit_of_a_closed_log_goes_unnoticed(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, tiny)
    writer.append(packet(0), 0, 0)
    start = writer.bytes
    writer.append(packet(1), 1, 1)
    end = writer.bytes
    writer.append(packet(2), 2, 2)
    writer.close()
    whole = path.read_bytes()
    assert end - start > 31 + 40
    for bit in range(8 * start, 8 * (start + 40)):  # opcode, length, channel, sequence, times, and some of the packet
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        log = read_log(path, allow_damaged=True)
        frames = [r.frame_id for r in log]
        assert frames[0] == 0
        assert set(frames) <= {0, 1, 2}
        assert log.complaint() or log.truncated
        if bit >= 8 * (start + mcap.PREFIX.size):
            assert not log.truncated
            assert frames[-1] == 2, "the framing held: what follows is read"


def test_no_flipped_bit_yields_a_wrong_packet(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    path = tmp_path / "a.mcap"
    write(path, tiny, packet, 3)
    good = {r.packet for r in read_log(path)}
    whole = path.read_bytes()
    for bit in random.Random(2).sample(range(len(whole) * 8), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with contextlib.suppress(LogError):  # its beginning was hit: refused as a whole
            assert {r.packet for r in read_log(path, allow_damaged=True)} <= good


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.long)])
def test_kill_9_loses_no_acknowledged_frame(tmp_path: Path, tiny: Bundle, packet: Packet, trials: dict[str, Any], kills: int) -> None:
    (tmp_path / "packet").write_bytes(packet(7))
    program = (
        "import sys; from pathlib import Path; from percodec.sdk import Bundle, LogWriter\n"
        "packet = Path(sys.argv[2]).read_bytes(); log = LogWriter(sys.argv[3], Bundle.open(sys.argv[1])); k = 0\n"
        "while True:\n    log.append(packet, 7, k); k += 1; sys.stdout.write(f'{k}\\n'); sys.stdout.flush()\n"
    )
    rng = random.Random(3)
    total = 0
    for trial in range(kills):
        path = tmp_path / f"{trial}.mcap"
        command = [sys.executable, "-c", program, str(tiny.path), str(tmp_path / "packet"), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            acknowledged = 1 + sum(line.endswith("\n") for line in process.stdout)
        log = read_log(path)
        count = sum(1 for _ in log)
        assert acknowledged <= count <= acknowledged + 1
        assert log.truncated
        assert log.damaged == 0
        total += acknowledged
    if kills >= 200:
        trials["kill -9 of a log's writer"] = {"kills": kills, "records_acknowledged": total, "losses": 0}


def test_a_full_disk_is_one_error_and_keeps_what_was_accepted(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, tiny)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    accepted = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (writer.bytes + 2000, before[1]))
        with pytest.raises(LogError, match="free disk space"):  # noqa: PT012
            for k in range(100):
                writer.append(packet(k), k, k)
                accepted += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 0 < accepted < 100
    assert path.stat().st_size == writer.bytes  # the half record was taken back
    assert [r.frame_id for r in read_log(path)] == list(range(accepted))
    writer.append(packet(200), 200, 0)  # space again: it goes on
    writer.close()
    assert [r.frame_id for r in read_log(path)][-1] == 200


def test_half_a_record_that_stays_ends_the_log(tmp_path: Path, tiny: Bundle, packet: Packet, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mcap"
    writer = write(path, tiny, packet, 2, close=False)
    whole_write = os.write

    def refuse(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: whole_write(fd, data[:40]))
        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises(LogError, match="only part"):
            writer.append(packet(2), 2, 2)
    with pytest.raises(LogError, match="begin a new log"):
        writer.append(packet(3), 3, 3)  # it would be lost behind the half one
    with pytest.raises(LogError, match="begin a new log"):
        writer.close()
    writer.close()
    log = read_log(path)
    assert [r.frame_id for r in log] == [0, 1]
    assert log.truncated


def test_no_space_at_all_is_one_error(tiny: Bundle) -> None:
    with pytest.raises(LogError, match="free disk space"):
        LogWriter("/dev/full", tiny, overwrite=True, min_free_bytes=0)


def test_the_floor_of_free_space_stops_it_before_the_disk_does(tmp_path: Path, tiny: Bundle) -> None:
    with pytest.raises(LogError, match="floor"):
        LogWriter(tmp_path / "a.mcap", tiny, min_free_bytes=1 << 60)
    LogWriter(tmp_path / "a.mcap", tiny).close()  # and left nothing in the way


def test_an_error_of_the_background_sync_reaches_the_next_append(
    tmp_path: Path, tiny: Bundle, packet: Packet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from percodec.sdk.log import writer as writer_module

    monkeypatch.setattr(writer_module, "SYNC_SECONDS", 0.01)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = LogWriter(tmp_path / "a.mcap", tiny, sync="interval")
    writer.append(packet(0), 0, 0)
    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(LogError, match="Input/output error"):  # noqa: PT012
        for k in range(1, 2000):
            writer.append(packet(1), 1, k)
            time.sleep(0.01)
    monkeypatch.undo()
    with pytest.raises(LogError, match="Input/output error"):  # a later sync succeeds, the lost page stays lost
        writer.close()


def test_times_out_of_range_are_refused_and_out_of_order_are_not(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    mcap = pytest.importorskip("mcap.reader", reason="an independent reader, not a dependency")
    with LogWriter(tmp_path / "a.mcap", tiny) as writer:
        for time_ns in (-1, 1 << 64):
            with pytest.raises(LogError, match="timestamp"):
                writer.append(packet(0), 0, time_ns)
        for k, time_ns in enumerate((500, 100, 300)):
            writer.append(packet(k), k, time_ns)
    with (tmp_path / "a.mcap").open("rb") as f:
        summary = mcap.make_reader(f, validate_crcs=True).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert (summary.statistics.message_start_time, summary.statistics.message_end_time) == (100, 500)


def test_existing_logs_are_not_overwritten_by_accident(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    write(tmp_path / "a.mcap", tiny, packet, 2)
    with pytest.raises(LogError, match="exists"):
        LogWriter(tmp_path / "a.mcap", tiny)
    LogWriter(tmp_path / "a.mcap", tiny, overwrite=True).close()
    assert list(read_log(tmp_path / "a.mcap")) == []


def test_a_closed_log_takes_nothing(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    writer = write(tmp_path / "a.mcap", tiny, packet, 1)
    with pytest.raises(LogError, match="closed"):
        writer.append(packet(1), 1, 1)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n" + b"\xff" * 100])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(LogError, match="log written by percodec"):
        read_log(tmp_path / "x")


def test_foreign_mcap_files_folders_and_nothing_are_refused(tmp_path: Path) -> None:
    mcap = pytest.importorskip("mcap.writer", reason="an independent writer, not a dependency")
    with (tmp_path / "foreign.mcap").open("wb") as f:
        writer = mcap.Writer(f)
        writer.start()
        writer.finish()
    (tmp_path / "folder").mkdir()
    for path, word in (
        (tmp_path / "foreign.mcap", "without percodec's metadata"),
        (tmp_path / "folder", "without logs"),
        (tmp_path / "no", "not exist"),
    ):
        with pytest.raises(LogError, match=word):
            read_log(path)


def test_a_record_that_claims_to_be_huge_ends_the_log_without_memory(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    path = tmp_path / "a.mcap"
    write(path, tiny, packet, 2, close=False)
    with path.open("ab") as f:
        f.write(b"\x05" + (1 << 60).to_bytes(8, "little") + b"x")
    log = read_log(path)
    assert len(list(log)) == 2
    assert log.truncated
