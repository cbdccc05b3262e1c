"""`replay` and `decode` of logs that are damaged, or that somebody edited: whatever is wrong is named, and ends with 1."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.once import Once

from percodec.sdk import mcap
from percodec.sdk.cli import main
from percodec.sdk.codec import parse_header
from percodec.sdk.codec.header import CRC, LAYOUT

Record = tuple[int, bytes]
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def pristine_run(once: Once, bundle_folder: Path) -> Path:
    """Five frames of the road, their log and their lines."""

    def make(folder: Path) -> None:
        words = ["run", "synthetic://road?frames=5&height=96&width=128", "--out", str(folder), "--bundle", str(bundle_folder)]
        assert main([*words, "--no-selftest", "--no-overlay", "--no-sheet"]) == 0

    return once("replayed", make)


@pytest.fixture
def drive(pristine_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine_run, tmp_path / "drive"))


def records_of(data: bytes) -> list[Record]:
    found, at = [], len(mcap.MAGIC)
    while at < len(data) - len(mcap.MAGIC):
        opcode, size = mcap.PREFIX.unpack_from(data, at)
        if opcode == mcap.DATA_END:
            break
        found.append((opcode, data[at + mcap.PREFIX.size : at + mcap.PREFIX.size + size]))
        at += mcap.PREFIX.size + size
    return found


def edit(drive: Path, change: Callable[[list[Record], list[Record]], list[Record]]) -> Path:
    """`change` gets the records before the messages and the messages."""
    path = drive / "packets.mcap"
    records = [r for r in records_of(path.read_bytes()) if r[0] != mcap.METADATA or b"closed" not in r[1]]
    records = change([r for r in records if r[0] != mcap.MESSAGE], [r for r in records if r[0] == mcap.MESSAGE])
    body = b"".join(mcap.record(*r) for r in [*records, (mcap.DATA_END, bytes(4)), (mcap.FOOTER, bytes(20))])
    path.write_bytes(mcap.MAGIC + body + mcap.MAGIC)
    return path


def with_field(message: bytes, place: int, value: int) -> bytes:
    """The message with one field of its packet's header changed, and its checksum made right."""
    from percodec.sdk.codec.reference import crc32c

    head, packet = message[: mcap.MESSAGE_HEAD.size], message[mcap.MESSAGE_HEAD.size :]
    fields = list(LAYOUT.unpack_from(packet))
    fields[place] = value
    layout = LAYOUT.pack(*fields)
    packet = layout + CRC.pack(crc32c(layout + packet[LAYOUT.size + CRC.size :])) + packet[LAYOUT.size + CRC.size :]
    parse_header(packet)
    return head + packet


def with_head(message: bytes, place: int, value: int) -> bytes:
    fields = list(mcap.MESSAGE_HEAD.unpack_from(message))
    fields[place] = value
    return mcap.MESSAGE_HEAD.pack(*fields) + message[mcap.MESSAGE_HEAD.size :]


def each(change: Callable[[int, bytes], bytes]) -> Callable[[list[Record], list[Record]], list[Record]]:
    return lambda head, messages: [*head, *((op, change(k, content)) for k, (op, content) in enumerate(messages))]


def renamed(old: bytes, new: bytes) -> Callable[[list[Record], list[Record]], list[Record]]:
    assert len(old) == len(new)
    return lambda head, messages: [*((op, content.replace(old, new)) for op, content in head), *messages]


STREAM, FRAME, TIME = 5, 7, 8  # places in the packet's header

