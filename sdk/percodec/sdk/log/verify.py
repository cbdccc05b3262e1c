"""Is a log what its writer wrote? Every record against its proof (`log.proof`), over all segments; what is wrong is named with its frame.

    removed    the places between two records that are proved are not there
    altered    a record stands where one is missing, and its proof is not of it
    put in     a record that is not proved, and none is missing there
    moved      a record is proved for an earlier place
    cut off    the end is not there: what was proved is proved, and nothing tells what followed

A killed writer leaves a log that is cut off, too: both look the same, and are said the same.
"""

from __future__ import annotations

import hmac
import itertools
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from percodec.sdk import mcap
from percodec.sdk.codec import parse_header
from percodec.sdk.errors import LogError, PacketError
from percodec.sdk.log.names import CLOSED, MAX_RECORD_BYTES, OPENED
from percodec.sdk.log.proof import METHOD, PROOF, PROOF_BYTES, PROOF_PREFIX, Prover, check_key, key_id
from percodec.sdk.log.reader import open_log
from percodec.sdk.log.segments import begun_paths
from percodec.sdk.log.writer import closing

_MOST_HEAD = 1 << 20
_MOST_FINDINGS = 1000
_PIECE = 1 << 20


@dataclass
class LogProof:
    """What `verify_log` found. `records` are proved; `first_frame`, `last_frame`: the first and last of them in the log, None without.

    `closed`: the end of the log is there and proved. `findings`: what is not as it was written, in words, in the log's order. `cut_off`:
    what is said of a log without its end, "" for one that is closed. `segments`: the numbers of those that were read.
    """

    key: str
    records: int = 0
    first_frame: int | None = None
    last_frame: int | None = None
    closed: bool = False
    cut_off: str = ""
    findings: list[str] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """All of the log is there, and as it was written."""
        return self.closed and not self.findings

    @property
    def until(self) -> str:
        return f" after frame {self.last_frame}" if self.last_frame is not None else ""

    def find(self, text: str) -> None:
        """Add a finding; beyond many, no more."""
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(text)


def verify_log(path: str | os.PathLike[str], key: bytes, from_segment: int = 0) -> LogProof:
    """Check a log, or a folder with one or its segments, with its key. `from_segment`: those before were taken away on purpose.

    Raises `LogError` for a log that cannot be read, was written without a key or with another one.
    """
    path = Path(path)
    check_key(key, f"the key for log {path}")
    proof = LogProof(key_id(key))
    paths = begun_paths(path) if path.is_dir() else [path]
    if not paths:
        raise LogError(f"{path} is a folder without logs (*.mcap); give a log written by percodec, or a folder of its segments")
    logs = [_Log(file, key, proof, f"{file.name}: " if path.is_dir() else "") for file in paths]
    if path.is_dir() and (len(logs) > 1 or logs[0].segment is not None):
        _check_segments(logs, proof, from_segment)
        return proof
    log = logs[0]
    log.check()
    proof.segments = [] if log.segment is None else [log.segment]
    proof.closed, proof.cut_off = log.closed, log.cut_off
    return proof


def _check_segments(logs: list[_Log], proof: LogProof, wanted: int) -> None:
    if any(log.segment is None or log.recording != logs[0].recording for log in logs):
        raise LogError(f"{logs[0].path.parent} holds several logs that are not segments of one; give each of them alone")
    logs = sorted(logs, key=lambda log: log.segment or 0)
    for log, following in itertools.zip_longest(logs, logs[1:]):
        number = log.segment or 0
        if number < wanted:
            proof.find(f"{log.path.name}: is segment {number}, which is there twice or was to be gone")
            continue
        if number > wanted:
            several = f"segments {wanted} to {number - 1} are" if number > wanted + 1 else f"segment {wanted} is"
            proof.find(f"{several} missing{proof.until or ' at the beginning'}")
        wanted = number + 1
        log.check()
        proof.segments.append(number)
        if following is None:
            proof.cut_off = log.cut_off or ("" if log.last else f"segment {number} was not the last, and none follows{proof.until}")
            proof.closed = not proof.cut_off
        elif log.cut_off or log.last:
            proof.find(f"{log.path.name}: {log.cut_off or 'ends the recording, and another segment follows'}")


