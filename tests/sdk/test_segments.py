"""A log in segments reads as one, whatever of it is there."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from percodec.sdk import Bundle, LogError, LogWriter, SegmentedLogWriter, SegmentLimits, UsageError, mcap, read_log, verify_log
from percodec.sdk.cli import main
from percodec.sdk.clock import boot_id
from percodec.sdk.codec.header import CRC, LAYOUT
from percodec.sdk.codec.reference import crc32c
from percodec.sdk.log.reader import read_log_file
from percodec.sdk.log.segments import segment_paths

Packet = Callable[[int], bytes]


@pytest.mark.parametrize(
    ("text", "size", "seconds"),
    [("64MB,10min", 64_000_000, 600.0), ("10min", 64_000_000, 600.0), ("1.5MiB", 1_572_864, 600.0), ("2s,1GB", 10**9, 2.0)],
)
def test_limits(text: str, size: int, seconds: float) -> None:
    assert SegmentLimits.from_text(text) == SegmentLimits(size, seconds)


@pytest.mark.parametrize("text", ["", "64", "64MB,", "64MB,5MB", "1min,2h", "-5MB", "nanMB", "10 parsecs", "1kB", "0s", "9" * 30 + "GB"])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--log-segment"):
        SegmentLimits.from_text(text)


def test_limits_without_a_log_in_them() -> None:
    for size, seconds in ((0, 600.0), (1 << 41, 600.0), (10**6, 0.0), (10**6, float("nan"))):
        with pytest.raises(UsageError, match="from 4 KiB to 1 TB"):
            SegmentLimits(size, seconds)


def write(folder: Path, bundle: Bundle, packet: Packet, count: int = 90, close: bool = True) -> SegmentedLogWriter:
    writer = SegmentedLogWriter(folder, bundle, SegmentLimits(4096), stream_id=3, live=True)
    for k in range(count):
        writer.append(packet(k), k, 1_000_000 * k)
    if close:
        writer.close()
    return writer


def test_a_folder_of_segments_is_one_log(tiny: Bundle, packet: Packet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packets = [packet(k) for k in range(90)]
    writer = write(tmp_path / "log", tiny, packets.__getitem__)
    assert writer.segments == len(segment_paths(tmp_path / "log")) > 3
    log = read_log(tmp_path / "log")
    for _ in range(2):  # as often as wanted
        records = list(log)
        found = [(r.packet, r.frame_id, r.timestamp_ns, r.sequence) for r in records]
        assert found == [(packets[k], k, 1_000_000 * k, k) for k in range(90)]
        assert (log.truncated, log.damaged, log.missing) == (False, 0, 0)
    assert len(log.anchors) == 2 * writer.segments
    for number, path in enumerate(segment_paths(tmp_path / "log")):
        metadata = read_log(path).metadata
        assert (metadata["segment"], metadata["recording"], metadata["boot_id"]) == (str(number), writer.recording, boot_id())
        assert (metadata["stream_id"], metadata["bundle_digest"]) == ("3", tiny.digest)
    assert writer.bytes == log.size
    assert main(["inspect", str(tmp_path / "log"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["records"], facts["complete"], facts["bytes"]) == (90, True, log.size)


def test_a_folder_of_one_log_is_that_log(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    with LogWriter(tmp_path / "packets.mcap", tiny, key=b"k" * 32) as writer:
        for k in range(5):
            writer.append(packet(k), k, k)
    (tmp_path / "report.json").write_text("{}")
    assert [record.frame_id for record in read_log(tmp_path)] == [0, 1, 2, 3, 4]
    assert verify_log(tmp_path, b"k" * 32).whole
    (tmp_path / "packets.mcap").write_bytes((tmp_path / "packets.mcap").read_bytes()[:-400])
    assert not verify_log(tmp_path, b"k" * 32).whole


def test_what_is_missing_is_said(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    write(tmp_path / "log", tiny, packet, close=False)
    paths = segment_paths(tmp_path / "log")
    log = read_log(tmp_path / "log")
    assert len(list(log)) == 90
    assert log.truncated  # as of a killed writer; the others have their ends
    assert log.damaged == 0
    paths[0].unlink()
    assert list(read_log(tmp_path / "log"))[-1].frame_id == 89  # the oldest may go
    paths[2].unlink()
    with pytest.raises(LogError, match="segment 2 is missing"):
        list(read_log(tmp_path / "log"))
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: len(data) // 2])
    log = read_log(tmp_path / "log", allow_damaged=True)
    assert list(log)[-1].frame_id == 89
    assert "segment 1 is cut off" in log.damages


def test_shards_of_one_segment_are_merged_by_sequence(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    write(tmp_path / "log", tiny, packet, 8)
    only, *_ = segment_paths(tmp_path / "log")
    shutil.copy(only, tmp_path / "log" / "again.mcap")
    log = read_log(tmp_path / "log", allow_damaged=True)
    frames = [record.frame_id for record in log]
    assert frames == list(range(8))
    assert "is there twice" in log.complaint()


def test_two_recordings_are_refused(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, tiny, packet, 4)
    shutil.copy(tmp_path / "b" / "000000.mcap", tmp_path / "a" / "000009.mcap")
    with pytest.raises(LogError, match="several logs"):
        read_log(tmp_path / "a")
    with pytest.raises(LogError, match="exists"):
        SegmentedLogWriter(tmp_path / "a", tiny)
    (tmp_path / "c").mkdir()
    with pytest.raises(LogError, match="without logs"):
        read_log(tmp_path / "c")
    for name in ("plain.mcap", "other.mcap"):
        with LogWriter(tmp_path / "c" / name, tiny) as log:
            log.append(packet(1), 1, 1)
    with pytest.raises(LogError, match="several logs"):
        read_log(tmp_path / "c")


def test_a_segment_is_locked_while_it_is_written(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    writer = write(tmp_path / "log", tiny, packet, close=False)
    first, *_, last = segment_paths(tmp_path / "log")
    with first.open("rb") as done, last.open("rb") as open_:
        fcntl.flock(done, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(open_, fcntl.LOCK_SH | fcntl.LOCK_NB)
        writer.close()
        fcntl.flock(open_, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_closed_log_takes_nothing(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    writer = SegmentedLogWriter(tmp_path / "log", tiny, SegmentLimits(4096, 0.1))
    writer.append(packet(0), 0, 0)
    writer.close()
    time.sleep(0.15)  # its time is up: another segment would begin
    with pytest.raises(LogError, match="is closed; frame 1 was not written"):
        writer.append(packet(1), 1, 1)
    assert len(segment_paths(tmp_path / "log")) == 1


def test_a_writer_killed_as_a_segment_begins_loses_nothing(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    key = b"k" * 32
    with SegmentedLogWriter(tmp_path / "log", tiny, SegmentLimits(4096), key=key) as writer:
        for k in range(40):
            writer.append(packet(k), k, k)
    *_, before, last = segment_paths(tmp_path / "log")
    held = len(list(read_log_file(last)))
    last.write_bytes(b"")
    log = read_log(tmp_path / "log")
    assert [record.frame_id for record in log] == list(range(40 - held))
    assert log.truncated
    proof = verify_log(tmp_path / "log", key)
    assert (proof.records, proof.findings, proof.closed) == (40 - held, [], False)
    before.write_bytes(b"")
    last.write_bytes(before.with_name("000000.mcap").read_bytes())
    with pytest.raises(LogError, match="is not an MCAP file"):  # one that others follow is no beginning
        read_log(tmp_path / "log")


def test_lost_segments_at_the_end_are_no_end(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    write(tmp_path / "log", tiny, packet, 40)
    log = read_log(tmp_path / "log")
    assert (len(list(log)), log.truncated) == (40, False)
    segment_paths(tmp_path / "log")[-1].unlink()
    log = read_log(tmp_path / "log")
    assert (len(list(log)) < 40, log.truncated) == (True, True)


def test_iterations_do_not_disturb_each_other(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    write(tmp_path / "log", tiny, packet, 40)
    with LogWriter(tmp_path / "one.mcap", tiny) as writer:
        for k in range(10):
            writer.append(packet(k), k, k)
    for path in (tmp_path / "log", tmp_path / "one.mcap"):
        log = read_log(path)
        first = iter(log)
        next(first)
        assert len(list(log)) == len(list(log)) > 1  # one after the other
        with pytest.raises(LogError, match=f"another iteration over {path.name} has begun"):
            next(first)


def test_the_folder_of_a_run_is_its_log(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    write(tmp_path / "run" / "packets", tiny, packet, 8)
    assert [record.frame_id for record in read_log(tmp_path / "run")] == list(range(8))


def as_predicted(packet: bytes) -> bytes:
    """Its header says profile 2; what is in it stays."""
    head, payload = packet[:3] + b"\2" + packet[4 : LAYOUT.size], packet[LAYOUT.size + CRC.size :]
    return head + CRC.pack(crc32c(head + payload)) + payload


def test_segments_of_a_stream_begin_at_key_packets(tiny: Bundle, packet: Packet, tmp_path: Path) -> None:
    with SegmentedLogWriter(tmp_path / "log", tiny, SegmentLimits(4096)) as writer:
        for k in range(60):
            data = packet(k)
            writer.append(as_predicted(data) if k % 10 else data, k, k)
    firsts = [path.read_bytes() for path in segment_paths(tmp_path / "log")]
    assert writer.segments > 2
    for data in firsts:
        at = len(mcap.MAGIC)
        while data[at] != mcap.MESSAGE:
            at += mcap.PREFIX.size + int.from_bytes(data[at + 1 : at + 9], "little")
        assert data[at + mcap.PREFIX.size + mcap.MESSAGE_HEAD.size + 3] != 2
