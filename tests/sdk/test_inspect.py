"""`percodec inspect`: bundles, packets and logs, whole and damaged; everything else is refused in one line, without waiting."""

from __future__ import annotations

import datetime
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from percodec.sdk import Bundle, EntropyModel, LogWriter, PacketError, VideoCodec, parse_header, read_log
from percodec.sdk.cli import main
from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour
from percodec.sdk.inspect import about_log


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
    assert main(["inspect", str(path), "--json"]) == 1
    said = capsys.readouterr()
    assert "1 damaged record" in said.err
    facts = json.loads(said.out)
    assert (facts["records"], facts["damaged_records"], facts["complete"]) == (1, 1, False)
    assert main(["inspect", str(path), "--allow-damaged"]) == 0
    assert facts["packet_bytes_mean"] == facts["packet_bytes_max"] == len(packet(0))


def predicted_from_before(tiny: Bundle) -> EntropyModel:
    """Tables by the same symbol of the latent before."""
    channels, levels = tiny.latent_shape[0], tiny.levels
    tables = np.arange(levels, dtype=np.int8), np.zeros(levels, np.int8)
    borders = np.arange(MEAN_BINS - 1, dtype=np.int8), np.arange(SPREAD_BINS - 1, dtype=np.int8)
    mapped = np.arange(MEAN_BINS * SPREAD_BINS).astype(np.uint8) % 4
    contexts = [ChannelContexts((Neighbour(channels + c, 0, 0, *tables),), *borders, mapped, 0) for c in range(channels)]
    counts = np.random.default_rng(1).integers(1, 100, (channels * 4, levels))
    cdf = EntropyModel.from_counts(counts).cdf.reshape(channels, 4, levels + 1)
    return EntropyModel(cdf, Contexts(tuple(contexts), levels, 4, temporal=True))


@pytest.fixture
def codec(tiny: Bundle) -> Callable[[int], VideoCodec]:
    """A `VideoCodec` of the tiny bundle's latents with a key packet every fifth."""
    predicted, shape = predicted_from_before(tiny), tiny.latent_shape[1:]
    return lambda stream_id: VideoCodec(tiny.entropy_model, predicted, *shape, stream_id=stream_id, key_every=5)


def undecodable(path: Path, codec: Callable[[int], VideoCodec]) -> int:
    """Packets that decoders, one for each stream, refuse."""
    decoders: dict[int, VideoCodec] = {}
    refused = 0
    for record in read_log(path, allow_damaged=True):
        decoder = decoders.setdefault(parse_header(record.packet).stream_id, codec(0))
        try:
            decoder.decode(record.packet)
        except PacketError:
            refused += 1
    return refused


