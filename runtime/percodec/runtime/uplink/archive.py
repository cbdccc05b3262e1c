"""`Archive`: packets at rest, in a folder or a bucket, as logs and an index of them. Once, however often they came.

    VEHICLE/RECORDING/SEGMENT-FIRST-END-COUNT-NAME.mcap       a shard: a log by itself; the folder reads as one log
    VEHICLE/RECORDING/SEGMENT-FIRST-END-COUNT-NAME.parquet    its index: a row a packet, with the packet's place in the shard
    quarantine/VEHICLE/RECORDING/...                          what is damaged, with the reason beside it; shards of bundles nobody knows

A shard exists as soon as it is whole: synced and renamed in a folder, one upload in a bucket. Its name tells its records; for one with
holes its head does. Before a shard is written the recording's folder is listed, so that what another ingest stored is left out; in a
folder both hold a lock meanwhile. Parquet because whatever asks about a fleet reads it, and pyarrow is all it needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from percodec.runtime.places import opened_place
from percodec.runtime.uplink.index import packed_index
from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.wire import Record, SegmentId
from percodec.sdk.errors import LogError, UplinkError, UsageError
from percodec.sdk.log.whole import records_of, whole_log

SHARD_NAME = re.compile(r"(\d{6,9})-(\d{8,10})-(\d{8,10})-(\d{1,10})-[0-9a-f]{12}\.mcap")
_DAMAGED = re.compile(r"(\d{1,9})-(\d{1,10})\.packet")
HOLDS = "holds"  # metadata of a shard with holes: its ranges, as JSON
_MOST_HEAD = 16 << 20  # a shard of the smallest packets, each with a hole behind it, says so in some megabytes


class Archive:
    """`where`: a folder, or what fsspec opens, as s3://bucket/folder. Raises `UsageError` where it cannot be opened."""

    def __init__(self, where: str) -> None:
        try:
            self._files, self._root = opened_place(where)
            self._files.makedirs(self._root, exist_ok=True)
        except Exception as error:  # each file system has its own
            raise UsageError(f"--archive {where}: cannot be opened ({str(error)[:200] or type(error).__name__})") from error
        protocol = self._files.protocol
        self._local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        self._known: dict[str, dict[int, RecordSet]] = {}  # by folder of a recording
        self._shards: dict[str, set[str]] = {}

    def stored(self, vehicle: str, recording: str) -> dict[int, RecordSet]:
        """What is stored of a recording, by segment, as the archive is now."""
        folder = f"{vehicle}/{recording}"
        known, shards = self._known.setdefault(folder, {}), self._shards.setdefault(folder, set())
        for place in (folder, f"quarantine/{folder}"):
            for path in self._list(place):
                name = PurePosixPath(path).name
                if name in shards:
                    continue
                if match := SHARD_NAME.fullmatch(name):
                    segment, first, end, count = map(int, match.groups())
                    held = known.setdefault(segment, RecordSet())
                    if end - first == count:
                        held.add(first, end)
                    else:
                        held.update(self._inside(f"{place}/{name}"))
                elif match := _DAMAGED.fullmatch(name):
                    known.setdefault(int(match[1]), RecordSet()).add(int(match[2]), int(match[2]) + 1)
                shards.add(name)
        return known

    def store(self, vehicle: str, segment: SegmentId, metadata: Mapping[str, str], records: dict[int, Record], parked: bool = False) -> int:
        """Write what of `records`, by sequence, is not there yet. Returns how many that was; all are on the disk afterwards.

        `parked`: below quarantine, in the same form, for somebody to look at and move.
        """
        folder = f"{vehicle}/{segment.recording}"
        with self._alone(folder):
            held = self.stored(vehicle, segment.recording).setdefault(segment.number, RecordSet())
            new = {number: record for number, record in sorted(records.items()) if number not in held}
            if not new:
                return 0
            numbers = RecordSet()
            for number in new:
                numbers.add(number, number + 1)
            first, end = min(new), max(new) + 1
            stem = f"{segment.number:06d}-{first:08d}-{end:08d}-{len(new)}-{os.urandom(6).hex()}"
            more = {} if end - first == len(new) else {HOLDS: json.dumps(numbers.ranges)}
            data, places = whole_log({**metadata, "vehicle": vehicle, **more}, [(n, r.timestamp_ns, r.packet) for n, r in new.items()])
            place = f"quarantine/{folder}" if parked else folder
            self._put(f"{place}/{stem}.mcap", data)
            held.update(numbers)
            self._shards[folder].add(f"{stem}.mcap")
        index = packed_index(vehicle, segment, metadata, new, f"{stem}.mcap", places)
        self._put(f"{place}/{stem}.parquet", index)
        return len(new)

    def index_anew(self) -> int:
        """Write the indexes that a crash kept from being written. Returns how many."""
        made = 0
        shards = (path for place in ("", "quarantine/") for path in self._files.glob(f"{self._root}/{place}*/*/*.mcap"))
        for path in shards:
            beside = path.removesuffix(".mcap") + ".parquet"
            if self._files.exists(beside) or not SHARD_NAME.fullmatch(PurePosixPath(path).name):
                continue
            *_, vehicle, recording, name = PurePosixPath(path).parts
            metadata, records = records_of(self._files.cat_file(path))
            found = {number: Record(0, number, time_ns, packet) for number, time_ns, packet, _ in records}
            places = {number: place for number, _, _, place in records}
            segment = SegmentId(recording, int(name.split("-")[0]))
            index = packed_index(vehicle, segment, metadata, found, name, places)
            self._put(str(PurePosixPath(beside).relative_to(self._root)), index)
            made += 1
        return made

    def quarantine(self, vehicle: str, name: str, data: bytes, why: str) -> None:
        """Keep something damaged, with the reason. The same again changes nothing."""
        self._put(f"quarantine/{vehicle}/{name}.json", json.dumps({"reason": why, "bytes": len(data)}).encode())
        self._put(f"quarantine/{vehicle}/{name}.packet", data)

    def _inside(self, name: str) -> RecordSet:
        """The records of a shard with holes, as its metadata tell."""
        with self._files.open(f"{self._root}/{name}", "rb") as file:
            metadata, _ = records_of(file.read(_MOST_HEAD), head_only=True)
        try:
            return RecordSet((int(first), int(end)) for first, end in json.loads(metadata[HOLDS]))
        except (KeyError, ValueError, TypeError) as error:
            raise LogError(f"{name}: does not say which records it holds; the archive is damaged there") from error

    def _list(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            return [str(path) for path in self._files.ls(f"{self._root}/{folder}", detail=False)]
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _alone(self, folder: str) -> Iterator[None]:
        if not self._local:
            yield
            return
        Path(self._root, folder).mkdir(parents=True, exist_ok=True)
        with Path(self._root, folder, ".lock").open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _put(self, name: str, data: bytes) -> None:
        """Whole and on the disk, or not there. Raises `UplinkError`."""
        try:
            if self._local:
                _write(Path(self._root, name), data)
            else:
                self._files.pipe_file(f"{self._root}/{name}", data)
        except Exception as error:  # each file system has its own
            raise UplinkError(f"archive {self._root}/{name}: cannot be written ({str(error)[:200] or type(error).__name__})") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside: Any = path.with_name(f".{path.name}.{os.getpid()}.part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["SHARD_NAME", "Archive"]
