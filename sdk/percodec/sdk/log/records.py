"""The records of an MCAP file one after the other, those in chunks as well, never more of them in memory than one.

    file -> Window -> records -> chunk -> unpacked, in pieces -> Window -> records

What a chunk says of its size is checked before and while it is unpacked; a chunk that turns out wrong costs what is in it from there on.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

from percodec.sdk import mcap
from percodec.sdk.errors import LogError
from percodec.sdk.log.names import MAX_RECORD_BYTES

MAX_CHUNK_BYTES = 256 << 20  # unpacked
MOST_PACKED = 1024  # to one; what unpacks to more was made to keep a reader busy
_FREE = 1 << 20  # of that rule: small chunks of zeros are small
_PIECE = 1 << 18
_WINDOW_BYTES = 1 << 27  # a zstd frame may ask for gigabytes


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Window:
    """The next `left` bytes of a stream. `crc`: CRC-32 of what was read; `short`: the stream ended before the window did.

    `cut`: the record it is the content of reaches further.
    """

    def __init__(self, stream: _Stream, left: int, crc: int = 0, cut: bool = False) -> None:
        self.left, self.crc, self.short, self.cut = left, crc, False, cut
        self._stream = stream

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        wanted = min(size, self.left)
        data = self._stream.read(wanted)
        while len(data) < wanted:
            more = self._stream.read(wanted - len(data))
            if not more:
                self.left, self.short = len(data), True
                break
            data += more
        self.left -= len(data)
        self.crc = zlib.crc32(data, self.crc)
        return data

    def skip(self) -> None:
        """Read to the end."""
        while self.left:
            self.read(_PIECE)


def framed(window: Window) -> Iterator[tuple[int, Window]]:
    """(opcode, content) of each record; what its taker leaves of the content is passed over.

    A chunk that the window cuts is given as far as it goes. Raises ValueError where no record follows.
    """
    while window.left:
        prefix = window.read(mcap.PREFIX.size)
        if len(prefix) < mcap.PREFIX.size:
            raise ValueError("it ends within a record")
        opcode, size = mcap.PREFIX.unpack(prefix)
        if not (1 <= opcode <= mcap.DATA_END or opcode >= mcap.PRIVATE):
            raise ValueError(f"a record of kind {opcode}, which there is none of")
        if size > window.left and opcode != mcap.CHUNK:
            raise ValueError("a record reaches past the end")
        content = Window(window, min(size, window.left), cut=size > window.left)
        yield opcode, content
        content.skip()
        if window.short:
            raise ValueError("it ends within a record")


class Records:
    """Iterates (opcode, content) of headers, schemas, channels, messages and metadata, from the first to the end of the data.

    Content is whole up to `MAX_RECORD_BYTES`, of larger records its first bytes. `faults`: what could not be read, in words. `whole`: the
    file ended as it should. `agrees`: False where the file has a checksum over all of it, and that differs.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.faults: list[str] = []
        self.whole, self.agrees = False, True
        size = file.seek(0, 2)
        file.seek(0)
        self._file, self._size = Window(file, size), size

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        file, ended = self._file, False
        file.read(len(mcap.MAGIC))
        before = file.crc
        try:
            for opcode, content in framed(file):
                if opcode == mcap.FOOTER:
                    content.skip()
                    self._end()
                    return
                if opcode == mcap.DATA_END and content.left == 4:
                    ended = True
                    self.agrees = int.from_bytes(content.read(4), "little") in (0, before)  # 0: written without
                elif not ended and opcode == mcap.CHUNK:
                    yield from self._chunk(content)
                elif not ended and opcode in _WANTED:
                    yield opcode, _content(content)
                content.skip()
                before = file.crc
        except ValueError:
            return  # cut off: `whole` is False

    def _end(self) -> None:
        self.whole = self._file.read(len(mcap.MAGIC)) == mcap.MAGIC
        if self.whole and self._file.left:
            self.faults.append(f"{self._file.left} bytes after its end")

    def _chunk(self, content: Window) -> Iterator[tuple[int, bytes]]:
        at = self._size - self._file.left - mcap.PREFIX.size
        try:
            size, crc, compression, packed = _chunk_head(content)
            if packed > content.left and not content.cut:
                raise ValueError("what is packed reaches past its end")
            if size > MAX_CHUNK_BYTES or size > max(_FREE, MOST_PACKED * packed):
                raise ValueError(f"{packed} bytes would unpack to {size}")
            source = Window(content, min(packed, content.left))
            inside = Window(_unpacked(compression, source), size)
            for opcode, record in framed(inside):
                if opcode in _IN_CHUNKS:
                    yield opcode, _content(record)
                elif opcode < mcap.PRIVATE:
                    raise ValueError(f"a record of kind {opcode}, which chunks must not hold")
            if inside.short or (compression and inside._stream.read(1)) or source.left:
                raise ValueError("it unpacks to another size than it says")
            if crc not in (0, inside.crc):
                raise ValueError("its checksum differs")
        except _unpacking_errors() as error:
            if not content.cut:
                self.faults.append(f"the chunk at byte {at}: {error}")
        if content.cut:
            raise ValueError("the file ends within a chunk")


