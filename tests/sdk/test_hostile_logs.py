"""Logs made to mislead, starve or hang a reader: each is refused, or read with the fault named, and nothing of it decodes."""

from __future__ import annotations

import os
import re
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from percodec.sdk import Bundle, LogError, LogWriter, mcap, read_log
from percodec.sdk.log.names import ENCODING, SCHEMA, TOPIC

M = mcap.MAGIC


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(data)) + data


class Kit:
    """A small log in pieces."""

    def __init__(self, data: bytes, packets: list[bytes]) -> None:
        self.whole, self.packets = data, packets
        self.messages = [mcap.message(k, k, packet) for k, packet in enumerate(packets)]
        self.head = data[: data.index(self.messages[0])]
        self.tail = data[data.index(self.messages[-1]) + len(self.messages[-1]) :]
        at = len(M) + 9 + struct.unpack_from("<Q", data, len(M) + 1)[0]
        self.metadata = mcap.PREFIX.size + struct.unpack_from("<Q", data, at + 1)[0]
        self.before, self.after = data[:at], data[at + self.metadata : len(self.head)]
        self.opened = data[at : at + self.metadata]

    def log(self, *records: bytes, head: bytes | None = None, tail: bytes | None = None) -> bytes:
        return (self.head if head is None else head) + b"".join(records) + (self.tail if tail is None else tail)

    def chunk(
        self, inside: bytes, size: int | None = None, crc: int = 0, compression: str | bytes = "", packed: int | None = None
    ) -> bytes:
        head = struct.pack("<QQQI", 0, 0, len(inside) if size is None else size, crc) + text(compression)
        return mcap.record(mcap.CHUNK, head + struct.pack("<Q", len(inside) if packed is None else packed) + inside)

    def channel(self, number: int, topic: str = TOPIC, encoding: str = ENCODING, schema: int = 1) -> bytes:
        return mcap.record(mcap.CHANNEL, struct.pack("<HH", number, schema) + text(topic) + text(encoding) + struct.pack("<I", 0))

    def message(self, packet: bytes, channel: int = 1, sequence: int = 0) -> bytes:
        return mcap.record(mcap.MESSAGE, mcap.MESSAGE_HEAD.pack(channel, sequence, 0, 0) + packet)


def other_values(kit: Kit) -> bytes:
    return mcap.metadata_record("percodec", {"bundle_digest": "00" * 32, "bundle_name": "other"})


