"""Writing a log: one complete record, one write(), and only then is a frame acknowledged."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import operator
import os
import stat
import threading
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol

from percodec.sdk import mcap
from percodec.sdk.clock import ClockAnchor, boot_id
from percodec.sdk.codec import EntropyModel, StepsModel, parse_header
from percodec.sdk.errors import LogError, PacketError
from percodec.sdk.log.names import CLOSED, ENCODING, MAX_RECORD_BYTES, SCHEMA, TOPIC
from percodec.sdk.log.proof import Prover, check_key, proof_metadata

SYNC_SECONDS = 1.0
_CHECK_SPACE_EVERY = 64
DESCRIPTION = b"One percodec packet per message: a coded latent, format in BITSTREAM.md of percodec."
_DEFINITIONS = (TOPIC, SCHEMA, DESCRIPTION, ENCODING)


class LoggedBundle(Protocol):
    """What a log records about the bundle its packets belong to."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def latent_shape(self) -> tuple[int, int, int]: ...
    @property
    def entropy_model(self) -> EntropyModel | StepsModel: ...


class LogWriter:
    """Appends packets to a new log. Safe to close twice; also a context manager. One thread at a time. `begun`: its first anchor.

    The file is locked (flock) while it is written. `overwrite` takes away what is there, unless another process is writing it.
    `live`: timestamps are of this machine's monotonic clock now, as a camera's are; else they are media time, which has no time of day.
    `sync`: "none" leaves it to the kernel, "interval" calls fdatasync about once a second in the background.
    `min_free_bytes`: appending stops with a `LogError` when the disk has less than that. Raises `LogError`, also where the file
    exists and `overwrite` is not given. `more`: further metadata. `key`: every record gets a proof, see `log.proof`.
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
        more: Mapping[str, str] | None = None,
        key: bytes | None = None,
    ) -> None:
        self.path = Path(path)
        if sync not in ("none", "interval"):
            raise LogError(f"log {self.path}: sync is none or interval, got {sync!r}")
        if not 0 <= stream_id < 1 << 16:
            raise LogError(f"log {self.path}: stream_id must be 0..65535, got {stream_id}")
        if key is not None:
            check_key(key, f"the key of log {self.path}")
        self.begun = ClockAnchor.now()
        self.records = 0
        self.bytes = 0
        self._min_free = min_free_bytes
        self._crc = 0
        self._times = (0, 0)  # earliest, latest
        self._half_record = False
        self._sync_error: OSError | None = None
        self._closed = threading.Event()
        metadata = {
            "bundle_name": bundle.name,
            "bundle_digest": bundle.digest,
            "latent_shape": "x".join(map(str, bundle.latent_shape)),
            "table_hash": f"{bundle.entropy_model.table_hash:016x}",
            "stream_id": str(stream_id),
            "percodec": _version(),
            "clock": "monotonic" if live else "media",
            **_texts(self.begun),
            "boot_id": boot_id(),
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **(more or {}),
            **(proof_metadata(key) if key is not None else {}),
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            flags |= os.O_EXCL if not overwrite or _gave_way(self.path) else os.O_TRUNC
            self._fd = os.open(self.path, flags, 0o644)
            _lock(self._fd, self.path)
        except FileExistsError as e:
            raise LogError(f"log {self.path} exists; choose another name or overwrite it on purpose") from e
        except OSError as e:
            raise LogError(f"log {self.path} cannot be created: {e.strerror}; choose a folder that can be written") from e
        self._closed.set()  # until it is whole
        try:
            head, at = mcap.opening(f"percodec {_version()}", *_DEFINITIONS, metadata)
            self._metadata = ("percodec", at, mcap.PREFIX.size + int.from_bytes(head[at + 1 : at + 9], "little"))
            self._prover = None if key is None else Prover(key, head)
            self._check_space()
            self._write(head if self._prover is None else head + self._prover.head())
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
        try:
            in_range = 0 <= operator.index(timestamp_ns) < 1 << 64
        except TypeError:
            in_range = False
        if not in_range:
            raise LogError(f"log {self.path}: frame {frame_id} has the timestamp {timestamp_ns}; it must be 0..2^64-1 ns")
        try:
            parse_header(packet)
        except PacketError as e:
            raise LogError(f"log {self.path}: what frame {frame_id} came with is no packet: {e}") from None
        packet = bytes(packet)  # a view may count other items than bytes
        if len(packet) > MAX_RECORD_BYTES - 64:
            raise LogError(f"log {self.path}: the packet of frame {frame_id} has {len(packet)} bytes, limit {MAX_RECORD_BYTES - 64}")
        if self.records % _CHECK_SPACE_EVERY == 0:
            self._check_space()
        message = mcap.message(self.records, timestamp_ns, packet)
        self._write(message if self._prover is None else message + self._prover.record(self.records, message))
        earliest, latest = self._times if self.records else (timestamp_ns, timestamp_ns)
        self._times = (min(earliest, timestamp_ns), max(latest, timestamp_ns))
        self.records += 1

    def close(self, last: bool = True) -> None:
        """Write the summary and close. Raises `LogError` where that fails; the log stays readable without it.

        `last`: False where the recording goes on in another segment.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        if self._syncer:
            self._syncer.join()
        try:
            values = {**_texts(ClockAnchor.now()), "records": str(self.records), "last": "yes" if last else "no"}
            end = mcap.metadata_record(CLOSED, values)
            metadata = (self._metadata, (CLOSED, self.bytes, len(end)))
            end += b"" if self._prover is None else self._prover.end(end)
            self._write(end + closing(self.bytes + len(end), zlib.crc32(end, self._crc), metadata, self.records, self._times))
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


def closing(at: int, crc: int, metadata: Sequence[tuple[str, int, int]], records: int, times: tuple[int, int]) -> bytes:
    """What follows the last Metadata of a log: see `mcap.closing`."""
    return mcap.closing(at, crc, _DEFINITIONS, metadata, records, times)


def _texts(anchor: ClockAnchor) -> dict[str, str]:
    return {key: str(value) for key, value in anchor.as_dict().items()}


def _gave_way(path: Path) -> bool:
    """Take a file or link of this name away; False where it is neither (a device). Raises `LogError` where somebody is writing it."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return True
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        return False
    if stat.S_ISREG(kind):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _lock(fd, path)
        finally:
            os.close(fd)
    path.unlink(missing_ok=True)
    return True


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise LogError(f"log {path} is being written by {_holder(fd)}; end that or choose another name") from None
        # a file system without locks


def _holder(fd: int) -> str:
    """The process that has locked the file, as far as Linux tells."""
    inode = os.fstat(fd).st_ino
    with contextlib.suppress(OSError, IndexError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                return f"process {words[4]}"
    return "another process"


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


__all__ = ["DESCRIPTION", "LogWriter", "LoggedBundle", "closing"]
