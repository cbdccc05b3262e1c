"""Which shards a folder holds, and the records of one.

| in the folder                                    | is                                           |
|--------------------------------------------------|----------------------------------------------|
| a log, `NAME.mcap`                               | a shard                                      |
| a folder of segments, `000000.mcap`, ...         | a shard a segment: each begins with a key packet |
| an archive's `VEHICLE/RECORDING/SEGMENT-...mcap` | a shard a segment: its files merged by sequence |

A packet is named by vehicle, boot, recording, stream and counter. A log that is one file has no recording: its name below the folder
stands for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from percodec.export.fleet.losses import Losses
from percodec.export.fleet.store import Store
from percodec.runtime.uplink.archive import SHARD_NAME
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BundleError, DataError
from percodec.sdk.log import LogReader, LogRecord, read_log
from percodec.sdk.log.segments import SegmentedLog


class PacketKey(NamedTuple):
    """Which packet of a fleet. `boot_id` and `counter` as in log and header; "" where a log does not say."""

    vehicle: str
    boot_id: str
    recording: str
    stream_id: int
    counter: int


class Source(NamedTuple):
    """Which recording a shard is of."""

    vehicle: str
    boot_id: str
    recording: str


@dataclass(frozen=True)
class Shard:
    """`name`: below the folder, without its ending. `files`: names in the store, one or, of an archive's segment, several."""

    name: str
    files: tuple[str, ...]


def find_shards(store: Store) -> list[Shard]:
    """All of them, by name; an archive's quarantine is none. Raises `DataError` where there is none."""
    groups: dict[str, list[str]] = {}
    for name in store.names(".mcap"):
        folder, _, file = name.rpartition("/")
        if name.startswith("quarantine/"):
            continue
        archived = SHARD_NAME.fullmatch(file)
        stem = archived[1] if archived else file.removesuffix(".mcap")
        groups.setdefault(f"{folder}/{stem}" if folder else stem, []).append(name)
    if not groups:
        raise DataError(f"{store.where} holds no logs (*.mcap); give a folder of logs, of segments, or an archive of `percodec ingest`")
    return [Shard(name, tuple(files)) for name, files in sorted(groups.items())]


class ShardReader:
    """The records of a shard, in order, each once, as the log has them. Use as a context; iterate once.

    `losses`: after the iteration, what its log missed. `source`: whose packets they are. Raises `LogError` where it is no log of
    percodec, `BundleError` where its packets are of another bundle than `bundle`.
    """

    def __init__(self, store: Store, shard: Shard, bundle: Bundle | None = None) -> None:
        self._stack = contextlib.ExitStack()
        self.shard, self.losses = shard, Losses()
        try:
            paths = [self._stack.enter_context(store.local(name)) for name in shard.files]
            self.log = _open(paths)
        except BaseException:
            self._stack.close()
            raise
        self._where = store.shown(shard.files[0])
        found = self.log.metadata
        recording = found.get("recording") or shard.files[0]
        self.source = Source(found.get("vehicle", ""), found.get("boot_id", ""), recording)
        if bundle is not None and not bundle.answers_to(self.log.bundle_digest):
            self._stack.close()
            raise BundleError(
                f"{self._where}: was logged with bundle {self.log.bundle_name} {self.log.bundle_digest[:12]}, not {bundle.name} "
                f"{bundle.digest[:12]}; name the right one, or keep logs of different bundles in different folders"
            )

    def __iter__(self) -> Iterator[LogRecord]:
        log, losses = self.log, self.losses
        yield from log
        losses.add("damaged", log.damaged, f"{self._where}: {next(iter(log.damages), '')}")
        losses.add("missing", log.missing, f"{self._where}: {log.missing} missing by the sequence numbers")
        losses.add("cut", int(log.truncated), f"{self._where}: cut off")

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def _open(paths: list[Path]) -> LogReader:
    if len(paths) == 1:
        return read_log(paths[0], allow_damaged=True)
    return SegmentedLog(paths[0].parent, [read_log(path, allow_damaged=True) for path in paths], allow_damaged=True)


__all__ = ["PacketKey", "Shard", "ShardReader", "Source", "find_shards"]
