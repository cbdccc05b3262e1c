"""Packet logs: MCAP files that lose no acknowledged frame when the process is killed.

    LogWriter.append -> one complete Message record, one write() -> returns: that frame is in the file

Nothing is buffered in the process, so a kill loses at most the record being written; `read_log` opens such a file as it is. What the
kernel had not yet put on the disk is lost with the power; `sync="interval"` bounds that to about a second.
Any MCAP tool opens a log; the packets in it are those of BITSTREAM.md. Its records, in order:

    Header
    Metadata "percodec"         the bundle, `clock` ("monotonic" or "media": what timestamps count), and both clocks as the log was begun
    Schema, Channel
    Message                     one packet each; log time and publish time are the frame's timestamp, the sequence counts from 0
    Metadata "percodec.closed"  both clocks as it was closed
    DataEnd, summary, Footer

A killed log ends after any of them. "Both clocks": `monotonic_ns` and `utc_ns`, see `percodec.sdk.clock`. Values are texts.
"""

from __future__ import annotations

import datetime
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from percodec.sdk import mcap
from percodec.sdk.clock import ClockAnchor, utc_ns_from_monotonic
from percodec.sdk.codec import EntropyModel, parse_header
from percodec.sdk.errors import LogError, PacketError

MAX_RECORD_BYTES = 16 << 20
SYNC_SECONDS = 1.0
_CHECK_SPACE_EVERY = 64
_CLOSED = "percodec.closed"
_SCHEMA = "percodec.Packet"
_DESCRIPTION = b"One percodec packet per message: a coded latent, format in BITSTREAM.md of percodec."
_ENCODING = "application/x-percodec-packet"
_TOPIC = "/percodec/packets"
_DEFINITIONS = (_TOPIC, _SCHEMA, _DESCRIPTION, _ENCODING)


