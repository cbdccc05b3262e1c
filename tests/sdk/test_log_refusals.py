"""What a writer of logs refuses, before anything of it is in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from percodec.sdk import Bundle, LogError, LogWriter, read_log, read_log_key, verify_log

Packet = Callable[[int], bytes]


def test_what_is_no_packet_is_refused_and_the_log_goes_on(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    first, second = packet(0), packet(1)
    with LogWriter(tmp_path / "a.mcap", tiny) as writer:
        writer.append(first, 0, 0)
        for other in (b"", b"picture", second[:-1], second + b"x", second[:50] + b"?" + second[51:], "text", None):
            with pytest.raises(LogError, match="what frame 1 came with is no packet"):
                writer.append(other, 1, 1)  # type: ignore[arg-type]
        writer.append(memoryview(second), 1, 1)  # type: ignore[arg-type]
    assert [record.packet for record in read_log(tmp_path / "a.mcap")] == [first, second]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"stream_id": 65536}, "stream_id must be 0..65535, got 65536"),
        ({"sync": "always"}, "sync is none or interval, got 'always'"),
        ({"key": b"short"}, "has 5 bytes, a key has 32 to 4096"),
        ({"key": "k" * 32}, "is bytes, got str"),
    ],
)
def test_wishes_that_cannot_be_met_leave_nothing(tmp_path: Path, tiny: Bundle, wish: dict[str, Any], text: str) -> None:
    with pytest.raises(LogError, match=text):
        LogWriter(tmp_path / "a.mcap", tiny, **wish)
    assert not list(tmp_path.iterdir())


def test_paths_are_text_or_paths(tmp_path: Path, tiny: Bundle, packet: Packet) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    (tmp_path / "key").chmod(0o600)
    key = read_log_key(str(tmp_path / "key"))
    with LogWriter(str(tmp_path / "a.mcap"), tiny, key=key) as writer:
        writer.append(packet(0), 0, 0)
    assert verify_log(str(tmp_path / "a.mcap"), key).whole
    with pytest.raises(LogError, match="has 5 bytes, a key has 32"):
        verify_log(tmp_path / "a.mcap", b"short")
