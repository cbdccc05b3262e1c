"""`percodec inspect`: bundles, packets and logs, whole and damaged; everything else is refused in one line, without waiting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percodec.sdk import Bundle, LogWriter
from percodec.sdk.cli import main


def test_inspect_bundle_packet_and_log(
    tiny: Bundle, packet: Callable[[int], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(path: Path) -> dict[str, Any]:
        assert main(["inspect", str(path)]) == 0
        assert capsys.readouterr().out
        assert main(["inspect", str(path), "--json"]) == 0
        facts: dict[str, Any] = json.loads(capsys.readouterr().out)
        return facts

    assert look(tiny.path)["digest"] == tiny.digest
    (tmp_path / "a.pcpk").write_bytes(packet(41))
    assert look(tmp_path / "a.pcpk")["frame_id"] == 41
    with LogWriter(tmp_path / "a.mcap", tiny) as log:
        for k in range(4):
            log.append(packet(k), k, k * 500_000_000)
    facts = look(tmp_path / "a.mcap")
    assert (facts["records"], facts["seconds"], facts["complete"]) == (4, 1.5, True)
    assert facts["metadata"]["bundle_digest"] == tiny.digest


@pytest.mark.parametrize("content", [None, b"", b"hello", b"PC" + bytes(60)])
def test_inspecting_something_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    assert main(["inspect", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.startswith(f"percodec: error: {tmp_path}/x")


def test_a_cut_log_and_a_damaged_record_are_named(
    tiny: Bundle, packet: Callable[[int], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mcap"
    log = LogWriter(path, tiny)
    ends = []
    for k in range(3):
        log.append(packet(k), k, k)
        ends.append(log.bytes)
    log.close()
    data = bytearray(path.read_bytes()[: ends[2] - 1])
    data[ends[1] - 1] ^= 1
    path.write_bytes(data)
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["records"], facts["damaged_records"], facts["complete"]) == (1, 1, False)
    assert facts["packet_bytes_mean"] == facts["packet_bytes_max"] == len(packet(0))


def test_a_bundle_says_what_it_holds(tiny: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["labels"] == [label.name for label in tiny.labels]
    assert set(facts["graphs"]) == set(tiny.manifest["graphs"])
    assert f"{tiny.entropy_model.table_hash:016x}" in facts["entropy_tables"]
    assert facts["frame"].startswith(f"{tiny.frame_width}x{tiny.frame_height} ")


def test_what_may_never_end_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert main(["inspect", str(path)]) == 1
        assert "not a regular file" in capsys.readouterr().err
