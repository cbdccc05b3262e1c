"""The `format` string of a packet's message."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from percodec.runtime.messages.format import FORBIDDEN, VERSION, PacketFormat, is_packet_format
from percodec.sdk.codec.header import VERSION as PACKET_VERSION
from percodec.sdk.errors import BundleError, MessageError
from percodec.sdk.fit import padded


def _bundle(name: str = "road-edge") -> SimpleNamespace:
    return SimpleNamespace(name=name, digest="3982f12bb620" + "0" * 52)


def test_it_says_all_a_reader_needs() -> None:
    made = PacketFormat.of(_bundle(), "bgr8", 1280, 720, "crop")
    assert str(made) == "bgr8; percodec 1.0 road-edge@3982f12bb620 1280x720 crop"
    assert PacketFormat.from_text(str(made)) == made
    assert is_packet_format(str(made))
    assert not is_packet_format("bgr8; jpeg compressed bgr8")


def test_its_version_is_the_packets() -> None:
    assert f"{PACKET_VERSION >> 4}.{PACKET_VERSION & 15}" == VERSION


@pytest.mark.parametrize("word", FORBIDDEN)
def test_no_viewer_takes_it_for_a_picture(word: str) -> None:
    with pytest.raises(BundleError, match="rename"):
        PacketFormat.of(_bundle(f"my-{word.upper()}-bundle"), "bgr8", 8, 8, "crop")
    assert word not in str(PacketFormat.of(_bundle(), "bayer_rggb8", 1280, 720, "letterbox"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jpeg",
        "bgr8; percodec 2.0 road-edge@3982f12bb620 1280x720 crop",
        "bgr8; percodec 1.0 road-edge@3982f12bb62 1280x720 crop",
        "bgr8; percodec 1.0 road-edge@3982f12bb620 0x720 crop",
        "bgr8; percodec 1.0 road-edge@3982f12bb620 1280x16385 crop",
        "bgr8; percodec 1.0 road-edge@3982f12bb620 16384x16384 pad",
        "bgr8; percodec 1.0 road-edge@3982f12bb620 1280x720 zoom",
        "bgr8; percodec 1.0 road-edge@3982f12bb620 1280x720 crop\n",
        "bgr8; percodec 1.0 ../x@3982f12bb620 1280x720 crop",
    ],
)
def test_another_format_is_refused(text: str) -> None:
    with pytest.raises(MessageError):
        PacketFormat.from_text(text)


def test_a_newer_minor_version_is_read() -> None:
    assert PacketFormat.from_text("bgr8; percodec 1.7 road-edge@3982f12bb620 8x8 pad").fit == "pad"


def test_padding_fills_whole_cells() -> None:
    assert [padded(side) for side in (1, 8, 9, 720, 721)] == [8, 8, 16, 720, 728]
