"""A whole log as bytes, for whoever keeps logs in an object store."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from percodec.sdk import mcap
from percodec.sdk.errors import LogError
from percodec.sdk.log.names import ENCODING, OPENED, SCHEMA, TOPIC
from percodec.sdk.log.writer import DESCRIPTION

_DEFINITIONS = (TOPIC, SCHEMA, DESCRIPTION, ENCODING)


def whole_log(metadata: Mapping[str, str], records: Sequence[tuple[int, int, bytes]]) -> tuple[bytes, dict[int, int]]:
    """A closed log of (sequence, time in ns, packet), and the offset of each packet in it, by sequence.

    `metadata` are those of the log that the packets come from.
    """
    head, at = mcap.opening(f"percodec {metadata.get('percodec', '')}", *_DEFINITIONS, metadata)
    opened = (OPENED, at, mcap.PREFIX.size + int.from_bytes(head[at + 1 : at + 9], "little"))
    parts, size, places = [head], len(head), {}
    for sequence, time_ns, packet in records:
        message = mcap.message(sequence, time_ns, packet)
        parts.append(message)
        size += len(message)
        places[sequence] = size - len(packet)
    data = b"".join(parts)
    times = [time_ns for _, time_ns, _ in records]
    span = (min(times), max(times)) if times else (0, 0)
    return data + mcap.closing(size, zlib.crc32(data), _DEFINITIONS, (opened,), len(records), span), places


def records_of(data: bytes, head_only: bool = False) -> tuple[dict[str, str], list[tuple[int, int, bytes, int]]]:
    """Metadata, and (sequence, time in ns, packet, offset of packet) of each record of a log that `whole_log` made.

    `head_only`: the metadata alone, for which the log's beginning is enough. Raises `LogError`.
    """
    metadata: dict[str, str] | None = None
    records = []
    at = len(mcap.MAGIC)
    while at + mcap.PREFIX.size <= len(data):
        opcode, length = mcap.PREFIX.unpack_from(data, at)
        at += mcap.PREFIX.size
        if at + length > len(data):
            break
        if opcode == mcap.METADATA and metadata is None:
            try:
                _, metadata = mcap.metadata_from(data[at : at + length])
            except ValueError as error:
                raise LogError(f"a log's metadata cannot be read: {error}") from error
            if head_only:
                return metadata, []
        elif opcode == mcap.MESSAGE and length >= mcap.MESSAGE_HEAD.size:
            _, sequence, _, time_ns = mcap.MESSAGE_HEAD.unpack_from(data, at)
            records.append((sequence, time_ns, data[at + mcap.MESSAGE_HEAD.size : at + length], at + mcap.MESSAGE_HEAD.size))
        at += length
    if metadata is None:
        raise LogError("these bytes are no log: they hold no metadata")
    return metadata, records


__all__ = ["records_of", "whole_log"]
