"""Whether a TIFF holds further pictures beside its first."""

from __future__ import annotations

import struct

_KIND, _SMALLER = 254, 1  # NewSubfileType: a smaller copy of another picture, which is no page
_MOST = 64


def has_more_pages(data: bytes) -> bool:
    """False for what is no TIFF, and for one whose other pictures are smaller copies of the first."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return False
    seen: set[int] = set()
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        while at and at not in seen and len(seen) < _MOST:
            if seen and not _entry(data, order, at) & _SMALLER:
                return True
            seen.add(at)
            (count,) = struct.unpack_from(order + "H", data, at)
            (at,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    except struct.error:
        pass
    return False


def _entry(data: bytes, order: str, at: int) -> int:
    """The value of NewSubfileType in a directory, 0 where it has none."""
    (count,) = struct.unpack_from(order + "H", data, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(order + "HHII", data, place)
        if tag == _KIND:
            return int(value)
    return 0


__all__ = ["has_more_pages"]
