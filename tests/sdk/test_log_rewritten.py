"""Logs as other tools leave them: in chunks, packed, beside other topics, without a summary, split, cut; and forged."""

from __future__ import annotations

import io
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from percodec.sdk import Bundle, LogError, LogReader, LogWriter, mcap, read_log
from percodec.sdk.cli import main
from percodec.sdk.log.names import ENCODING

Packet = Callable[[int], bytes]
COUNT = 9


@pytest.fixture
def log(tmp_path: Path, tiny: Bundle, packet: Packet) -> Path:
    with LogWriter(tmp_path / "log.mcap", tiny) as writer:
        for k in range(COUNT):
            writer.append(packet(k), k, 1_000_000 * k)
    return tmp_path / "log.mcap"


def frames(path: Path, **options: bool) -> list[int]:
    return [record.frame_id for record in read_log(path, **options)]


def rewritten(
    log: Path, name: str, *, others: int = 0, metadata: str = "first", keep: Iterable[int] = range(COUNT), **options: Any
) -> Path:
    """By the independent package `mcap`, as its users do; `others`: messages of another topic between two of ours."""
    reader, writer = pytest.importorskip("mcap.reader"), pytest.importorskip("mcap.writer")
    out = log.with_name(name)
    with log.open("rb") as source, out.open("wb") as target:
        whole, made, channel = reader.make_reader(source), writer.Writer(target, **options), None
        made.start()
        if metadata == "first":
            for m in whole.iter_metadata():
                made.add_metadata(m.name, m.metadata)
        lidar = made.register_channel("/lidar", "cdr", made.register_schema("Points", "ros2msg", b"float x")) if others else None
        for k, (schema, c, message) in enumerate(whole.iter_messages()):
            if k not in keep:
                continue
            channel = channel or made.register_channel(c.topic, c.message_encoding, made.register_schema(schema.name, schema.encoding, b""))
            made.add_message(channel, message.log_time, message.data, message.publish_time, message.sequence)
            for n in range(others):
                made.add_message(lidar, message.log_time, bytes([k, n]) * 3000, message.log_time, 0)
        if metadata == "last":
            for m in whole.iter_metadata():
                made.add_metadata(m.name, m.metadata)
        made.finish()
    return out


def ways() -> list[dict[str, Any]]:
    try:
        from mcap.writer import CompressionType as Way
        from mcap.writer import IndexType
    except ImportError:
        return []
    ways: list[dict[str, Any]] = [{"compression": way, "chunk_size": size} for way in Way for size in (600, 1 << 20)]
    ways += [{"use_chunking": False}, {"enable_crcs": False, "enable_data_crcs": False}, {"enable_data_crcs": True}]
    bare = {"use_statistics": False, "use_summary_offsets": False, "repeat_channels": False, "repeat_schemas": False}
    return [*ways, {"index_types": IndexType.NONE, **bare}]


@pytest.mark.parametrize("way", ways(), ids=str)
@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("metadata", ["first", "last"])
def test_the_same_records_come_out_however_the_file_was_packed(log: Path, way: dict[str, Any], others: int, metadata: str) -> None:
    path = rewritten(log, "other.mcap", others=others, metadata=metadata, **way)
    before, after = read_log(log), read_log(path)
    assert list(after) == list(before)
    assert not after.truncated
    assert (after.damaged, after.missing, after.strays) == (0, 0, 0)
    assert after.foreign == ({"/lidar": 3 * COUNT} if others else {})
    assert after.metadata == before.metadata
    if "index_types" not in way:
        assert after.anchors == before.anchors
    assert main(["inspect", str(path)]) == 0


def test_parts_of_a_split_log_are_logs_and_what_a_filter_took_is_missing(log: Path) -> None:
    assert frames(rewritten(log, "second.mcap", keep=range(5, COUNT))) == [5, 6, 7, 8]
    holes = rewritten(log, "holes.mcap", keep=[0, 1, 4, 8])
    with pytest.raises(LogError, match="5 missing by the sequence numbers"):
        frames(holes)
    assert frames(holes, allow_damaged=True) == [0, 1, 4, 8]


def test_without_metadata_it_is_refused_and_says_why(log: Path) -> None:
    with pytest.raises(LogError, match="has percodec's packets on /percodec/packets, but no metadata"):
        read_log(rewritten(log, "bare.mcap", metadata="dropped"))


