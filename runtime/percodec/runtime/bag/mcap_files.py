"""MCAP in: one file, or the files of a split bag in their order, record by record. What is damaged is left out and counted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from percodec.runtime.bag.records import Attachment, Channel, Message, Metadata, Progress, Record, library
from percodec.sdk.errors import BackendError, BagError, reason

MAX_CHUNK = 1 << 30  # bytes of a chunk unpacked
ROSBAG2 = "rosbag2"  # the metadata record in which rosbag2 repeats its metadata.yaml


class McapFiles:
    """`records` may be iterated as often as wanted. After an iteration `damage` says what was left out, a line each."""

    kind = "mcap"

    def __init__(self, paths: list[Path]) -> None:
        """Raises `BagError` for a file that is not there or no MCAP."""
        self.paths, self.damage = paths, list[str]()
        self.bytes = sum(path.stat().st_size for path in paths)
        self.profile, self._known = "", [dict[int, Channel]() for _ in paths]
        self.counts: dict[Channel, int] | None = {}
        for k, path in enumerate(paths):
            self._look_into(k, path)

    @property
    def channels(self) -> list[Channel]:
        """Every one there is, in the order in which they are met."""
        return list(dict.fromkeys(channel for known in self._known for channel in known.values()))

    def records(self, progress: Progress = lambda done, of: None) -> Iterator[Record]:
        """In the order of the files. rosbag2's own record about the file is left out: it is of that file, and written anew."""
        self.damage = []
        before = 0
        for k, path in enumerate(self.paths):
            with path.open("rb") as file:
                for record in self._file(k, path, file):
                    progress(before + file.tell(), self.bytes)
                    yield record
            before += path.stat().st_size

    def information(self) -> str | None:
        """The YAML of rosbag2's record of the first file, None where there is none."""
        make_reader = library("mcap.reader").make_reader
        with self.paths[0].open("rb") as file:
            try:
                for record in make_reader(file).iter_metadata():
                    if record.name == ROSBAG2:
                        return str(record.metadata.get("serialized_metadata", ""))
            except Exception:  # of a damaged file; records() says where
                return None
        return None

    def _look_into(self, k: int, path: Path) -> None:
        """Channels and counts from the file's summary; without one, from all of it."""
        summary: Any = None
        make_reader = library("mcap.reader").make_reader
        with path.open("rb") as file:
            if file.read(8) != b"\x89MCAP0\r\n":
                raise BagError(f"{path} is not an MCAP file; give a bag: .mcap, a rosbag2 folder, or a ROS 1 .bag")
            file.seek(0)
            try:
                reader = make_reader(file)
                self.profile = self.profile or reader.get_header().profile
                summary = reader.get_summary()
            except Exception:  # cut off or damaged: whatever the library raises, the records say more
                summary = None
        if summary is not None and summary.channels and summary.statistics is not None:
            for channel in summary.channels.values():
                self._known[k][channel.id] = _channel(channel, summary.schemas)
            counts = self._count(summary.statistics.channel_message_counts, self._known[k])
            if self.counts is not None:
                for channel, count in counts.items():
                    self.counts[channel] = self.counts.get(channel, 0) + count
            return
        self.counts = None
        with path.open("rb") as file:
            for _ in self._file(k, path, file):
                pass

    @staticmethod
    def _count(by_id: dict[int, int], known: dict[int, Channel]) -> dict[Channel, int]:
        found: dict[Channel, int] = {}
        for number, channel in known.items():
            found[channel] = found.get(channel, 0) + by_id.get(number, 0)
        return found

    def _file(self, k: int, path: Path, file: Any) -> Iterator[Record]:
        records, schemas = library("mcap.records"), dict[int, Any]()
        reader = library("mcap.stream_reader").StreamReader(file, emit_chunks=True, validate_crcs=True)
        found = iter(reader.records)
        while True:
            at = file.tell()
            try:
                record = next(found)
            except StopIteration:
                return
            except Exception as error:  # cut off, or no record
                last = getattr(error, "record", None)
                what = "its checksum does not match" if isinstance(last, records.DataEnd) else f"cut off or damaged ({reason(error)})"
                self.damage.append(f"{path}: {what} at byte {at}")
                return
            for inner in self._unpacked(record, records, path, at):
                if isinstance(inner, records.Header):
                    self.profile = self.profile or inner.profile
                elif isinstance(inner, records.Schema):
                    schemas[inner.id] = inner
                elif isinstance(inner, records.Channel):
                    self._known[k][inner.id] = _channel(inner, schemas)
                elif isinstance(inner, records.Message):
                    channel = self._known[k].get(inner.channel_id)
                    if channel is None:
                        self.damage.append(f"{path}: a message of channel {inner.channel_id}, which is not described, at byte {at}")
                        continue
                    yield Message(channel, inner.log_time, inner.publish_time, inner.sequence, inner.data)
                elif isinstance(inner, records.Attachment):
                    yield Attachment(inner.name, inner.media_type, inner.create_time, inner.log_time, inner.data)
                elif isinstance(inner, records.Metadata) and inner.name != ROSBAG2:
                    yield Metadata(inner.name, tuple(inner.metadata.items()))

    def _unpacked(self, record: Any, records: Any, path: Path, at: int) -> list[Any]:
        """A chunk's records, or the record itself."""
        if not isinstance(record, records.Chunk):
            return [record]
        try:
            data = _unpack(record)
            if record.uncompressed_crc and zlib.crc32(data) != record.uncompressed_crc:
                raise BagError("its checksum does not match")
            record.compression, record.data = "", data
            return list(library("mcap.stream_reader").breakup_chunk(record))
        except BackendError:
            raise
        except Exception as error:  # the decompressors and the parser have errors of their own
            self.damage.append(f"{path}: a chunk at byte {at} is damaged ({reason(error)}); its messages are lost")
            return []


def _unpack(chunk: Any) -> bytes:
    """A chunk's records as bytes, of the size that it says and no more."""
    size = chunk.uncompressed_size
    if size > MAX_CHUNK:
        raise BagError(f"it says it has {size} bytes, limit {MAX_CHUNK}")
    if chunk.compression == "":
        return bytes(chunk.data)
    if chunk.compression == "zstd":
        zstandard = library("zstandard")
        stated = zstandard.frame_content_size(chunk.data)
        if stated > size:
            raise BagError(f"it says it has {size} bytes, its frame {stated}")
        data = zstandard.ZstdDecompressor().decompress(chunk.data, max_output_size=size)
    elif chunk.compression == "lz4":
        data = library("lz4.frame").LZ4FrameDecompressor().decompress(chunk.data, max_length=size)
    else:
        raise BagError(f"it is packed with {chunk.compression[:20]!r}, which is not known here")
    if len(data) != size:
        raise BagError(f"it says it has {size} bytes, and has {len(data)}")
    return bytes(data)


def _channel(channel: Any, schemas: dict[int, Any]) -> Channel:
    schema = schemas.get(channel.schema_id)
    if schema is None:
        return Channel(channel.topic, channel.message_encoding, "", "", b"", tuple(channel.metadata.items()))
    kind = (schema.name, schema.encoding, bytes(schema.data))
    return Channel(channel.topic, channel.message_encoding, *kind, tuple(channel.metadata.items()))


__all__ = ["MAX_CHUNK", "ROSBAG2", "McapFiles"]