def test_a_log_of_streams_says_what_is_missing_and_what_that_costs(
    tiny: Bundle, codec: Callable[[int], VideoCodec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    latents = rng.integers(0, tiny.levels, (12, *tiny.latent_shape), dtype=np.uint8)
    streams = {9: codec(9), 300: codec(300)}
    lost = {9: (), 300: (2, 5, 6, 11)}  # within the first five packets; a key packet and the one after it; the last one
    with LogWriter(tmp_path / "a.mcap", tiny) as log:
        for k, latent in enumerate(latents):
            for stream_id, sender in streams.items():
                packet = sender.encode(latent, k, k)
                if k not in lost[stream_id]:
                    log.append(packet, k, k)
                if (stream_id, k) == (9, 7):
                    log.append(packet, k, k)  # came twice
    facts = about_log(read_log(tmp_path / "a.mcap", allow_damaged=True))
    assert facts["streams"] == [9, 300]
    assert (facts["key_packets"], facts["predicted_packets"]) == (3 + 2, 10 + 6)
    assert (facts["counter_gaps"], facts["lost_packets"]) == (2, 3)  # nobody knows of what was lost at the end
    assert facts["repeated_packets"] == 1
    assert facts["frames_without_predecessor"] == 2 + 3  # 3 and 4, then 7, 8 and 9
    assert undecodable(tmp_path / "a.mcap", codec) == facts["frames_without_predecessor"] + facts["repeated_packets"]
    assert main(["inspect", str(tmp_path / "a.mcap")]) == 0
    assert "frames_without_predecessor  5" in capsys.readouterr().out


def test_an_encoder_that_started_again_lost_nothing(tiny: Bundle, codec: Callable[[int], VideoCodec], tmp_path: Path) -> None:
    latents = np.random.default_rng(4).integers(0, tiny.levels, (7, *tiny.latent_shape), dtype=np.uint8)
    with LogWriter(tmp_path / "a.mcap", tiny) as log:
        for begin in (0, 100):
            sender = codec(0)
            for k, latent in enumerate(latents, begin):
                log.append(sender.encode(latent, k, k), k, k)
    facts = about_log(read_log(tmp_path / "a.mcap", allow_damaged=True))
    assert (facts["key_packets"], facts["predicted_packets"]) == (4, 10)
    assert (facts["lost_packets"], facts["repeated_packets"], facts["frames_without_predecessor"]) == (0, 0, 0)
    assert undecodable(tmp_path / "a.mcap", codec) == 0


def test_a_log_cut_or_damaged_anywhere_is_still_inspected(tiny: Bundle, codec: Callable[[int], VideoCodec], tmp_path: Path) -> None:
    path, sender = tmp_path / "a.mcap", codec(0)
    latents = np.random.default_rng(5).integers(0, tiny.levels, (12, *tiny.latent_shape), dtype=np.uint8)
    log = LogWriter(path, tiny)
    begin, ends = log.bytes, []
    for k, latent in enumerate(latents):
        log.append(sender.encode(latent, k, k), k, k)
        ends.append(log.bytes)
    log.close()
    whole = path.read_bytes()
    rng = random.Random(6)
    for size in [*range(begin, begin + 20), *rng.sample(range(begin, ends[-1]), 60), *rng.sample(range(ends[-1], len(whole)), 60)]:
        path.write_bytes(whole[:size])
        facts = about_log(read_log(path, allow_damaged=True))
        assert facts["records"] == facts["key_packets"] + facts["predicted_packets"] == sum(end <= size for end in ends)
        assert (facts["complete"], facts["damaged_records"], facts["frames_without_predecessor"]) == (False, 0, 0)
        assert len(facts["anchors"]) == 1
    for at in rng.sample(range(begin, len(whole)), 60):
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        facts = about_log(read_log(path, allow_damaged=True))
        assert facts["records"] == 12 or facts["damaged_records"] or not facts["complete"]
        assert undecodable(path, codec) == facts["frames_without_predecessor"]
    for size in range(0, begin, 11):  # nothing to tell, and that in one line
        path.write_bytes(whole[:size])
        assert main(["inspect", str(path)]) in (0, 1)


def test_a_live_log_says_when_its_first_frame_was(tiny: Bundle, packet: Callable[[int], bytes], tmp_path: Path) -> None:
    with LogWriter(tmp_path / "live.mcap", tiny, live=True) as log:
        now = log.begun
        log.append(packet(0), 0, now.monotonic_ns - 7)
    facts = about_log(read_log(tmp_path / "live.mcap"))
    assert facts["anchors"][0] == {"monotonic_ns": now.monotonic_ns, "utc_ns": now.utc_ns}
    assert len(facts["anchors"]) == 2
    day = datetime.datetime.fromtimestamp((now.utc_ns - 7) // 10**9, datetime.timezone.utc)
    assert facts["first_frame_utc"] == f"{day:%Y-%m-%dT%H:%M:%S}.{(now.utc_ns - 7) % 10**9:09d}Z"
    with LogWriter(tmp_path / "media.mcap", tiny) as log:
        log.append(packet(0), 0, 0)
    assert about_log(read_log(tmp_path / "media.mcap"))["first_frame_utc"] is None


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


def test_what_a_log_holds_does_not_steer_the_terminal(
    tiny: Bundle, packet: Callable[[int], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LogWriter(tmp_path / "a.mcap", tiny) as log:
        log.append(packet(0), 0, 0)
    data = (tmp_path / "a.mcap").read_bytes()
    for name, odd in ((b"table_hash", b"\x1b]0;x\x07abc"), (b"percodec.Packet", b"\x1b[2Jodec.Packet")):
        data = data.replace(name, odd[: len(name)].ljust(len(name)))
    (tmp_path / "a.mcap").write_bytes(data)
    main(["inspect", str(tmp_path / "a.mcap"), "--allow-damaged"])
    said = capsys.readouterr()
    assert "\\x1b]0;x\\x07" in said.out
    assert "\x1b" not in said.out + said.err
