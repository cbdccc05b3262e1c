"""Segmented logs: a folder of small logs that reads as one, so that what is stored elsewhere can be deleted while the rest is written.

    000000.mcap  000001.mcap  ...       each a log by itself; Metadata "percodec" has further: `recording`, `segment`, `boot_id`

`recording` names one run of one writer, `segment` counts its files from 0, and `boot_id` says which monotonic clock its times are of. A
segment is locked (flock) while it is written: whoever gets its lock knows that its writer is gone. Files that share one `segment`, as an
archive keeps them, are merged by their messages' sequence numbers.
"""

from __future__ import annotations

import heapq
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from percodec.sdk.codec.entropy_model import PREDICTED
from percodec.sdk.errors import LogError, UsageError
from percodec.sdk.log.names import SEGMENTS
from percodec.sdk.log.reader import LogReader, LogRecord
from percodec.sdk.log.writer import LoggedBundle, LogWriter

_SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0}
_LEAST_BYTES = 4096
_PREDICTED = tuple(bytes([profile]) for profile in PREDICTED)


@dataclass(frozen=True)
class SegmentLimits:
    """When a segment ends: at this many bytes or seconds, whichever comes first. Raises `UsageError` outside 4 KiB..1 TB, 0.1..1e6 s."""

    max_bytes: int = 64 * 10**6
    max_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not (_LEAST_BYTES <= self.max_bytes <= 1 << 40 and 0.1 <= self.max_seconds <= 1e6):
            raise UsageError(
                f"a segment of a log has from 4 KiB to 1 TB, and from 0.1 s to 1e6 s; got {self.max_bytes} bytes, {self.max_seconds} s"
            )

    @classmethod
    def from_text(cls, text: str) -> SegmentLimits:
        """Of "64MB,10min"; either part may be left out. Raises `UsageError`."""
        found: dict[str, float] = {}
        for part in text.split(","):
            match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([A-Za-z]+)", part.strip())
            unit = match[2] if match else ""
            kind, scale = ("max_bytes", _SIZES[unit]) if unit in _SIZES else ("max_seconds", _TIMES.get(unit, 0))
            if match is None or not scale or kind in found:
                raise UsageError(f"--log-segment {text!r}: write a size, a time or both, as 64MB,10min")
            found[kind] = float(match[1]) * scale
        try:
            return cls(int(found.get("max_bytes", cls.max_bytes)), found.get("max_seconds", cls.max_seconds))
        except UsageError as error:
            raise UsageError(f"--log-segment {text!r}: {error}") from None