class _Log:
    """One file. Read once, in order, a record in memory at a time."""

    def __init__(self, path: Path, key: bytes, proof: LogProof, name: str) -> None:
        self.path, self._proof, self._name = path, proof, name
        self.closed = self.last = False
        self.cut_off = ""
        with open_log(path) as file:
            self._head, metadata, self._metadata_at = _head_of(path, file)
        if metadata.get("proof") != METHOD:
            raise LogError(f"{path} was written without a key, so that nothing of it can be proved; --log-key is given as it is written")
        if metadata.get("proof_key") != proof.key:
            raise LogError(f"{path} was written with the key {metadata.get('proof_key', '')[:16]!r}, not with {proof.key}; give that one")
        self.recording, number = metadata.get("recording", ""), metadata.get("segment", "")
        self.segment = int(number) if re.fullmatch(r"\d{1,9}", number) else None
        self._prover = Prover(key, self._head)
        self._next = 0  # the place that should come
        self._gaps: set[int] = set()  # places that were passed over, and may come later
        self._unproved: list[str] = []  # records since the last one that is proved
        self._times: list[int] = []

    def check(self) -> None:
        """All records, into the proof."""
        with open_log(self.path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(len(self._head))
            begin = file.read(PROOF_BYTES)
            if not hmac.compare_digest(begin, self._prover.head()):
                whole = begin.startswith(PROOF_PREFIX)
                self._find(
                    "its beginning was altered (bundle, clocks, segment or topic), so that nothing after it can be proved"
                    if whole
                    else "says that it holds proofs, and holds none: archives and other tools leave them out; check what the vehicle wrote"
                )
                self.cut_off = "nothing of it is proved"
                return
            self._crc = zlib.crc32(begin, zlib.crc32(self._head))
            self._read(file, size)

    def _read(self, file: BinaryIO, size: int) -> None:
        before = len(self._proof.findings)
        while not self.closed:
            at = file.tell()
            opcode, record = _record(file, at, size)
            if not record:
                follows = _after_next_proof(file, at, size)
                if follows is None:
                    break
                self._unproved.append(f"what stands at byte {at} is no record")
                file.seek(follows)
                continue
            proof = file.read(PROOF_BYTES)
            if len(proof) < PROOF_BYTES:
                file.seek(at)  # half a record
                break
            if not proof.startswith(PROOF_PREFIX):
                file.seek(at + len(record))
            self._crc = zlib.crc32(proof, zlib.crc32(record, self._crc))
            self._take(opcode, record, proof, at)
        left = size - file.tell()
        if self.closed:
            self._check_rest(file, left, before)
            return
        if self._unproved:
            self._settle(self._next)
        half = f", and {left} bytes that are no whole record" if left else ""
        self.cut_off = f"was never closed, or was cut off: nothing tells what followed{self._proof.until}{half}"

    def _take(self, opcode: int, record: bytes, proof: bytes, at: int) -> None:
        if opcode == mcap.MESSAGE and len(record) >= mcap.PREFIX.size + mcap.MESSAGE_HEAD.size:
            _, sequence, time_ns, _ = mcap.MESSAGE_HEAD.unpack_from(record, mcap.PREFIX.size)
            place = self._next + (sequence - self._next + (1 << 31)) % (1 << 32) - (1 << 31)  # its 32 bits, nearest to what should come
            frame = _frame_of(record)
            if place >= 0 and hmac.compare_digest(proof, self._prover.record(place, record)):
                self._proved(place, frame, time_ns)
            else:
                self._unproved.append(f"its proof does not fit{'' if frame is None else f', it calls itself frame {frame}'}")
        elif opcode == mcap.METADATA and hmac.compare_digest(proof, self._prover.end(record)):
            _, values = mcap.metadata_from(record[mcap.PREFIX.size :])
            self._settle(int(values["records"]))
            self._end = (at, len(record))
            self.closed, self.last = True, values["last"] == "yes"
        else:
            self._find(f"a record of kind {opcode} at byte {at} was put in or altered{self._proof.until}")

    def _proved(self, place: int, frame: int | None, time_ns: int) -> None:
        proof = self._proof
        if place < self._next:
            known = place in self._gaps
            self._gaps.discard(place)
            self._find(f"frame {frame} {'was moved, it stands' if known else 'is there twice, again'} after frame {proof.last_frame}")
            return
        self._settle(place)
        self._next = place + 1
        proof.records += 1
        proof.first_frame = frame if proof.first_frame is None else proof.first_frame
        proof.last_frame = frame
        self._times = [min([*self._times[:1], time_ns]), max([*self._times[1:], time_ns])]

    def _settle(self, place: int) -> None:
        """What stands before `place`, or does not, since the last record that was proved."""
        missing = place - self._next
        after = f" after frame {self._proof.last_frame}" if self._proof.last_frame is not None else " at the beginning"
        for k, text in enumerate(self._unproved):
            self._find(f"record {self._next + k} was altered{after}: {text}" if k < missing else f"a record was put in{after}: {text}")
        if missing > len(self._unproved):
            first, last = self._next + len(self._unproved), place - 1
            several = f"records {first} to {last} are" if last > first else f"record {first} is"
            self._find(f"{several} missing{after}")
            if last - first < _MOST_FINDINGS:
                self._gaps.update(range(first, place))
        self._next = max(place, self._next)
        self._unproved = []

    def _check_rest(self, file: BinaryIO, left: int, before: int) -> None:
        if len(self._proof.findings) > before:
            return  # sums and times are of what was there
        at = file.tell()
        ends = ((OPENED, *self._metadata_at), (CLOSED, *self._end))
        times = (self._times[0], self._times[1]) if self._times else (0, 0)
        rest = closing(at, self._crc, ends, self._next, times)
        if left != len(rest) or file.read(len(rest)) != rest:
            self._find("what follows its end was altered: summary, checksum or bytes after it")

    def _find(self, text: str) -> None:
        self._proof.find(self._name + text)


def _head_of(path: Path, file: BinaryIO) -> tuple[bytes, dict[str, str], tuple[int, int]]:
    """Bytes before the first proof, message or end; what Metadata "percodec" says in them, and where it lies. Raises `LogError`."""
    data = file.read(_MOST_HEAD)
    if not data.startswith(mcap.MAGIC):
        raise LogError(f"{path} is not an MCAP file; give a log written by percodec")
    at, metadata, place = len(mcap.MAGIC), None, (0, 0)
    while at + mcap.PREFIX.size <= len(data):
        opcode, length = mcap.PREFIX.unpack_from(data, at)
        end = at + mcap.PREFIX.size + length
        if opcode not in (mcap.HEADER, mcap.METADATA, mcap.SCHEMA, mcap.CHANNEL) or end > len(data):
            break
        if opcode == mcap.METADATA and metadata is None:
            try:
                name, values = mcap.metadata_from(data[at + mcap.PREFIX.size : end])
            except ValueError as error:
                raise LogError(f"{path}: its metadata cannot be read ({error}); the file is damaged at its beginning") from error
            if name == OPENED:
                metadata, place = values, (at, end - at)
        at = end
    if metadata is None:
        raise LogError(f"{path} has no metadata of percodec at its beginning; give a log written by percodec")
    return data[:at], metadata, place


def _record(file: BinaryIO, at: int, size: int) -> tuple[int, bytes]:
    """The record at `at`, its prefix included; (0, b"") where there is none."""
    prefix = file.read(mcap.PREFIX.size)
    if len(prefix) < mcap.PREFIX.size:
        return 0, b""
    opcode, length = mcap.PREFIX.unpack(prefix)
    if not (1 <= opcode <= mcap.DATA_END or opcode >= PROOF) or length > MAX_RECORD_BYTES or at + len(prefix) + length > size:
        return 0, b""
    return opcode, prefix + file.read(length)


def _after_next_proof(file: BinaryIO, at: int, size: int) -> int | None:
    """Where the next proof after `at` ends, by its look; None where there is none."""
    file.seek(at + 1)
    kept, base = b"", at + 1
    while piece := file.read(_PIECE):
        data = kept + piece
        found = data.find(PROOF_PREFIX)
        if found >= 0:
            end = base + found + PROOF_BYTES
            return end if end <= size else None
        kept = data[-len(PROOF_PREFIX) + 1 :]
        base += len(data) - len(kept)
    return None


def _frame_of(record: bytes) -> int | None:
    try:
        return parse_header(record[mcap.PREFIX.size + mcap.MESSAGE_HEAD.size :]).frame_id
    except PacketError:
        return None


__all__ = ["LogProof", "verify_log"]
