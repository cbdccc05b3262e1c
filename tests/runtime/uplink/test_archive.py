"""The archive has each packet once, whoever stores it, however often, in whatever order; a crash leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from support.s3 import s3_bucket

from percodec.runtime.uplink.archive import Archive
from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.wire import Record, SegmentId
from percodec.sdk import Bundle, UsageError, parse_header, read_log
from percodec.sdk.clock import boot_id
from percodec.sdk.log.whole import records_of as records_of_shard

pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs the ingest extra")

RECORDING = "0123456789abcdef"
SEGMENT = SegmentId(RECORDING, 2)


def metadata_of(bundle: Bundle) -> dict[str, str]:
    more = {"recording": RECORDING, "segment": "2", "boot_id": boot_id(), "clock": "monotonic", "monotonic_ns": "5000", "utc_ns": "7000"}
    return {"bundle_name": bundle.name, "bundle_digest": bundle.digest, "stream_id": "3", **more}


def records_of(packets: list[bytes], *numbers: int) -> dict[int, Record]:
    return {k: Record(0, k, 1000 * k, packets[k]) for k in numbers}


def rows_of(where: Path) -> list[dict[str, object]]:
    tables = [pyarrow.read_table(path) for path in sorted(where.rglob("*.parquet"))]
    return sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["sequence"])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_bucket(monkeypatch) as address:
        yield address


@pytest.mark.parametrize("where", ["folder", "memory", "s3"])
def test_each_packet_once_and_in_order(
    tiny: Bundle, packets: list[bytes], tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    places = {"folder": lambda: str(tmp_path / "archive"), "memory": lambda: f"memory://{tmp_path.name}"}
    address = places.get(where, lambda: str(request.getfixturevalue("bucket")))()
    archive, metadata = Archive(address), metadata_of(tiny)
    assert archive.store("v1", SEGMENT, metadata, records_of(packets, 0, 1, 2, 5, 6)) == 5
    assert archive.store("v1", SEGMENT, metadata, records_of(packets, 1, 2, 3)) == 1
    other = Archive(address)  # as another ingest: it knows nothing yet
    assert other.store("v1", SEGMENT, metadata, records_of(packets, 0, 1, 2, 3, 5, 6)) == 0
    assert other.store("v1", SEGMENT, metadata, records_of(packets, 4, 5)) == 1
    assert archive.stored("v1", RECORDING) == {2: RecordSet([(0, 7)])}
    assert archive.stored("v2", RECORDING) == {}
    assert archive.index_anew() == 0
    if where != "folder":
        names = [path for path in archive._list(f"v1/{RECORDING}") if path.endswith(".mcap")]
        shards = [records_of_shard(archive._files.cat_file(path))[1] for path in sorted(names)]
        assert sorted(packet for shard in shards for _, _, packet, _ in shard) == sorted(packets[:7])
        return
    log = read_log(tmp_path / "archive" / "v1" / RECORDING)
    assert [(r.packet, r.sequence, r.timestamp_ns) for r in log] == [(packets[k], k, 1000 * k) for k in range(7)]
    assert (log.metadata["vehicle"], log.metadata["bundle_digest"], log.damaged, log.truncated) == ("v1", tiny.digest, 0, False)
    rows = rows_of(tmp_path / "archive")
    assert [row["sequence"] for row in rows] == list(range(7))
    for row in rows:
        shard = tmp_path / "archive" / "v1" / RECORDING / str(row["shard"])
        at, size = int(str(row["offset"])), int(str(row["packet_bytes"]))
        packet = shard.read_bytes()[at : at + size]
        assert packet == packets[int(str(row["sequence"]))]
        header = parse_header(packet)
        assert (row["counter"], row["frame_id"], row["stream_id"], row["key"]) == (header.counter, header.frame_id, 3, True)
        assert row["utc_ns"] == int(str(row["timestamp_ns"])) + 2000
        assert (row["vehicle"], row["boot_id"]) == ("v1", boot_id())


def test_two_ingests_at_once_store_nothing_twice(tiny: Bundle, packets: list[bytes], tmp_path: Path) -> None:
    def work(archive: Archive, turn: int) -> None:
        for k in range(0, 60, 6):
            done.append(archive.store("v1", SEGMENT, metadata_of(tiny), records_of(packets, *range(k + turn, k + 6 + turn))))

    done: list[int] = []
    threads = [Thread(target=work, args=(Archive(str(tmp_path)), turn)) for turn in (0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == len(rows_of(tmp_path)) == 62


def test_a_crash_between_shard_and_index_is_mended(tiny: Bundle, packets: list[bytes], tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.store("v1", SEGMENT, metadata_of(tiny), records_of(packets, 0, 1, 4))
    (index,) = tmp_path.rglob("*.parquet")
    before = rows_of(tmp_path)
    index.unlink()
    (tmp_path / "v1" / RECORDING / ".half.mcap.9.part").write_bytes(b"half")
    again = Archive(str(tmp_path))
    assert again.stored("v1", RECORDING)[2].ranges == [[0, 2], [4, 5]]
    assert (again.index_anew(), again.index_anew()) == (1, 0)
    assert rows_of(tmp_path) == before


def test_what_is_damaged_is_set_aside_and_not_asked_for_again(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.quarantine("v1", f"{RECORDING}/2-17", b"bytes", "its checksum differs")
    assert (tmp_path / "quarantine/v1" / RECORDING / "2-17.packet").read_bytes() == b"bytes"
    assert "its checksum differs" in (tmp_path / "quarantine/v1" / RECORDING / "2-17.json").read_text()
    assert Archive(str(tmp_path)).stored("v1", RECORDING) == {2: RecordSet([(17, 18)])}


def test_packets_of_bundles_nobody_knows_are_set_aside_whole(tiny: Bundle, packets: list[bytes], tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    assert archive.store("v1", SEGMENT, metadata_of(tiny), records_of(packets, 0, 1, 2, 7), parked=True) == 4
    assert Archive(str(tmp_path)).store("v1", SEGMENT, metadata_of(tiny), records_of(packets, 1, 7)) == 0  # known to be there
    assert not list((tmp_path / "v1").rglob("*.mcap"))
    parked = read_log(tmp_path / "quarantine" / "v1" / RECORDING, allow_damaged=True)
    assert [record.packet for record in parked] == [packets[k] for k in (0, 1, 2, 7)]
    (index,) = (tmp_path / "quarantine").rglob("*.parquet")
    index.unlink()
    assert Archive(str(tmp_path)).index_anew() == 1
    assert index.exists()


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(UsageError, match=r"--archive s3://nobodys/archive.*cannot be opened"):
        Archive(bucket.replace("fleet", "nobodys"))


def test_an_archive_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (str(tmp_path / "file"), "nosuchscheme://x", str(tmp_path / "file" / "below")):
        with pytest.raises(UsageError, match="--archive"):
            Archive(where)