class SegmentedLogWriter:
    """A `LogWriter` whose log is a folder, made here. Raises `LogError`, also where the folder already holds a log.

    A segment that is full ends before the next key packet, at twice its size before any packet.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        bundle: LoggedBundle,
        limits: SegmentLimits | None = None,
        *,
        stream_id: int = 0,
        live: bool = False,
        sync: Literal["none", "interval"] = "none",
        min_free_bytes: int = 64 << 20,
        key: bytes | None = None,
    ) -> None:
        self.path = Path(folder)
        self.recording = os.urandom(8).hex()
        self.segments = self.records = self.bytes = 0
        self._limits = limits or SegmentLimits()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise LogError(f"log {self.path} cannot be created: {e.strerror}; choose a folder that can be written") from e
        if segment_paths(self.path):
            raise LogError(f"log {self.path} exists; choose another name or remove it on purpose")

        def make(number: int) -> LogWriter:
            return LogWriter(
                self.path / f"{number:06d}.mcap", bundle, stream_id=stream_id, live=live, sync=sync, min_free_bytes=min_free_bytes,
                more={"recording": self.recording, "segment": str(number)}, key=key,
            )  # fmt: skip

        self._make, self._closed = make, False
        self._before = 0  # bytes of finished segments
        self._open()

    def append(self, packet: bytes, frame_id: int, timestamp_ns: int) -> None:
        """As `LogWriter.append`."""
        segment = self._segment
        if self._closed:
            raise LogError(f"log {self.path} is closed; frame {frame_id} was not written")
        full = segment.bytes >= self._limits.max_bytes or time.monotonic() - self._begun >= self._limits.max_seconds
        if full and segment.records and (packet[3:4] not in _PREDICTED or segment.bytes >= 2 * self._limits.max_bytes):
            segment.close(last=False)
            self._before += segment.bytes
            self._open()
        self._segment.append(packet, frame_id, timestamp_ns)
        self.records += 1
        self.bytes = self._before + self._segment.bytes

    def close(self) -> None:
        """As `LogWriter.close`."""
        self._closed = True
        self._segment.close()
        self.bytes = self._before + self._segment.bytes

    def __enter__(self) -> SegmentedLogWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> None:
        self._segment, self._begun = self._make(self.segments), time.monotonic()
        self.segments += 1


class SegmentedLog(LogReader):
    """A `LogReader` over all files of a recording; its records' `sequence` counts on from file to file.

    Segments missing at the beginning were deleted on purpose. One that is missing between others, or was cut off although another
    follows, counts as damage.
    """

    def __init__(self, path: Path, files: list[LogReader], allow_damaged: bool = False) -> None:
        recordings = {file.metadata.get("recording", "") for file in files}
        if len(recordings) > 1 or "" in recordings:
            raise LogError(f"{path} holds several logs that are not segments of one; give each of them alone")
        self._groups: dict[int, list[LogReader]] = {}
        for file in files:
            number = file.metadata.get("segment", "")
            if not re.fullmatch(r"\d{1,9}", number):
                raise LogError(f"{file.path} does not say which segment it is; its metadata are damaged")
            self._groups.setdefault(int(number), []).append(file)
        numbers = sorted(self._groups)
        first = self._groups[numbers[0]][0]
        super().__init__(path, first.metadata, {}, allow_damaged)
        other = next((file for file in files if (file.bundle_digest, file.live) != (first.bundle_digest, first.live)), None)
        if other is not None:
            raise LogError(f"{other.path} is of another bundle than {first.path}, although of one recording; its metadata are damaged")
        anchors = {anchor for file in files for anchor in file.anchors}
        self.anchors = tuple(sorted(anchors, key=lambda anchor: anchor.monotonic_ns))
        self._absent = [n for a, b in itertools.pairwise(numbers) for n in range(a + 1, min(b, a + 1000))]

    @property
    def size(self) -> int:
        return sum(file.size for files in self._groups.values() for file in files)

    @property
    def missing(self) -> int:
        return self._missing

    def __iter__(self) -> Iterator[LogRecord]:
        met = self._reset()
        self.truncated, self._missing = True, 0
        self._met.damaged += [f"segment {number} is missing" for number in self._absent]
        base, last = 0, max(self._groups)
        for number, files in sorted(self._groups.items()):
            previous = -1
            for record in heapq.merge(*files, key=lambda r: r.sequence) if len(files) > 1 else files[0]:
                if record.sequence == previous:
                    self._met.damaged.append(f"record {previous} of segment {number} is there twice")
                    continue
                self._missing += max(0, record.sequence - previous - 1)
                previous = record.sequence
                self._met.records += 1
                yield replace(record, sequence=base + record.sequence)
                self._check_alone(met)
            base += previous + 1
            for file in files:
                self._take(file, number, last=number == last)
        self.truncated = any(file.truncated or file.goes_on for file in self._groups[last])
        self._end()

    def _take(self, file: LogReader, number: int, last: bool) -> None:
        self.channels |= file.channels
        self._met.damaged += [f"segment {number}: {text}" for text in file.damages]
        self._met.strays += file.strays
        self._met.foreign.update(file.foreign)
        if file.truncated and not last:
            self._met.damaged.append(f"segment {number} is cut off")


def begun_paths(folder: Path) -> list[Path]:
    """`segment_paths` of a folder, or of where a run's folder has them, for readers. Raises `LogError`.

    Without a last one that has no byte yet: its writer was killed, or is looked at, as it begins.
    """
    paths = segment_paths(folder)
    if not paths and (folder / SEGMENTS).is_dir():
        paths = segment_paths(folder / SEGMENTS)
    return paths[:-1] if len(paths) > 1 and paths[-1].stat().st_size == 0 else paths


def segment_paths(folder: Path) -> list[Path]:
    """The logs in a folder, by name; none of its hidden files. Raises `LogError` where it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".mcap" and not path.name.startswith(".") and path.is_file())
    except OSError as e:
        raise LogError(f"{folder} cannot be read: {e.strerror}") from e


__all__ = ["SegmentLimits", "SegmentedLog", "SegmentedLogWriter", "begun_paths", "segment_paths"]
