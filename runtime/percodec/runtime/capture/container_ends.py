"""How FLV and Ogg files end: chains of tags and of pages, each of which says its own length.

A file that was cut between two of them looks whole. Ogg marks the last page of a stream, but recorders that were stopped may not have.
"""

from __future__ import annotations

import enum
import mmap
import struct

_FLV_TAGS = frozenset((8, 9, 18))  # sound, pictures, script


class End(enum.Enum):
    """What a chain tells: that it goes to the end, stops within a link, or breaks off before others."""

    WHOLE = enum.auto()
    CUT = enum.auto()
    BROKEN = enum.auto()


def flv_end(data: mmap.mmap) -> End:
    """Of an FLV file. What follows a last tag and is none itself is somebody else's."""
    at, size = int(struct.unpack_from(">I", data, 5)[0]) + 4, len(data)
    while at + 11 <= size and data[at] & 0x1F in _FLV_TAGS:
        end = at + 11 + int.from_bytes(data[at + 1 : at + 4], "big")
        if end + 4 > size:
            return End.CUT
        if struct.unpack_from(">I", data, end)[0] not in (end - at, 0):
            return End.BROKEN
        at = end + 4
    if at < size and size - at < 11 and data[at] & 0x1F in _FLV_TAGS:
        return End.CUT
    return End.BROKEN if at + 4096 < size else End.WHOLE


def ogg_end(data: mmap.mmap) -> End:
    """Of an Ogg file: pages that follow one another without a gap in their numbers, to the last."""
    at, size, numbers = 0, len(data), dict[int, int]()
    while at < size:
        if data[at : at + 4] != b"OggS"[: size - at]:
            return End.BROKEN if data.find(b"OggS", at) >= 0 else End.WHOLE
        if at + 27 > size or at + 27 + data[at + 26] > size:
            return End.CUT
        stream, number = struct.unpack_from("<II", data, at + 14)
        if stream in numbers and number != (numbers[stream] + 1) & 0xFFFFFFFF:
            return End.BROKEN
        numbers[stream] = number
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    return End.CUT if at > size else End.WHOLE


__all__ = ["End", "flv_end", "ogg_end"]