_WANTED = frozenset((mcap.HEADER, mcap.SCHEMA, mcap.CHANNEL, mcap.MESSAGE, mcap.METADATA))
_IN_CHUNKS = frozenset((mcap.SCHEMA, mcap.CHANNEL, mcap.MESSAGE))


def _content(window: Window) -> bytes:
    data = window.read(window.left if window.left <= MAX_RECORD_BYTES else mcap.MESSAGE_HEAD.size)
    if window.short:
        raise ValueError("it ends within a record")
    return data


def _chunk_head(content: Window) -> tuple[int, int, str, int]:
    """Unpacked size, CRC-32 of that, compression, and packed size. Raises ValueError."""
    try:
        _, _, size, crc, name = struct.unpack("<QQQII", content.read(32))
        if name > 32:
            raise ValueError("its compression has no name")
        compression = content.read(name).decode()
        (packed,) = struct.unpack("<Q", content.read(8))
    except struct.error as error:
        raise ValueError("it has no head") from error
    return size, crc, compression, packed


def _unpacked(compression: str, source: Window) -> _Stream:
    """Raises ValueError for a compression that MCAP has not, `LogError` where the package for it is not installed."""
    try:
        if compression == "":
            return source
        if compression == "zstd":
            import zstandard

            unpacker: Any = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
            reader: _Stream = unpacker.stream_reader(source, read_across_frames=True)
            return reader
        if compression == "lz4":
            return _Lz4(source)
    except ImportError as error:
        raise LogError(f"its chunks are packed with {compression}, which needs {error.name}: pip install 'percodec[bag]'") from error
    raise ValueError(f"its compression is {compression!r}; zstd, lz4 and none are known")


def _unpacking_errors() -> tuple[type[Exception], ...]:
    """What a chunk that is not what it says may raise; lz4 raises plain RuntimeError."""
    zstandard = sys.modules.get("zstandard")
    return (ValueError, RuntimeError, EOFError, *((zstandard.ZstdError,) if zstandard else ()))


class _Lz4:
    """An LZ4 frame, unpacked in pieces."""

    def __init__(self, source: Window) -> None:
        import lz4.frame

        self._source = source
        self._frame: Any = lz4.frame.LZ4FrameDecompressor()

    def read(self, size: int, /) -> bytes:
        while not self._frame.eof:
            packed = self._source.read(_PIECE) if self._frame.needs_input else b""
            if not packed and self._frame.needs_input:
                return b""
            if data := self._frame.decompress(packed, max_length=size):
                return bytes(data)
        return b""


__all__ = ["MAX_CHUNK_BYTES", "Records", "Window", "framed"]
