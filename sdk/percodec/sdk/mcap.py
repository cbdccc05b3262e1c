"""The few MCAP records a packet log is made of (mcap.dev specification, format version 0), as bytes. Chunks are read by `log.records`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, METADATA, METADATA_INDEX, DATA_END = 1, 2, 3, 4, 5, 6, 0x0B, 0x0C, 0x0D, 0x0F
PRIVATE = 0x80  # opcodes from here on are an application's own
PREFIX = struct.Struct("<BQ")  # opcode, bytes of content
END_BYTES = PREFIX.size + 20 + len(MAGIC)  # Footer and magic
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _map(values: Mapping[str, str]) -> bytes:
    data = b"".join(_text(k) + _text(v) for k, v in values.items())
    return struct.pack("<I", len(data)) + data


def record(opcode: int, content: bytes) -> bytes:
    """One record: opcode, length, content."""
    return PREFIX.pack(opcode, len(content)) + content


def message(sequence: int, time_ns: int, data: bytes) -> bytes:
    """A Message record of channel 1; log time and publish time are the frame's."""
    head = MESSAGE_HEAD.pack(1, sequence & 0xFFFFFFFF, time_ns, time_ns)
    return b"".join((PREFIX.pack(MESSAGE, len(head) + len(data)), head, data))


def opening(library: str, topic: str, schema: str, description: bytes, encoding: str, metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """Everything before the first message, and the offset of the Metadata record named "percodec" in it."""
    head = MAGIC + record(HEADER, _text("") + _text(library))
    return head + metadata_record("percodec", metadata) + _definitions(topic, schema, description, encoding), len(head)


def metadata_record(name: str, values: Mapping[str, str]) -> bytes:
    """A Metadata record."""
    return record(METADATA, _text(name) + _map(values))


def _definitions(topic: str, schema: str, description: bytes, encoding: str) -> bytes:
    kind = struct.pack("<H", 1) + _text(schema) + _text("text") + struct.pack("<I", len(description)) + description
    channel = struct.pack("<HH", 1, 1) + _text(topic) + _text(encoding) + _map({})
    return record(SCHEMA, kind) + record(CHANNEL, channel)


def closing(
    offset: int,
    data_crc: int,
    definitions: tuple[str, str, bytes, str],
    metadata: Sequence[tuple[str, int, int]],
    count: int,
    times: tuple[int, int],
) -> bytes:
    """DataEnd, summary, Footer and magic for a file that is `offset` bytes long so far.

    `metadata`: name, offset and whole length of each Metadata record; `times`: first and last message time.
    """
    end = record(DATA_END, struct.pack("<I", data_crc))
    counts = struct.pack("<IHQ", 10, 1, count)
    statistics = struct.pack("<QHIIIIQQ", count, 1, 1, 0, len(metadata), 0, *times) + counts
    summary = _definitions(*definitions) + record(STATISTICS, statistics)
    for name, at, size in metadata:
        summary += record(METADATA_INDEX, struct.pack("<QQ", at, size) + _text(name))
    footer = PREFIX.pack(FOOTER, 20) + struct.pack("<QQ", offset + len(end), 0)
    crc = zlib.crc32(footer, zlib.crc32(summary))
    return end + summary + footer + struct.pack("<I", crc) + MAGIC


def summary_from(end: bytes) -> int | None:
    """Where the summary begins, from the last `END_BYTES` of a file; None where they are no Footer and magic, or there is no summary."""
    if len(end) < END_BYTES or end[-len(MAGIC) :] != MAGIC or PREFIX.unpack_from(end) != (FOOTER, 20):
        return None
    return int.from_bytes(end[PREFIX.size : PREFIX.size + 8], "little") or None


def metadata_index_from(content: bytes) -> tuple[str, int]:
    """Name and offset of the Metadata record that a Metadata Index record points to. Raises ValueError on content that is none."""
    try:
        at, _ = struct.unpack_from("<QQ", content)
        return _read_text(content, 16)[0], at
    except (struct.error, UnicodeDecodeError) as e:
        raise ValueError(str(e)) from e


def schema_from(content: bytes) -> tuple[int, str]:
    """Number and name of a Schema record. Raises ValueError on content that is none."""
    try:
        (number,) = struct.unpack_from("<H", content)
        return number, _read_text(content, 2)[0]
    except (struct.error, UnicodeDecodeError) as e:
        raise ValueError(str(e)) from e


def channel_from(content: bytes) -> tuple[int, int, str, str]:
    """Number, number of the schema, topic and message encoding of a Channel record. Raises ValueError on content that is none."""
    try:
        number, schema = struct.unpack_from("<HH", content)
        topic, at = _read_text(content, 4)
        return number, schema, topic, _read_text(content, at)[0]
    except (struct.error, UnicodeDecodeError) as e:
        raise ValueError(str(e)) from e


def metadata_from(content: bytes) -> tuple[str, dict[str, str]]:
    """Name and map of a Metadata record. Raises ValueError on content that is none."""
    try:
        name, at = _read_text(content, 0)
        (size,) = struct.unpack_from("<I", content, at)
        at += 4
        end = at + size
        values = {}
        while at < end:
            key, at = _read_text(content, at)
            values[key], at = _read_text(content, at)
    except (struct.error, UnicodeDecodeError) as e:
        raise ValueError(str(e)) from e
    return name, values


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<I", data, at)
    if at + 4 + size > len(data):
        raise ValueError("text reaches past the record")
    return data[at + 4 : at + 4 + size].decode(), at + 4 + size


__all__ = [
    "channel_from",
    "closing",
    "message",
    "metadata_from",
    "metadata_index_from",
    "metadata_record",
    "opening",
    "record",
    "schema_from",
    "summary_from",
]
