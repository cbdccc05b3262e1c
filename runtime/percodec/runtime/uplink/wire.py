"""What goes over the link: records of the vehicle's log one way, what is stored the other way. UPLINK.md has the layout."""

from __future__ import annotations

import functools
import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from percodec.runtime.uplink.ranges import RecordSet
from percodec.sdk.errors import UplinkError
from percodec.sdk.text import printable, shown

MAX_MESSAGE_BYTES = 1_000_000  # NATS takes 1 MiB unless told otherwise
BUNDLE_BYTES = 120_000  # several packets together; brokers in clouds take 128 KiB
MAX_SEGMENTS = 512
MAX_METADATA_BYTES = 1 << 16  # of one segment
_MAGIC, _VERSION = b"PCUP", 1
_HEAD = struct.Struct("<4sBI")  # magic, version, bytes of packed JSON
_RECORD = struct.Struct("<HIQI")  # index of segment, sequence, time in ns, bytes of packet
_CRC = struct.Struct("<I")
_MAX_JSON = 1 << 20
OVERHEAD = _RECORD.size


@dataclass(frozen=True, order=True)
class SegmentId:
    """One file of a segmented log: `recording` is 16 hexadecimal digits, `number` counts the recording's files."""

    recording: str
    number: int

    def __str__(self) -> str:
        return f"{self.recording}/{self.number}"

    @classmethod
    def from_text(cls, text: str) -> SegmentId:
        """Raises ValueError."""
        match = re.fullmatch(r"([0-9a-f]{16})/(\d{1,9})", text)
        if not match:
            raise ValueError(f"{text[:60]!r} names no segment")
        return cls(match[1], int(match[2]))


@dataclass(frozen=True)
class Record:
    """One packet, as the log holds it. `segment`: index into the message's segments."""

    segment: int
    sequence: int
    timestamp_ns: int
    packet: bytes


@dataclass(frozen=True)
class Message:
    """From the vehicle. `segments`: metadata of their logs. `ask`: a number to answer, with what is stored of `asked`; None for none."""

    segments: tuple[Mapping[str, str], ...] = ()
    records: tuple[Record, ...] = ()
    ask: int | None = None
    asked: tuple[SegmentId, ...] = ()

    def segment_id(self, record: Record) -> SegmentId:
        return segment_id(self.segments[record.segment])


def segment_id(metadata: Mapping[str, str]) -> SegmentId:
    """Of a log's metadata. Raises ValueError where it is no segment's."""
    return SegmentId.from_text(f"{metadata.get('recording', '')}/{metadata.get('segment', '')}")


def packed(message: Message) -> bytes:
    """The bytes of a message."""
    if message.ask is None:
        words = _head_of(tuple(tuple(one.items()) for one in message.segments))
    else:
        head = {"segments": message.segments, "ask": message.ask, "asked": [str(one) for one in message.asked]}
        words = zlib.compress(json.dumps(head).encode(), 1)
    parts = [_HEAD.pack(_MAGIC, _VERSION, len(words)), words]
    for record in message.records:
        parts += [_RECORD.pack(record.segment, record.sequence, record.timestamp_ns, len(record.packet)), record.packet]
    body = b"".join(parts)
    return body + _CRC.pack(zlib.crc32(body))


@functools.lru_cache(64)
def _head_of(segments: tuple[tuple[tuple[str, str], ...], ...]) -> bytes:
    return zlib.compress(json.dumps({"segments": [dict(one) for one in segments]}).encode(), 1)


def unpacked(data: bytes) -> Message:
    """Raises `UplinkError` for anything that `packed` does not write; nothing larger than the message is made of it."""
    try:
        return _unpacked(data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error, zlib.error, RecursionError) as error:
        raise UplinkError(f"a message of {len(data)} bytes is none of an uplink's: {str(error)[:200]}") from error


def _unpacked(data: bytes) -> Message:
    if len(data) > MAX_MESSAGE_BYTES or len(data) < _HEAD.size + _CRC.size:
        raise ValueError("too short or too long")
    magic, version, size = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(f"begins with {data[:5]!r}")
    if zlib.crc32(data[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise ValueError("its checksum differs")
    at, end = _HEAD.size + size, len(data) - _CRC.size
    unpacker = zlib.decompressobj()
    words = unpacker.decompress(data[_HEAD.size : min(at, end)], _MAX_JSON)
    if not unpacker.eof:
        raise ValueError("its head is cut off or too large")
    head = json.loads(words)
    segments = tuple(_metadata(one) for one in head["segments"])
    asked = tuple(SegmentId.from_text(str(one)) for one in head.get("asked", ()))
    if len(segments) > MAX_SEGMENTS or len(asked) > MAX_SEGMENTS:
        raise ValueError(f"more than {MAX_SEGMENTS} segments")
    records = []
    while at < end:
        index, sequence, timestamp_ns, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if index >= len(segments) or at + length > end:
            raise ValueError("a record reaches past the end, or is of no segment")
        records.append(Record(index, sequence, timestamp_ns, data[at : at + length]))
        at += length
    return Message(segments, tuple(records), None if head.get("ask") is None else int(head["ask"]), asked)


def _metadata(found: Any) -> dict[str, str]:
    """Texts that a log can hold. What one vehicle sends here must not stop the archive of all."""
    metadata = {str(key): str(value) for key, value in found.items()}
    if sum(len(text.encode()) for item in metadata.items() for text in item) > MAX_METADATA_BYTES:  # ValueError for half a surrogate pair
        raise ValueError("metadata are too large")
    segment_id(metadata)
    return metadata


@dataclass(frozen=True)
class Stored:
    """From the archive: `records` are on its disk. `answer`: the number of the question that this answers, None for news. `note`: what a
    person should know, "" for nothing.
    """

    records: Mapping[SegmentId, RecordSet]
    answer: int | None = None
    note: str = ""


def packed_stored(stored: Stored) -> list[bytes]:
    """As messages: a long one is sent in parts, the answer's number with the last."""
    texts, parts = [(str(one), found.ranges) for one, found in stored.records.items()], []
    pieces = [(name, ranges[k : k + 2000]) for name, ranges in texts for k in range(0, max(1, len(ranges)), 2000)]
    for k in range(0, max(1, len(pieces)), 20):
        last = k + 20 >= len(pieces)
        found: dict[str, list[list[int]]] = {}
        for name, ranges in pieces[k : k + 20]:
            found.setdefault(name, []).extend(ranges)
        parts.append(json.dumps({"stored": found, "answer": stored.answer if last else None, "note": stored.note}).encode())
    return parts


def stored_from(data: bytes) -> Stored:
    """Raises `UplinkError`."""
    try:
        head = json.loads(data)
        found = {SegmentId.from_text(name): RecordSet(_checked(ranges)) for name, ranges in head["stored"].items()}
        return Stored(found, None if head.get("answer") is None else int(head["answer"]), printable(shown(str(head.get("note", ""))[:300])))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UplinkError(f"a watermark of {len(data)} bytes is none of an archive's: {str(error)[:200]}") from error


def _checked(ranges: Any) -> Sequence[tuple[int, int]]:
    found = [(int(first), int(end)) for first, end in ranges]
    if any(not 0 <= first < end <= 1 << 32 for first, end in found):
        raise ValueError("ranges that are none")
    return found


__all__ = [
    "BUNDLE_BYTES", "MAX_MESSAGE_BYTES", "MAX_SEGMENTS", "OVERHEAD", "Message", "Record", "SegmentId", "Stored", "packed", "packed_stored",
    "segment_id", "stored_from", "unpacked",
]  # fmt: skip
