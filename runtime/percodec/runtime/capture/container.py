"""Whether a video file is whole, by its own structure: sizes of boxes, chunks and elements, counters of packets.

A container's frame count proves nothing alone: it may be a guess from the duration of the longest track. `container_is_cut` is evidence by
itself; damage is looked for where frames are missing.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from percodec.runtime.capture.container_ends import End, flv_end, ogg_end
from percodec.sdk.errors import SourceError

_TRACKS, _TRACK, _TRACK_TYPE = 0x1654AE6B, 0xAE, 0x83
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_IN_SEGMENT = frozenset((0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, _CLUSTER, 0xEC, 0xBF))
_IN_CLUSTER = frozenset((0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xEC, 0xBF, 0x5854, 0xAF))
_MP4_BOXES = frozenset(b"ftyp styp moov moof mdat mfra free skip wide uuid meta sidx ssix pdin emsg prft udta pnot PICT".split())
_TS, _TS_SYNC = 188, 0x47


def container_is_cut(path: Path) -> bool:
    """True when the file ends inside an MP4/MOV box, AVI chunk, Matroska segment, MPEG-TS packet, FLV tag or Ogg page. Cheap."""
    kinds: dict[str, Callable[[mmap.mmap], bool]] = {
        "riff": _riff_is_cut, "mp4": _mp4_is_cut, "matroska": _matroska_is_cut, "ts": _transport_stream_is_cut,
        "flv": lambda data: flv_end(data) is End.CUT, "ogg": lambda data: ogg_end(data) is End.CUT,
    }  # fmt: skip
    return _asked(path, lambda kind, data: kinds[kind](data))


def tracks_of_pictures(path: Path) -> int:
    """How many an MP4/MOV or Matroska file holds: of several, as recorders with two cameras write them, one is read. 1 for other files."""
    counted: list[int] = []

    def count(kind: str, data: mmap.mmap) -> bool:
        if kind in ("mp4", "matroska"):
            counted.append(_mp4_tracks(data) if kind == "mp4" else _matroska_tracks(data))
        return True

    _asked(path, count)
    return max([1, *counted])


def container_is_damaged(path: Path, last_s: float, frame_s: float, missing: int) -> bool:
    """For a whole file whose frame count was not reached: True when something in it is broken or missing. Reads all of it.

    `last_s`: the time of the last frame that was decoded, since the first; `frame_s`: how long a frame stands; `missing`: how many are.
    """

    def examine(kind: str, data: mmap.mmap) -> bool:
        if kind == "mp4":
            duration_s = _mp4_duration(data)
            return duration_s is not None and last_s + max(3 * frame_s, duration_s / 50) < duration_s
        if kind in ("flv", "ogg"):
            return {"flv": flv_end, "ogg": ogg_end}[kind](data) is not End.WHOLE
        if kind == "riff":
            return _avi_promises(data) and missing > _avi_empty_chunks(data)
        return {"matroska": _matroska_is_broken, "ts": _transport_stream_is_broken}[kind](data)

    return _asked(path, examine)


def _asked(path: Path, question: Callable[[str, mmap.mmap], bool]) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            kind = _kind(data)
            return kind is not None and question(kind, data)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except (ValueError, LookupError, struct.error):  # no sense in it, or an end before the end
        return True


def _kind(data: mmap.mmap) -> str | None:
    if data[:4] == b"RIFF":
        return "riff"
    if data[4:8] == b"ftyp":
        return "mp4"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[:4] == b"FLV\1":
        return "flv"
    if data[:4] == b"OggS":
        return "ogg"
    return "ts" if data[:1] == b"G" == data[_TS : _TS + 1] else None


def _riff_is_cut(data: mmap.mmap) -> bool:
    at = 0
    while data[at : at + 4] == b"RIFF" and at + 8 <= len(data):
        size = int(struct.unpack_from("<I", data, at + 4)[0])
        if size in (0, 0xFFFFFFFF):  # written to a pipe
            return False
        at += 8 + size + size % 2
        if at - size % 2 > len(data):
            return True
    return False


def _avi_promises(data: mmap.mmap) -> bool:
    """True where the header was written after the last frame, and its frame count is one."""
    return struct.unpack_from("<I", data, 4)[0] not in (0, 0xFFFFFFFF)


def _avi_empty_chunks(data: mmap.mmap) -> int:
    """Pictures of no bytes: the one before stays. They are counted, but decoded to nothing."""
    at, empty = data.find(b"LIST"), 0
    while at >= 0 and at + 8 <= len(data):
        kind, size = data[at : at + 4], int(struct.unpack_from("<I", data, at + 4)[0])
        if kind in (b"LIST", b"RIFF"):
            at += 12  # what is in it follows
            continue
        empty += size == 0 and kind[2:] in (b"dc", b"db")
        at += 8 + size + size % 2
    return empty


def _mp4_is_cut(data: mmap.mmap) -> bool:
    at, seen, size = 0, set(), len(data)
    while at + 8 <= size:
        box, kind = int(struct.unpack_from(">I", data, at)[0]), data[at + 4 : at + 8]
        if kind not in _MP4_BOXES and b"mdat" in seen:
            return False  # something that others have put after the last box
        if box == 1 and at + 16 <= size:
            box = int(struct.unpack_from(">Q", data, at + 8)[0])
        elif box == 0:
            return False
        if box < 8 or at + box > size:
            return True
        seen.add(kind)
        at += box
    rest = data[at:]
    return not {b"moov", b"mdat"} <= seen or (b"moof" in seen and any(rest))


def _boxes(data: mmap.mmap, at: int, end: int) -> dict[bytes, list[tuple[int, int]]]:
    """Where the contents of the boxes in [at, end) begin and end."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    while at + 8 <= end:
        size, head = int(struct.unpack_from(">I", data, at)[0]), 8
        if size == 1:
            size, head = int(struct.unpack_from(">Q", data, at + 8)[0]), 16
        if size < head:
            break
        found.setdefault(data[at + 4 : at + 8], []).append((at + head, min(end, at + size)))
        at += size
    return found


