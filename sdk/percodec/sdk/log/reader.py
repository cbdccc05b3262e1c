"""Reading a log, whoever wrote the file last: percodec, a killed percodec, or a tool that packed, merged, cut or split it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from percodec.sdk import mcap
from percodec.sdk.clock import ClockAnchor, utc_ns_from_monotonic
from percodec.sdk.codec import PacketHeader, parse_header
from percodec.sdk.errors import LogError, PacketError
from percodec.sdk.log.names import CLOSED, ENCODING, OPENED
from percodec.sdk.log.records import Records, Window, framed


@dataclass(frozen=True)
class LogRecord:
    """One logged packet; `timestamp_ns` is its message's publish time, `sequence` counts the log's records from 0."""

    packet: bytes
    frame_id: int
    timestamp_ns: int
    sequence: int
    log_time_ns: int


@dataclass(frozen=True)
class LogChannel:
    """How an MCAP file declares a channel."""

    topic: str
    schema: str
    encoding: str


@dataclass
class _Sequences:
    """The sequence numbers of one channel."""

    first: int
    last: int
    count: int = 1
    rising: bool = True

    def add(self, number: int) -> None:
        self.rising &= number > self.last
        self.last, self.count = number, self.count + 1

    @property
    def missing(self) -> int:
        return self.last - self.first + 1 - self.count if self.rising else 0


@dataclass
class _Tally:
    """What one iteration met beside good records."""

    records: int = 0
    damaged: list[str] = field(default_factory=list)
    strays: int = 0
    foreign: Counter[str] = field(default_factory=Counter)
    sequences: dict[int, _Sequences] = field(default_factory=dict)
    stream_channels: dict[int, int] = field(default_factory=dict)


class LogReader:
    """Iterates the records of a log, as often as wanted, one in memory at a time.

    `live`: timestamps are of the monotonic clock of the machine that wrote it; media time otherwise. `anchors`: that clock and UTC, as the
    log was begun and, where it was, closed; older logs have none.

    After an iteration:

    - `truncated`: the file has no proper end (a killed writer), or the last of these segments was not the last of the log;
    - `damaged`: records left out because they or their packet fail a check; 1 when nothing had to be left out but the checksum over the
      whole file, which a closed log has, differs: then a time, sequence number or anchor may be wrong;
    - `missing`: records that are not there although their neighbours are, by the sequence numbers;
    - `strays`: packets that were read although their channel is not declared as one of packets;
    - `channels`: the declared channels of packets, `foreign`: messages of other topics, by topic.

    An iteration that met damaged, missing or stray records ends in a `LogError` after the last good one, unless `allow_damaged`. One that
    goes on after another has begun ends in a `LogError` as well: open the log again for a second one beside it.
    """

    def __init__(self, path: Path, metadata: dict[str, str], closed: dict[str, str], allow_damaged: bool = False) -> None:
        self.path = path
        self.metadata = metadata
        self.bundle_name = metadata.get("bundle_name", "")
        self.bundle_digest = metadata.get("bundle_digest", "")
        self.live = metadata.get("clock") == "monotonic"
        self.anchors = tuple(a for a in (ClockAnchor.from_texts(metadata), ClockAnchor.from_texts(closed)) if a)
        self.goes_on = closed.get("last") == "no"  # in another segment
        self.truncated = False
        self.channels: dict[int, LogChannel] = {}
        self._allow_damaged = allow_damaged
        self._met = _Tally()

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size

    @property
    def damaged(self) -> int:
        return len(self._met.damaged)

    @property
    def damages(self) -> list[str]:
        """What was wrong with each of the damaged records."""
        return list(self._met.damaged)

    @property
    def missing(self) -> int:
        return sum(sequences.missing for sequences in self._met.sequences.values())

    @property
    def strays(self) -> int:
        return self._met.strays

    @property
    def foreign(self) -> dict[str, int]:
        return dict(self._met.foreign)

    def utc_ns_of(self, timestamp_ns: int) -> int | None:
        """When that was, in ns since 1970 by the clock of the machine that wrote the log; None where the log cannot tell.

        It cannot where timestamps are media time (a file's frames; `live` is False), and where it has no anchors. Between the anchors the
        difference of the clocks is interpolated, outside the nearest one holds. A clock that was set in between shows as
        `anchors` whose differences differ: then times between them are wrong by up to that.
        """
        return utc_ns_from_monotonic(timestamp_ns, self.anchors) if self.live and self.anchors else None

    def complaint(self) -> str:
        """What the last iteration missed, for one line; "" where it missed nothing."""
        met, parts = self._met, []
        if met.damaged:
            several = "1 damaged record" if len(met.damaged) == 1 else f"{len(met.damaged)} damaged records, first"
            parts.append(f"{several}: {met.damaged[0]}")
        if self.missing:
            parts.append(f"{self.missing} missing by the sequence numbers")
        if met.strays:
            parts.append(f"{met.strays} packets are on channels that are not declared as channels of packets")
        elif not self.channels and not self.truncated:
            others = f"; its topics: {', '.join(sorted(met.foreign))}" if met.foreign else ""
            parts.append(f"no channel of packets is declared{others}")
        return "; ".join(parts)

    def __iter__(self) -> Iterator[LogRecord]:
        met = self._reset()
        self.truncated = True
        with open_log(self.path) as file:
            records = Records(file)
            try:
                for record in self._packets(records):
                    yield record
                    self._check_alone(met)
            except LogError as error:
                raise LogError(f"{self.path}: {error}") from error
        self.truncated = not records.whole
        self._met.damaged += records.faults
        if not records.agrees and not self._met.damaged:
            self._met.damaged.append("the checksum over the whole file differs")
        self._end()

    def _reset(self) -> _Tally:
        self.channels, self._met = {}, _Tally()
        return self._met

    def _check_alone(self, met: _Tally) -> None:
        if self._met is not met:
            raise LogError(f"another iteration over {self.path.name} has begun; open the log again for a second one")

    def _end(self) -> None:
        missed = "" if self._allow_damaged else self.complaint()
        if missed:
            raise LogError(f"{self.path}: {missed}; the other {self._met.records} records were read. allow_damaged takes them without this")

    def _packets(self, records: Records) -> Iterator[LogRecord]:
        schemas: dict[int, str] = {}
        declared: dict[int, LogChannel] = {}
        met, headers = self._met, 0
        for opcode, content in records:
            try:
                if opcode == mcap.MESSAGE:
                    record = self._packet_of(content, declared)
                    if record is not None:
                        met.records += 1
                        yield record
                elif opcode == mcap.SCHEMA:
                    number, name = mcap.schema_from(content)
                    if schemas.setdefault(number, name) != name:
                        raise ValueError(f"schema {number} is declared twice, as {schemas[number]} and {name}")
                elif opcode == mcap.CHANNEL:
                    number, schema, topic, encoding = mcap.channel_from(content)
                    channel = LogChannel(topic, schemas.get(schema, ""), encoding)
                    if declared.setdefault(number, channel) != channel:
                        raise ValueError(f"channel {number} is declared twice, for {declared[number].topic} and {topic}")
                    if encoding == ENCODING:
                        self.channels[number] = channel
                elif opcode == mcap.METADATA:
                    name, values = mcap.metadata_from(content)
                    if name == OPENED and values != self.metadata:
                        raise LogError("was merged from several logs; give each of them alone")
                else:
                    headers += 1
                    if headers > 1:
                        raise ValueError("a second header")
            except ValueError as error:
                met.damaged.append(str(error))

    def _packet_of(self, content: bytes, declared: dict[int, LogChannel]) -> LogRecord | None:
        """None for a message of another topic. Raises ValueError where it is damaged, `LogError` where two logs were merged."""
        if len(content) < mcap.MESSAGE_HEAD.size:
            raise ValueError("a message without a head")
        number, sequence, log_time_ns, timestamp_ns = mcap.MESSAGE_HEAD.unpack_from(content)
        ours, met = number in self.channels, self._met
        if ours:
            if number in met.sequences:
                met.sequences[number].add(sequence)
            else:
                met.sequences[number] = _Sequences(sequence, sequence)
        header = _packet_header(content, ours or number not in declared)
        if header is None:
            met.foreign[declared[number].topic] += 1
            return None
        if not ours:
            met.strays += 1
        elif met.stream_channels.setdefault(header.stream_id, number) != number:
            raise LogError(f"packets of stream {header.stream_id} come on two channels: logs were merged; give each of them alone")
        return LogRecord(content[mcap.MESSAGE_HEAD.size :], header.frame_id, timestamp_ns, sequence, log_time_ns)


def _packet_header(content: bytes, expected: bool) -> PacketHeader | None:
    """Of the packet in a message; None where there is none and none was `expected`. Raises ValueError."""
    try:
        return parse_header(content[mcap.MESSAGE_HEAD.size :])
    except PacketError as error:
        if expected:
            raise ValueError(str(error)) from error
        return None


def read_log_file(path: Path, *, allow_damaged: bool = False) -> LogReader:
    """As `read_log`, for a log that is one file."""
    with open_log(path) as file:
        if file.read(len(mcap.MAGIC)) != mcap.MAGIC:
            raise LogError(f"{path} is not an MCAP file; give a log written by percodec")
        size = file.seek(0, os.SEEK_END)
        broken, topics, met = "", [], False
        for opcode, at in _outline(file, size):
            file.seek(at)
            if opcode == mcap.METADATA:
                _, window = next(framed(Window(file, size - at)))
                try:
                    name, values = mcap.metadata_from(window.read(window.left if window.left < _MOST_METADATA else 0))
                except ValueError as e:
                    broken = broken or str(e)
                    continue
                if name == OPENED:
                    return LogReader(path, values, _closed(file, size), allow_damaged)
            met |= opcode in (mcap.MESSAGE, mcap.CHUNK, mcap.FOOTER)
            if opcode == mcap.CHANNEL:
                topics += _packet_topics(file, at, size)
    if broken:
        raise LogError(f"{path}: its metadata cannot be read ({broken}); the file is damaged at its beginning")
    if topics:
        raise LogError(
            f"{path} has percodec's packets on {topics[0]}, but no metadata of percodec, which say whose they are; "
            "make it again with metadata kept"
        )
    if met:
        raise LogError(f"{path} is an MCAP file without percodec's metadata; give a log written by percodec")
    raise LogError(f"{path} is cut off or damaged before its first packet, nothing of it can be read; give another log written by percodec")


_MOST_METADATA = 1 << 20


def open_log(path: Path) -> BinaryIO:
    """The file, for reading. Raises `LogError` where it is none, or cannot be read."""
    try:
        if not path.is_file():
            raise LogError(f"{path} is not a file; give a log written by percodec" if path.exists() else f"{path} does not exist")
        return path.open("rb")
    except (OSError, ValueError) as e:
        raise LogError(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}") from e


def _outline(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """(opcode, where it begins) of every record outside chunks, without reading their contents; ends where there is none."""
    at = len(mcap.MAGIC)
    while at + mcap.PREFIX.size <= size:
        file.seek(at)
        opcode, length = mcap.PREFIX.unpack(file.read(mcap.PREFIX.size))
        if not (1 <= opcode <= mcap.DATA_END or opcode >= mcap.PRIVATE) or at + mcap.PREFIX.size + length > size:
            return
        yield opcode, at
        if opcode == mcap.FOOTER:
            return
        at += mcap.PREFIX.size + length


def _packet_topics(file: BinaryIO, at: int, size: int) -> list[str]:
    _, window = next(framed(Window(file, size - at)))
    try:
        _, _, topic, encoding = mcap.channel_from(window.read(min(window.left, _MOST_METADATA)))
    except ValueError:
        return []
    return [topic] if encoding == ENCODING else []


def _closed(file: BinaryIO, size: int) -> dict[str, str]:
    """What a log says as it is closed, found through its summary; nothing where there is none of it."""
    file.seek(max(0, size - mcap.END_BYTES))
    summary = mcap.summary_from(file.read(mcap.END_BYTES))
    if summary is None or summary >= size:
        return {}
    file.seek(summary)
    try:
        for opcode, content in framed(Window(file, size - summary)):
            if opcode != mcap.METADATA_INDEX:
                continue
            name, at = mcap.metadata_index_from(content.read(_MOST_METADATA))
            if name == CLOSED and at < size:
                file.seek(at)
                opcode, content = next(framed(Window(file, size - at)))
                found, values = mcap.metadata_from(content.read(_MOST_METADATA))
                return values if (opcode, found) == (mcap.METADATA, CLOSED) else {}
    except (ValueError, StopIteration):
        pass
    return {}


__all__ = ["LogChannel", "LogReader", "LogRecord", "open_log", "read_log_file"]