LOGS: dict[str, tuple[Callable[[Kit], bytes], str]] = {
    "nothing": (lambda k: b"", "not an MCAP file"),
    "half a magic": (lambda k: M[:4], "not an MCAP file"),
    "another magic": (lambda k: b"\x89MCAP1\r\n" + k.whole[8:], "not an MCAP file"),
    "a zip": (lambda k: b"PK\3\4" + k.whole, "not an MCAP file"),
    "magic alone": (lambda k: M, "cut off or damaged before its first packet"),
    "magic twice": (lambda k: M + M, "cut off or damaged before its first packet"),
    "zeros": (lambda k: M + bytes(4096), "cut off or damaged before its first packet"),
    "ones": (lambda k: M + b"\xff" * 4096, "cut off or damaged before its first packet"),
    "no metadata": (lambda k: k.before + k.after + b"".join(k.messages) + k.tail, "no metadata of percodec"),
    "metadata of somebody else": (lambda k: k.log(*k.messages, head=k.before + mcap.metadata_record("other", {}) + k.after), "no metadata"),
    "metadata that reach past the end": (lambda k: k.before + mcap.PREFIX.pack(mcap.METADATA, 1 << 62), "nothing of it can be read"),
    "a name longer than its record": (
        lambda k: k.log(*k.messages, head=k.before + mcap.record(mcap.METADATA, struct.pack("<I", 1 << 31) + b"percodec") + k.after),
        "metadata cannot be read",
    ),
    "a map longer than its record": (
        lambda k: k.log(*k.messages, head=k.before + mcap.record(mcap.METADATA, text("percodec") + struct.pack("<I", 1 << 31)) + k.after),
        "metadata cannot be read",
    ),
    "metadata that are no text": (
        lambda k: k.log(
            *k.messages, head=k.before + mcap.record(mcap.METADATA, text("percodec") + struct.pack("<I", 6) + text(b"\xff\xfe")) + k.after
        ),
        "metadata cannot be read",
    ),
    "two logs in one": (lambda k: k.log(*k.messages[:1], other_values(k), *k.messages[1:]), "merged from several logs"),
    "a second header": (lambda k: k.log(*k.messages, mcap.record(mcap.HEADER, text("") + text(""))), "a second header"),
    "a channel twice": (lambda k: k.log(k.channel(1, "/else"), *k.messages), "channel 1 is declared twice"),
    "a schema twice": (
        lambda k: k.log(mcap.record(mcap.SCHEMA, struct.pack("<H", 1) + text("Else") + text("") + text("")), *k.messages),
        "schema 1 is declared twice",
    ),
    "a channel that is cut": (lambda k: k.log(mcap.record(mcap.CHANNEL, b"\7"), *k.messages), "damaged record"),
    "a schema that is cut": (lambda k: k.log(mcap.record(mcap.SCHEMA, b"\7"), *k.messages), "damaged record"),
    "packets on an undeclared channel": (lambda k: k.log(*(k.message(p, 9) for p in k.packets)), "not declared as channels of packets"),
    "one stream on two channels": (lambda k: k.log(k.channel(2), *k.messages, k.message(k.packets[0], 2)), "come on two channels"),
    "a message without a head": (lambda k: k.log(mcap.record(mcap.MESSAGE, b"\1\0"), *k.messages), "a message without a head"),
    "an empty packet": (lambda k: k.log(k.message(b""), *k.messages), "shorter than a header"),
    "a packet that is cut": (lambda k: k.log(k.message(k.packets[0][:60]), *k.messages[1:]), "fails its CRC-32C|cut off"),
    "a packet with one bit flipped": (
        lambda k: k.log(k.message(k.packets[0][:70] + bytes([k.packets[0][70] ^ 1]) + k.packets[0][71:]), *k.messages[1:]),
        "fails its CRC-32C",
    ),
    "a packet of another magic": (lambda k: k.log(k.message(b"XX" + k.packets[0][2:]), *k.messages[1:]), "not a packet"),
    "a packet of 20 MB": (lambda k: k.log(k.message(k.packets[0] + bytes(20 << 20)), *k.messages[1:]), "damaged record"),
    "a record that is not there": (lambda k: k.log(k.messages[0], k.messages[2]), "1 missing by the sequence numbers"),
    "a time that was changed": (
        lambda k: k.whole.replace(k.messages[1], k.messages[1][:20] + b"\7" + k.messages[1][21:]),
        "checksum over the whole file differs",
    ),
    "bytes after its end": (lambda k: k.whole + b"more", "4 bytes after its end"),
    "a chunk that unpacks to less": (
        lambda k: k.log(k.chunk(b"".join(k.messages), size=10**6)),
        "the chunk at byte .*ends within a record",
    ),
    "a chunk that unpacks to more": (lambda k: k.log(k.chunk(b"".join(k.messages), size=10)), "the chunk at byte"),
    "a chunk of a terabyte": (lambda k: k.log(k.chunk(b"".join(k.messages), size=1 << 40)), "would unpack to"),
    "a chunk whose checksum differs": (lambda k: k.log(k.chunk(b"".join(k.messages), crc=7)), "its checksum differs"),
    "a chunk of an unknown packing": (lambda k: k.log(k.chunk(b"".join(k.messages), compression="xz")), "its compression is 'xz'"),
    "a packing with a long name": (lambda k: k.log(k.chunk(b"", compression="z" * 64)), "its compression has no name"),
    "a packing whose name is no text": (lambda k: k.log(k.chunk(b"", compression=b"\xff")), "the chunk at byte"),
    "a chunk within a chunk": (lambda k: k.log(k.chunk(k.chunk(b"".join(k.messages)))), "kind 6, which chunks must not hold"),
    "a chunk with metadata": (lambda k: k.log(k.chunk(other_values(k))), "kind 12, which chunks must not hold"),
    "a chunk without a head": (lambda k: k.log(mcap.record(mcap.CHUNK, bytes(7)), *k.messages), "it has no head"),
    "zstd that is none": (
        lambda k: k.log(k.chunk(b"\x28\xb5\x2f\xfd" + b"\xff" * 60, size=100, compression="zstd")),
        "the chunk at byte|needs",
    ),
    "lz4 that is none": (
        lambda k: k.log(k.chunk(b"\x04\x22\x4d\x18" + b"\xff" * 60, size=100, compression="lz4")),
        "the chunk at byte|needs",
    ),
}


@pytest.fixture
def kit(tiny: Bundle, packet: Callable[[int], bytes], tmp_path: Path) -> Kit:
    packets = [packet(k) for k in range(3)]
    with LogWriter(tmp_path / "good.mcap", tiny) as log:
        for k, one in enumerate(packets):
            log.append(one, k, k)
    return Kit((tmp_path / "good.mcap").read_bytes(), packets)


def test_there_are_forty_and_the_kit_makes_a_good_one(kit: Kit, tmp_path: Path) -> None:
    assert len(LOGS) >= 40
    assert kit.log(*kit.messages) == kit.whole
    assert SCHEMA.encode() in kit.whole
    assert len(list(read_log(tmp_path / "good.mcap"))) == 3


@pytest.mark.parametrize("name", LOGS)
def test_hostile_logs_are_refused_with_the_reason(kit: Kit, tmp_path: Path, name: str) -> None:
    make, said = LOGS[name]
    path = tmp_path / "hostile.mcap"
    path.write_bytes(make(kit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LogError) as caught:
        list(read_log(path))
    assert re.search(said, str(caught.value)), caught.value
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10  # kB


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to itself", "absent", "device", "sparse"])
def test_what_is_no_file_makes_nobody_wait(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log.mcap"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.write(M)
            file.truncate(1 << 40)
    with pytest.raises(LogError):
        list(read_log(path))