def _mp4_tracks(data: mmap.mmap) -> int:
    found = 0
    for moov in _boxes(data, 0, len(data)).get(b"moov", []):
        for track in _boxes(data, *moov).get(b"trak", []):
            for media in _boxes(data, *track).get(b"mdia", []):
                found += any(data[at + 8 : at + 12] == b"vide" for at, _ in _boxes(data, *media).get(b"hdlr", []))
    return found


def _mp4_duration(data: mmap.mmap) -> float | None:
    """How long the first track of pictures is shown, in seconds, by its header; None where that says nothing (fragments)."""
    for moov in _boxes(data, 0, len(data)).get(b"moov", []):
        inside = _boxes(data, *moov)
        at = inside[b"mvhd"][0][0]
        scale = int(struct.unpack_from(">I", data, at + (20 if data[at] else 12))[0])
        for track in inside.get(b"trak", []):
            parts = _boxes(data, *track)
            media = _boxes(data, *parts[b"mdia"][0]) if b"mdia" in parts else {}
            if b"hdlr" not in media or data[media[b"hdlr"][0][0] + 8 : media[b"hdlr"][0][0] + 12] != b"vide":
                continue
            at = parts[b"tkhd"][0][0]
            long = data[at]
            ticks = int(struct.unpack_from(">Q" if long else ">I", data, at + (28 if long else 20))[0])
            return ticks / scale if scale and 0 < ticks < 0xFFFFFFFF else None
    return None


def _element(data: mmap.mmap, at: int) -> tuple[int, int, int | None]:
    """Of an EBML element: its id, where its content begins, and the content's size, None where unknown. Raises ValueError."""
    width = 9 - data[at].bit_length()
    if not 1 <= width <= 4:
        raise ValueError("no element")
    kind, at = int.from_bytes(data[at : at + width], "big"), at + width
    width = 9 - data[at].bit_length()
    if width > 8:
        raise ValueError("no size")
    mask = (1 << 7 * width) - 1
    size = int.from_bytes(data[at : at + width], "big") & mask
    return kind, at + width, None if size == mask else size


def _segment(data: mmap.mmap) -> tuple[int, int | None]:
    """Where the segment's content begins, and its size."""
    _, at, head = _element(data, 0)
    kind, at, size = _element(data, at + (head or 0))
    if kind != _SEGMENT:
        raise ValueError("no segment")
    return at, size


def _matroska_tracks(data: mmap.mmap) -> int:
    at, size = _segment(data)
    end, found = len(data) if size is None else min(len(data), at + size), 0
    while at < end:
        kind, at, size = _element(data, at)
        if kind in (_TRACKS, _TRACK):
            continue  # its content follows
        if kind == _TRACK_TYPE:
            found += data[at] == 1
        if kind == _CLUSTER or size is None:
            break
        at += size
    return found


def _matroska_is_cut(data: mmap.mmap) -> bool:
    at, size = _segment(data)
    return size is not None and at + size > len(data)


def _matroska_is_broken(data: mmap.mmap) -> bool:
    at, size = _segment(data)
    end = len(data) if size is None else min(len(data), at + size)
    while at < end:
        kind, at, size = _element(data, at)
        if kind not in _IN_SEGMENT and kind not in _IN_CLUSTER:
            return True
        if kind == _CLUSTER:
            continue  # its content follows
        if size is None:
            return False
        at += size
    return at > len(data)


def _transport_stream_is_cut(data: mmap.mmap) -> bool:
    whole = len(data) // _TS * _TS
    return len(data) > whole and data[whole] == _TS_SYNC == data[whole - _TS]


def _transport_stream_is_broken(data: mmap.mmap) -> bool:
    """True where packets are marked as wrong, overwritten, or missing by their counters."""
    counters: dict[int, int] = {}
    whole = len(data) // _TS * _TS
    for at in range(0, whole, _TS):
        sync, high, low, flags = data[at : at + 4]
        pid, count = (high & 0x1F) << 8 | low, flags & 0x0F
        if sync != _TS_SYNC:  # the end, and something after it, unless packets go on
            return sum(data[k] == _TS_SYNC for k in range(at, whole, _TS)) > max(2, (whole - at) // _TS // 4)
        if pid == 0x1FFF or not flags & 0x10:
            continue
        fresh = flags & 0x20 and data[at + 4] and data[at + 5] & 0x80
        last = counters.get(pid)
        if high & 0x80 or not (fresh or last is None or count in (last, (last + 1) & 0x0F)):
            return True
        counters[pid] = count
    return False


__all__ = ["container_is_cut", "container_is_damaged", "tracks_of_pictures"]
