"""A bag out: MCAP, as a file or as a folder with metadata.yaml. It stands under its name when it is whole, and not before."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from percodec.runtime.bag.information import information_of, text_of
from percodec.runtime.bag.mcap_files import ROSBAG2
from percodec.runtime.bag.records import Attachment, Channel, Message, Metadata, Record, library
from percodec.sdk.errors import BagError, UsageError
from percodec.sdk.folder_lock import NAME as LOCK
from percodec.sdk.folder_lock import FolderLock

CHUNK = 1 << 20


class BagWriter:
    """`add` records, then `finish`; as a context manager it cleans up unless it was finished.

    A name that ends in .mcap is a file, any other a folder. Beside it a hidden folder, `.NAME.part`, holds what is not whole yet, and lets
    in one writer at a time. Times, sequence numbers, schemas and channel metadata are written as they are given; chunks are packed with
    zstd and have checksums.
    """

    def __init__(self, path: Path, *, profile: str = "ros2", overwrite: bool = False) -> None:
        """Raises `UsageError` where `path` exists and `overwrite` is not given, `BagError` where it cannot be written."""
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists; choose another name or add --overwrite")
        folder = path.suffix != ".mcap"
        if path.exists() and path.is_dir() != folder:
            raise UsageError(
                f"{path}: is {'a folder' if path.is_dir() else 'a file'}; a name that ends in .mcap is a file, any other a folder"
            )
        if folder and path.exists() and not (path / "metadata.yaml").is_file() and any(path.iterdir()):
            raise UsageError(f"{path}: is a folder that holds no bag; choose another name")
        self.path, self._folder, self._done = path, folder, False
        self._place = path.with_name(f".{path.name}.part")
        self._part = self._place / path.name
        self._name = f"{path.name}_0.mcap" if folder else path.name
        self._lock: FolderLock | None = None
        self._counts: dict[Channel, int] = {}
        self._ids: dict[Channel, int] = {}
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._times: tuple[int, int] | None = None
        self._file: BinaryIO | None = None
        try:
            self._place.mkdir(exist_ok=True)
            self._lock = FolderLock(self._place)
            self._clear()
            if folder:
                self._part.mkdir()
            self._file = (self._part / self._name if folder else self._part).open("wb")
            writer = library("mcap.writer")
            # The writer's summary offsets name groups that are not there, which checkers of files call an error.
            self._writer: Any = writer.Writer(self._file, chunk_size=CHUNK, use_summary_offsets=False, enable_data_crcs=True)
            self._writer.start(profile=profile, library="percodec")
        except OSError as error:
            self.abandon()
            raise self._failed(error) from error
        except BaseException:
            self.abandon()
            raise

    def add(self, record: Record) -> None:
        """Raises `BagError`."""
        try:
            if isinstance(record, Message):
                number = self._channel(record.channel)
                self._writer.add_message(number, record.log_time, record.data, record.publish_time, record.sequence)
                self._counts[record.channel] += 1
                first, last = self._times or (record.log_time, record.log_time)
                self._times = (min(first, record.log_time), max(last, record.log_time))
            elif isinstance(record, Attachment):
                self._writer.add_attachment(record.create_time, record.log_time, record.name, record.media_type, record.data)
            elif isinstance(record, Metadata):
                self._writer.add_metadata(record.name, dict(record.values))
        except OSError as error:
            raise self._failed(error) from error

    def declare(self, channel: Channel) -> None:
        """A channel that may have no message."""
        self._channel(channel)

    def finish(self, information: str | None = None) -> int:
        """Close, bring to the disk, give it its name; returns its bytes. `information`: the input's metadata.yaml. Raises `BagError`."""
        assert self._file is not None
        made = information_of(information, self._counts, self._times or (0, 0), self._name)
        try:
            if made is not None:
                self._writer.add_metadata(ROSBAG2, {"serialized_metadata": text_of(made)})
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
            self._file.close()
            if self._folder and made is not None:
                (self._part / "metadata.yaml").write_text(text_of(made), encoding="utf-8")
            self._name_it()
        except OSError as error:
            raise self._failed(error) from error
        self._done = True
        self.abandon()
        return size

    def abandon(self) -> None:
        """Remove the part."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
        with contextlib.suppress(OSError):
            if self._lock is not None:
                self._clear()
                self._lock.close()
        with contextlib.suppress(OSError):  # another writer's is not empty
            self._place.rmdir()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._done:
            self.abandon()

    def _channel(self, channel: Channel) -> int:
        if channel not in self._ids:
            kind = (channel.schema, channel.schema_encoding, channel.definition)
            if kind not in self._schemas:
                self._schemas[kind] = self._writer.register_schema(*kind) if channel.schema else 0
            self._ids[channel] = self._writer.register_channel(channel.topic, channel.encoding, self._schemas[kind], dict(channel.metadata))
            self._counts[channel] = 0
        return self._ids[channel]

    def _name_it(self) -> None:
        """By a rename; what stood there goes last."""
        if self._folder and self.path.exists():
            os.rename(self.path, self._place / "old")
        os.rename(self._part, self.path)
        handle = os.open(self.path.absolute().parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _clear(self) -> None:
        for left in self._place.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()

    def _failed(self, error: OSError) -> BagError:
        return BagError(f"{self.path} cannot be written ({error.strerror or error}); nothing was written under that name")


__all__ = ["BagWriter"]