class LoggedBundle(Protocol):
    """What a log records about the bundle its packets belong to."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    @property
    def entropy_model(self) -> EntropyModel: ...


class LogWriter:
    """Appends packets to a new log. Safe to close twice; also a context manager. One thread at a time. `begun`: its first anchor.

    `live`: timestamps are of this machine's monotonic clock now, as a camera's are; else they are media time, which has no time of day.
    `sync`: "none" leaves it to the kernel, "interval" calls fdatasync about once a second in the background.
    `min_free_bytes`: appending stops with a `LogError` when the disk has less than that. Raises `LogError`, also where the file
    exists and `overwrite` is not given.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bundle: LoggedBundle,
        *,
        stream_id: int = 0,
        live: bool = False,
        sync: Literal["none", "interval"] = "none",
        overwrite: bool = False,
        min_free_bytes: int = 64 << 20,
    ) -> None:
        self.path = Path(path)
        self.begun = ClockAnchor.now()
        self.records = 0
        self.bytes = 0
        self._min_free = min_free_bytes
        self._crc = 0
        self._times = (0, 0)  # earliest, latest
        self._half_record = False
        self._sync_error: OSError | None = None
        self._closed = threading.Event()
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL)
        try:
            self._fd = os.open(self.path, flags, 0o644)
        except FileExistsError as e:
            raise LogError(f"log {self.path} exists; choose another name or overwrite it on purpose") from e
        except OSError as e:
            raise LogError(f"log {self.path} cannot be created: {e.strerror}; choose a folder that can be written") from e
        metadata = {
            "bundle_name": bundle.name,
            "bundle_digest": bundle.digest,
            "latent_shape": "x".join(map(str, bundle.latent_shape)),
            "table_hash": f"{bundle.entropy_model.table_hash:016x}",
            "stream_id": str(stream_id),
            "percodec": _version(),
            "clock": "monotonic" if live else "media",
            **_texts(self.begun),
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        self._closed.set()  # until it is whole
        try:
            head, at = mcap.opening(f"percodec {_version()}", *_DEFINITIONS, metadata)
            self._metadata = ("percodec", at, mcap.PREFIX.size + int.from_bytes(head[at + 1 : at + 9], "little"))
            self._check_space()
            self._write(head)
            _sync_folder(self.path.parent)
            self._closed.clear()
        finally:
            if self._closed.is_set():
                if not overwrite:
                    self.path.unlink(missing_ok=True)  # made just now: the next try finds the name free
                os.close(self._fd)
        self._syncer = threading.Thread(target=self._sync_loop, name="percodec-log-sync", daemon=True) if sync == "interval" else None
        if self._syncer:
            self._syncer.start()

    def append(self, packet: bytes, frame_id: int, timestamp_ns: int) -> None:
        """Returns when the whole record is the kernel's. Raises `LogError`; what was appended before stays readable.

        `frame_id` is for the message only: the packet carries its own.
        """
        if self._closed.is_set():
            raise LogError(f"log {self.path} is closed; frame {frame_id} was not written")
        self._raise_sync_error()
        if not 0 <= timestamp_ns < 1 << 64:
            raise LogError(f"log {self.path}: frame {frame_id} has the timestamp {timestamp_ns}; it must be 0..2^64-1 ns")
        if len(packet) > MAX_RECORD_BYTES - 64:
            raise LogError(f"log {self.path}: the packet of frame {frame_id} has {len(packet)} bytes, limit {MAX_RECORD_BYTES - 64}")
        if self.records % _CHECK_SPACE_EVERY == 0:
            self._check_space()
        self._write(mcap.message(self.records, timestamp_ns, packet))
        earliest, latest = self._times if self.records else (timestamp_ns, timestamp_ns)
        self._times = (min(earliest, timestamp_ns), max(latest, timestamp_ns))
        self.records += 1

    def close(self) -> None:
        """Write the summary and close. Raises `LogError` where that fails; the log stays readable without it."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._syncer:
            self._syncer.join()
        try:
            last = mcap.metadata_record(_CLOSED, _texts(ClockAnchor.now()))
            metadata = (self._metadata, (_CLOSED, self.bytes, len(last)))
            at, crc = self.bytes + len(last), zlib.crc32(last, self._crc)
            self._write(last + mcap.closing(at, crc, _DEFINITIONS, metadata, self.records, self._times))
            self._raise_sync_error()  # the kernel tells of a lost page once only, and the background heard it
            os.fdatasync(self._fd)
        except OSError as e:
            raise LogError(f"log {self.path} could not be brought to the disk: {e.strerror}; check the disk") from e
        finally:
            os.close(self._fd)

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        """All of `data` in one write(), or nothing of it and a `LogError`."""
        if self._half_record:
            raise LogError(f"log {self.path} ends in half a record that the disk would not take back; check the disk, begin a new log")
        try:
            written = os.write(self._fd, data)
            reason = "only part of the record fitted"
        except OSError as e:
            written, reason = 0, e.strerror or str(e)
        if written != len(data):
            try:
                os.ftruncate(self._fd, self.bytes)
                os.lseek(self._fd, self.bytes, os.SEEK_SET)
            except OSError:
                self._half_record = written > 0  # what follows it could not be read
            raise LogError(
                f"log {self.path}: cannot write after {self.records} frames ({reason}); free disk space. The frames before are safe"
            )
        self.bytes += written
        self._crc = zlib.crc32(data, self._crc)

    def _raise_sync_error(self) -> None:
        if self._sync_error is not None:
            raise LogError(f"log {self.path}: the disk refused earlier frames: {self._sync_error.strerror}; replace or free the disk")

    def _check_space(self) -> None:
        if not self._min_free:
            return
        try:
            state = os.fstatvfs(self._fd)
        except OSError:
            return  # a file system that cannot tell is judged by its writes
        free = state.f_bavail * state.f_frsize
        if free < self._min_free:
            raise LogError(
                f"log {self.path}: {free >> 20} MiB free, the floor is {self._min_free >> 20} MiB; free disk space. "
                f"{self.records} frames are safe"
            )

    def _sync_loop(self) -> None:
        while not self._closed.wait(SYNC_SECONDS):
            try:
                os.fdatasync(self._fd)
            except OSError as e:
                self._sync_error = e
                return


@dataclass(frozen=True)
class LogRecord:
    """One logged packet; `sequence` counts the log's records from 0."""

    packet: bytes
    frame_id: int
    timestamp_ns: int
    sequence: int


class LogReader:
    """Iterates the records of a log, as often as wanted, one in memory at a time.

    `live`: timestamps are of the monotonic clock of the machine that wrote it; media time otherwise. `anchors`: that clock and UTC, as the
    log was begun and, where it was, closed; older logs have none.

    After an iteration: `truncated` when the file has no proper end (a killed writer), `damaged` = records left out because their
    packet fails its checksum or they are none of a log's; 1 when nothing had to be left out but the checksum over the whole file,
    which a closed log has, differs: then a time, sequence number or anchor may be wrong.
    """

    def __init__(self, path: Path, metadata: dict[str, str], closed: dict[str, str]) -> None:
        self.path = path
        self.metadata = metadata
        self.bundle_name = metadata.get("bundle_name", "")
        self.bundle_digest = metadata.get("bundle_digest", "")
        self.live = metadata.get("clock") == "monotonic"
        self.anchors = tuple(a for a in (ClockAnchor.from_texts(metadata), ClockAnchor.from_texts(closed)) if a)
        self.truncated = False
        self.damaged = 0

    def utc_ns_of(self, timestamp_ns: int) -> int | None:
        """When that was, in ns since 1970 by the clock of the machine that wrote the log; None where the log cannot tell.

        It cannot where timestamps are media time (a file's frames; `live` is False), and where it has no anchors. Between the anchors the
        difference of the clocks is interpolated, outside the nearest one holds. A clock that was set in between shows as
        `anchors` whose differences differ: then times between them are wrong by up to that.
        """
        return utc_ns_from_monotonic(timestamp_ns, self.anchors) if self.live and self.anchors else None

    def __iter__(self) -> Iterator[LogRecord]:
        self.truncated, self.damaged = True, 0
        opening = [mcap.HEADER, mcap.METADATA, mcap.SCHEMA, mcap.CHANNEL]
        ended = False
        with _open(self.path) as file:
            crc = zlib.crc32(file.read(len(mcap.MAGIC)))
            for opcode, content in _records(file):
                if ended:  # only the summary follows
                    if opcode == mcap.FOOTER:
                        self.truncated = file.read(len(mcap.MAGIC)) != mcap.MAGIC
                        return
                    continue
                if opcode == mcap.DATA_END and len(content) == 4:
                    ended = True
                    if int.from_bytes(content, "little") not in (0, crc):  # 0: written without
                        self.damaged = max(self.damaged, 1)
                    continue
                crc = zlib.crc32(content, zlib.crc32(mcap.PREFIX.pack(opcode, len(content)), crc))
                if opening and opcode == opening[0]:
                    opening.pop(0)
                    continue
                if opcode == mcap.METADATA and _named(content, _CLOSED) is not None:
                    continue
                if opcode != mcap.MESSAGE or len(content) < mcap.MESSAGE_HEAD.size:
                    self.damaged += 1
                    continue
                _, sequence, _, timestamp_ns = mcap.MESSAGE_HEAD.unpack_from(content)
                packet = content[mcap.MESSAGE_HEAD.size :]
                try:
                    header = parse_header(packet)
                except PacketError:
                    self.damaged += 1
                    continue
                yield LogRecord(packet, header.frame_id, timestamp_ns, sequence)


def read_log(path: str | os.PathLike[str]) -> LogReader:
    """Open a log, complete or not. Raises `LogError` for anything that is not a percodec log."""
    path = Path(path)
    with _open(path) as file:
        if file.read(len(mcap.MAGIC)) != mcap.MAGIC:
            raise LogError(f"{path} is not an MCAP file; give a log written by percodec")
        for opcode, content in _records(file):
            if opcode == mcap.METADATA:
                try:
                    name, values = mcap.metadata_from(content)
                except ValueError as e:
                    raise LogError(f"{path}: its metadata cannot be read ({e}); the file is damaged at its beginning") from e
                if name == "percodec":
                    return LogReader(path, values, _closed(file))
            elif opcode in (mcap.MESSAGE, mcap.FOOTER):
                raise LogError(f"{path} is an MCAP file without percodec's metadata; give a log written by percodec")
    raise LogError(f"{path} is cut off or damaged before its first packet, nothing of it can be read; give another log written by percodec")


def _open(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise LogError(f"{path} is not a file; give a log written by percodec" if path.exists() else f"{path} does not exist")
        return path.open("rb")
    except OSError as e:
        raise LogError(f"{path} cannot be read: {e.strerror}") from e


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(opcode, content) of every complete record from here on; ends at the first one that is not."""
    while True:
        prefix = file.read(mcap.PREFIX.size)
        if len(prefix) < mcap.PREFIX.size:
            return
        opcode, size = mcap.PREFIX.unpack(prefix)
        if not 1 <= opcode <= mcap.DATA_END or size > MAX_RECORD_BYTES:
            return
        content = file.read(size)
        if len(content) < size:
            return
        yield opcode, content


def _closed(file: BinaryIO) -> dict[str, str]:
    """What a log says as it is closed, found through its summary; nothing where there is none of it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - mcap.END_BYTES))
    summary = mcap.summary_from(file.read(mcap.END_BYTES))
    if summary is None or summary >= size:
        return {}
    file.seek(summary)
    for opcode, content in _records(file):
        if opcode != mcap.METADATA_INDEX:
            continue
        try:
            name, at = mcap.metadata_index_from(content)
        except ValueError:
            continue
        if name == _CLOSED and at < size:
            file.seek(at)
            return _named(next(_records(file), (0, b""))[1], _CLOSED) or {}
    return {}


def _named(content: bytes, name: str) -> dict[str, str] | None:
    """The values of a Metadata record of this name; None for anything else."""
    try:
        found, values = mcap.metadata_from(content)
    except ValueError:
        return None
    return values if found == name else None


def _texts(anchor: ClockAnchor) -> dict[str, str]:
    return {key: str(value) for key, value in anchor.as_dict().items()}


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # not every file system can; the log itself is written all the same
    finally:
        os.close(handle)


def _version() -> str:
    try:
        return version("percodec")
    except PackageNotFoundError:
        return "unknown"


__all__ = ["LogReader", "LogRecord", "LogWriter", "LoggedBundle", "read_log"]
