"""`Tail`: the records of one segment, found as its writer appends them. Nothing of them is kept but where they are."""

from __future__ import annotations

import fcntl
import os
from array import array
from pathlib import Path

from percodec.runtime.uplink.wire import SegmentId, segment_id
from percodec.sdk import mcap
from percodec.sdk.codec.entropy_model import PREDICTED
from percodec.sdk.log import read_log
from percodec.sdk.log.names import MAX_RECORD_BYTES

_PEEK = mcap.PREFIX.size + mcap.MESSAGE_HEAD.size + 4  # up to a packet's profile


class Tail:
    """Raises `LogError` or ValueError for a file that is no segment, OSError where it cannot be read.

    `count`: records so far; `ended`: closed by its writer; `damaged`: why nothing after the last of them can be read, "" as long as it can.
    """

    def __init__(self, path: Path) -> None:
        log = read_log(path, allow_damaged=True)
        self.path = path
        self.metadata = log.metadata
        self.id: SegmentId = segment_id(log.metadata)
        self.begun_ns = log.anchors[0].utc_ns if log.anchors else path.stat().st_mtime_ns
        self.ended, self.damaged = False, ""
        self._offsets, self._sizes = array("Q"), array("I")
        self._keys = bytearray()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = len(mcap.MAGIC)

    @property
    def count(self) -> int:
        return len(self._sizes)

    @property
    def disk_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    def grow(self) -> int:
        """Look for records that were appended. Returns how many."""
        if self.ended or self.damaged:
            return 0
        before, size = len(self._sizes), os.fstat(self._fd).st_size
        while self._at + mcap.PREFIX.size <= size:
            head = os.pread(self._fd, _PEEK, self._at)
            opcode, length = mcap.PREFIX.unpack_from(head)
            if opcode == mcap.DATA_END:
                self.ended = True
                break
            if not (1 <= opcode <= mcap.DATA_END or opcode >= mcap.PRIVATE) or length > MAX_RECORD_BYTES:
                self.damaged = f"a record of kind {opcode} and {length} bytes at byte {self._at}"
                break
            if self._at + mcap.PREFIX.size + length > size:
                break  # being written, or cut off
            if opcode == mcap.MESSAGE:
                if length < mcap.MESSAGE_HEAD.size:
                    self.damaged = f"a message of {length} bytes at byte {self._at}"
                    break
                self._offsets.append(self._at + mcap.PREFIX.size)
                self._sizes.append(length)
                self._keys.append(len(head) < _PEEK or head[-1] not in PREDICTED)
            self._at += mcap.PREFIX.size + length
        return len(self._sizes) - before

    def size(self, index: int) -> int:
        """Bytes of a packet."""
        return self._sizes[index] - mcap.MESSAGE_HEAD.size

    def total(self, first: int, end: int) -> int:
        """Bytes of the packets first .. end - 1."""
        return sum(self._sizes[first:end]) - (end - first) * mcap.MESSAGE_HEAD.size

    def key(self, index: int) -> bool:
        """Whether a packet needs no other."""
        return bool(self._keys[index])

    def read(self, index: int) -> tuple[int, bytes]:
        """Time in ns and packet. Raises OSError."""
        data = os.pread(self._fd, self._sizes[index], self._offsets[index])
        if len(data) < self._sizes[index]:
            raise OSError(f"{self.path} became shorter")
        return mcap.MESSAGE_HEAD.unpack_from(data)[3], data[mcap.MESSAGE_HEAD.size :]

    def has_writer(self) -> bool:
        """Whether somebody holds its lock. True where the file system cannot tell."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


__all__ = ["Tail"]