EDITS: dict[str, tuple[Callable[[list[Record], list[Record]], list[Record]], str]] = {
    "times that run backwards": (each(lambda k, m: with_field(m, TIME, 10**9 - k)), "times that go back"),
    "message times of 2554": (each(lambda k, m: with_head(m, 2, 2**64 - 9 + k)), "not their packet's"),
    "publish times of their own": (each(lambda k, m: with_head(m, 3, k)), "not their packet's"),
    "records twice": (lambda head, m: [*head, *m[:2], *m], "frames out of order"),
    "one record twice in a row": (lambda head, m: [*head, m[0], *m], "frames twice"),
    "another order": (lambda head, m: [*head, *m[::-1]], "out of order"),
    "another schema": (renamed(b"percodec.Packet", b"percodec.Puckit"), "schema is 'percodec.Puckit'"),
    "another topic": (renamed(b"/percodec/packets", b"/percodec/puckits"), "topic is '/percodec/puckits'"),
    "another encoding": (
        renamed(b"application/x-percodec-packet", b"application/x-percodec-puckit"),
        "not declared as channels of packets",
    ),
    "a channel that is not declared": (each(lambda k, m: with_head(m, 0, 2 if k else 1)), "not declared"),
    "one sequence number for all": (each(lambda k, m: with_head(m, 1, 7)), "do not rise"),
    "a record taken out": (lambda head, m: [*head, *m[:2], *m[3:]], "1 missing by the sequence numbers"),
    "another stream": (each(lambda k, m: with_field(m, STREAM, 3)), "another stream than 0"),
    "no records": (lambda head, m: head, "acknowledged|holds no packets|missing"),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("alone", [False, True])
def test_replay_names_what_contradicts_itself(drive: Path, bundle_folder: Path, capsys: Said, name: str, alone: bool) -> None:
    change, words = EDITS[name]
    log = edit(drive, change)
    if alone:
        (drive / "frames.jsonl").unlink()
    assert main(["replay", str(log), "--bundle", str(bundle_folder)]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert any(word in said.err + said.out for word in words.split("|")), said
    assert main(["replay", str(log), "--bundle", str(bundle_folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["equal"] is (name == "no records" and alone)


def test_an_unedited_log_rewritten_by_hand_is_equal(drive: Path, bundle_folder: Path, capsys: Said) -> None:
    log = edit(drive, lambda head, messages: [*head, *messages])
    assert main(["replay", str(log), "--bundle", str(bundle_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"] == 5


def later(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "timestamp_ns": line["timestamp_ns"] + 1}


def larger(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "packet_bytes": line["packet_bytes"] + 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [later(line) for line in lines], "times that are not those of the JSON lines"),
        (lambda lines: [larger(line) for line in lines], "packets of another size"),
        (lambda lines: [*lines[:2], *lines], "JSON lines twice or out of order"),
        (lambda lines: [*lines[:2], *lines[3:]], "frames without a JSON line"),
    ],
)
def test_replay_compares_the_lines(drive: Path, bundle_folder: Path, capsys: Said, change: Callable[[Any], Any], words: str) -> None:
    path = drive / "frames.jsonl"
    lines = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["replay", str(drive / "packets.mcap"), "--bundle", str(bundle_folder)]) == 1
    assert words in capsys.readouterr().err


def test_the_newest_frame_may_lack_its_line(drive: Path, bundle_folder: Path) -> None:
    path = drive / "frames.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:-1]))
    assert main(["replay", str(drive / "packets.mcap"), "--bundle", str(bundle_folder)]) == 0


def test_one_wrong_bit_is_said_by_every_command_and_forgiven_when_told(
    drive: Path, bundle_folder: Path, tmp_path: Path, capsys: Said
) -> None:
    (drive / "frames.jsonl").unlink()
    log = drive / "packets.mcap"
    data = bytearray(log.read_bytes())
    second = data.find(b"PC\x10", data.find(b"PC\x10") + 3)
    data[second + 50] ^= 1
    log.write_bytes(data)
    bundle = ["--bundle", str(bundle_folder)]
    commands = [
        ["inspect", str(log)],
        ["replay", str(log), *bundle],
        ["decode", str(log), "-o", str(tmp_path / "o"), "--overwrite", *bundle],
    ]
    for command in commands:
        assert main(command) == 1
        assert "1 damaged record: " in capsys.readouterr().err, command[0]
        assert main([*command, "--json"]) == 1
        capsys.readouterr()
        assert main([*command, "--allow-damaged"]) == 0, command[0]
        assert capsys.readouterr().err == ""


def test_damage_forgives_no_difference(drive: Path, bundle_folder: Path, capsys: Said) -> None:
    path = drive / "frames.jsonl"
    path.write_text(path.read_text().replace('"latent_crc":"', '"latent_crc":"0'))
    assert main(["replay", str(drive / "packets.mcap"), "--bundle", str(bundle_folder), "--allow-damaged"]) == 1
    assert "another latent" in capsys.readouterr().err
