"""Another vendor's DDS, Eclipse Cyclone, on the same wire: it sends images to our node and reads its packets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.ros_graph import Graph

from percodec.runtime.messages.format import PacketFormat
from percodec.sdk.codec import parse_header

STRANGER = Path(__file__).with_name("stranger.py")


def test_cyclone_sends_images_and_reads_packets(graph: Graph, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedds")
    graph.run("encode", predict=False)
    graph.until(lambda: graph.status("encode").get("state") == "active")
    stranger = graph.start([sys.executable, str(STRANGER), str(graph.domain), str(tmp_path)], "stranger")
    graph.until(lambda: stranger.popen.poll() == 0, "ten packets over there")
    files = sorted(tmp_path.glob("*.packet"))
    assert len(files) == 10
    for file in files:
        text, _, packet = file.read_bytes().partition(b"\n")
        form, header = PacketFormat.from_text(text.decode()), parse_header(packet)
        assert (form.encoding, form.width, form.height) == ("rgb8", 480, 360)
        assert header.timestamp_ns == int(file.stem)