def test_two_logs_in_one_are_refused(log: Path, tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    with LogWriter(tmp_path / "b.mcap", tiny, stream_id=1) as other:
        other.append(packet(1), 1, 1)
    data, metadata = log.read_bytes(), read_log(tmp_path / "b.mcap").metadata
    end = data.index(mcap.metadata_record("percodec.closed", {})[9:24])
    both = tmp_path / "both.mcap"
    both.write_bytes(data[: end - 9] + mcap.metadata_record("percodec", metadata) + mcap.record(mcap.DATA_END, bytes(4)))
    with pytest.raises(LogError, match="merged from several logs"):
        frames(both, allow_damaged=True)
    both.write_bytes(data + data)
    with pytest.raises(LogError, match=f"{len(data)} bytes after its end"):
        frames(both)


def test_a_missing_unpacker_is_named(log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    writer = pytest.importorskip("mcap.writer")
    for name, way in (("zstandard", writer.CompressionType.ZSTD), ("lz4.frame", writer.CompressionType.LZ4)):
        path = rewritten(log, "packed.mcap", compression=way)
        monkeypatch.setitem(sys.modules, name, None)
        assert main(["inspect", str(path)]) == 1
        said = capsys.readouterr().err
        assert "pip install 'percodec[bag]'" in said
        assert said.count("\n") == 1


def test_any_flipped_bit_of_a_packed_log_is_noticed_or_harmless(log: Path) -> None:
    writer = pytest.importorskip("mcap.writer")
    for way in writer.CompressionType:
        path = rewritten(log, "packed.mcap", compression=way, chunk_size=500, enable_data_crcs=True)
        whole, good = path.read_bytes(), list(read_log(path))
        for bit in range(8 * 300, 8 * len(whole) - 8 * 400, 397):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            try:
                found = read_log(path, allow_damaged=True)
                records = list(found)
            except LogError:
                continue
            assert {r.packet for r in records} <= {r.packet for r in good}
            assert found.complaint() or found.truncated or records == good


@pytest.mark.parametrize("way", ["NONE", "ZSTD", "LZ4"])
def test_a_packed_log_that_is_cut_gives_what_is_whole(log: Path, way: str) -> None:
    writer = pytest.importorskip("mcap.writer")
    path = rewritten(log, "packed.mcap", compression=writer.CompressionType[way], chunk_size=400)
    whole = path.read_bytes()
    counts = []
    for size in range(600, len(whole), 97):
        path.write_bytes(whole[:size])
        found = read_log(path)
        counts.append(len(list(found)))
        assert found.truncated
        assert found.complaint() == ""
    assert counts == sorted(counts)
    assert counts[-1] == COUNT


def chunk(size: int, compression: bytes, packed: bytes, crc: int = 0, claimed: int | None = None) -> bytes:
    head = struct.pack("<QQQII", 0, 0, size, crc, len(compression)) + compression
    return mcap.record(mcap.CHUNK, head + struct.pack("<Q", len(packed) if claimed is None else claimed) + packed)


def with_chunk(log: Path, piece: bytes) -> Path:
    data = log.read_bytes()
    at = data.index(b"percodec.closed") - 4 - mcap.PREFIX.size
    path = log.with_name("forged.mcap")
    path.write_bytes(data[:at] + piece + mcap.record(mcap.DATA_END, bytes(4)) + mcap.record(mcap.FOOTER, bytes(20)) + mcap.MAGIC)
    return path


def packed(data: bytes, way: str) -> bytes:
    if way == "zstd":
        zstandard = pytest.importorskip("zstandard")
        made: bytes = zstandard.ZstdCompressor(level=19).compress(data)
        return made
    lz4 = pytest.importorskip("lz4.frame")
    made = lz4.compress(data)
    return made


def forged(way: str) -> dict[str, bytes]:
    named = struct.pack("<I", 4) + b"/big" + struct.pack("<I", 3) + b"raw" + bytes(4)
    message = mcap.record(mcap.CHANNEL, struct.pack("<HH", 9, 0) + named)  # of a topic of others: nothing but the chunk is wrong
    message += mcap.record(mcap.MESSAGE, struct.pack("<HIQQ", 9, 0, 0, 0) + bytes(50))
    return {
        "a size of exabytes": chunk(1 << 60, way.encode(), packed(bytes(1000), way)),
        "a gigabyte out of little": chunk(1 << 30, way.encode(), packed(bytes(1 << 20), way)),
        "more than it says": chunk(1000, way.encode(), packed(bytes(100_000_000), way)),
        "a record more than it says": chunk(len(message), way.encode(), packed(2 * message, way)),
        "less than it says": chunk(1_000_000, way.encode(), packed(bytes(1000), way)),
        "no packed bytes": chunk(1000, way.encode(), b""),
        "not packed at all": chunk(len(message), way.encode(), message),
        "a packed size beyond the record": chunk(len(message), b"", message, claimed=1 << 60),
        "another compression": chunk(len(message), b"bz2", message),
        "a long name": chunk(len(message), b"z" * 70_000, message),
        "a wrong checksum": chunk(len(message), b"", message, crc=1),
        "a chunk in a chunk": chunk(len(chunk(len(message), b"", message)), b"", chunk(len(message), b"", message)),
        "no head": mcap.record(mcap.CHUNK, b"abc"),
        "half a record": chunk(len(message) - 1, b"", message[:-1]),
        "a message of gigabytes": chunk(1 << 20, way.encode(), packed(bytes(1 << 20), way)),
    }


SAID = {
    "a size of exabytes": "would unpack to",
    "a gigabyte out of little": "would unpack to",
    "more than it says": "unpacks to another size|a record",
    "a record more than it says": "unpacks to another size",
    "a wrong checksum": "its checksum differs",
    "another compression": "'bz2'",
}


@pytest.mark.parametrize("way", ["zstd", "lz4"])
def test_forged_chunks_cost_their_records_and_no_memory(log: Path, way: str) -> None:
    for name, piece in forged(way).items():
        path = with_chunk(log, piece)
        found = read_log(path, allow_damaged=True)
        tracemalloc.start()
        assert [r.frame_id for r in found] == list(range(COUNT)), name
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 8 << 20, name
        assert any(words in found.complaint() for words in SAID.get(name, "chunk at byte").split("|")), (name, found.complaint())
        with pytest.raises(LogError, match=r"chunk at byte|damaged"):
            frames(path)


def test_a_large_chunk_is_read_in_pieces(log: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    name = struct.pack("<I", 4) + b"/big" + struct.pack("<I", 3) + b"raw" + bytes(4)
    inside = mcap.record(mcap.CHANNEL, struct.pack("<HH", 9, 0) + name)
    inside += mcap.record(mcap.MESSAGE, struct.pack("<HIQQ", 9, 0, 0, 0) + bytes(60 << 20))
    inside += mcap.record(mcap.PRIVATE, random.Random(1).randbytes(100_000))  # it packs no better than 1024 to one
    path = with_chunk(log, chunk(len(inside), b"zstd", zstandard.ZstdCompressor().compress(inside), zlib.crc32(inside)))
    del inside
    tracemalloc.start()
    found = read_log(path)
    assert len(list(found)) == COUNT
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.foreign == {"/big": 1}
    assert most < 8 << 20


def strays(log: Path, change: Callable[[int, bytes], bytes]) -> LogReader:
    """The log with each record's content changed, read."""
    out, data, at = io.BytesIO(), log.read_bytes(), len(mcap.MAGIC)
    out.write(mcap.MAGIC)
    while True:
        opcode, size = mcap.PREFIX.unpack_from(data, at)
        content = data[at + 9 : at + 9 + size]
        at += 9 + size
        if opcode == mcap.DATA_END:
            break
        out.write(mcap.record(opcode, change(opcode, content)))
    path = log.with_name("changed.mcap")
    path.write_bytes(out.getvalue() + mcap.record(mcap.DATA_END, bytes(4)) + mcap.record(mcap.FOOTER, bytes(20)) + mcap.MAGIC)
    return read_log(path, allow_damaged=True)


def test_packets_on_channels_of_others_are_read_and_counted(log: Path) -> None:
    undeclared = strays(log, lambda op, content: struct.pack("<H", 2) + content[2:] if op == mcap.MESSAGE else content)
    assert (len(list(undeclared)), undeclared.strays) == (COUNT, COUNT)
    renamed = strays(log, lambda op, content: content.replace(ENCODING.encode(), b"x" * len(ENCODING)) if op == mcap.CHANNEL else content)
    assert (len(list(renamed)), renamed.strays) == (COUNT, COUNT)
    assert "not declared as channels of packets" in renamed.complaint()
    with pytest.raises(LogError, match="not declared"):
        frames(renamed.path)


def test_a_log_of_other_things_says_so(log: Path) -> None:
    def other(op: int, content: bytes) -> bytes:
        if op == mcap.MESSAGE:
            return content[:22] + b"{}"
        return content.replace(ENCODING.encode(), b"j" * len(ENCODING)).replace(b"/percodec/packets", b"/percodec/jackets")

    found = strays(log, other)
    assert list(found) == []
    assert found.complaint() == "no channel of packets is declared; its topics: /percodec/jackets"
