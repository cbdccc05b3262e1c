"""Messages as CDR bytes, in both byte orders, against an independent reader and writer of ROS messages."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from percodec.runtime.messages.cdr import CameraInfo, CompressedImage, Header, Image, RegionOfInterest, header_from_cdr
from percodec.sdk.errors import MessageError

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = (Image, CompressedImage, CameraInfo)

uint32, uint8 = st.integers(0, 2**32 - 1), st.integers(0, 255)
text = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
number = st.floats(allow_nan=False)
octets = st.binary(max_size=50).map(lambda data: np.frombuffer(data, np.uint8))
headers = st.builds(Header, st.integers(-(2**31), 2**31 - 1), uint32, text)
images = st.builds(Image, headers, uint32, uint32, text, uint32, octets, uint8)
compressed = st.builds(CompressedImage, headers, text, octets)
rois = st.builds(RegionOfInterest, uint32, uint32, uint32, uint32, st.booleans())


def _matrix(count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(number, min_size=count, max_size=count).map(tuple)


infos = st.builds(
    CameraInfo,
    headers,
    uint32,
    uint32,
    text,
    st.lists(number, max_size=9).map(tuple),
    _matrix(9),
    _matrix(9),
    _matrix(12),
    uint32,
    uint32,
    rois,
)


def _plain(value: Any) -> Any:
    """Fields of ours and of the other library's messages alike, to compare."""
    if isinstance(value, np.ndarray | tuple):
        return np.asarray(value).tolist()
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.name != "__msgtype__"}
    return value


def _ours(message: Any) -> Any:
    fields = _plain(message)
    header = fields["header"]
    fields["header"] = {"stamp": {"sec": header["sec"], "nanosec": header["nanosec"]}, "frame_id": header["frame_id"]}
    return fields


@settings(max_examples=60, deadline=None)
@given(message=st.one_of(images, compressed, infos), big=st.booleans())
def test_another_library_reads_what_we_write_and_writes_what_we_read(message: Any, big: bool) -> None:
    data = message.to_cdr(big_endian=big)
    theirs = STORE.deserialize_cdr(data, message.NAME)
    assert _plain(theirs) == _ours(message)
    again = bytes(STORE.serialize_cdr(theirs, message.NAME, little_endian=not big))
    assert again == data
    back = type(message).from_cdr(again)
    assert back.to_cdr(big_endian=big) == data
    assert header_from_cdr(data) == message.header


@pytest.mark.parametrize("kind", TYPES)
def test_definition_and_type_hash_are_those_of_ros(kind: Any) -> None:
    for store in (STORE, get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS2_KILTED)):
        assert store.generate_msgdef(kind.NAME, ros_version=2)[0].rstrip("\n") == kind.DEFINITION
        assert store.hash_rihs01(kind.NAME) == kind.TYPE_HASH


def test_pixels_are_a_view() -> None:
    data = bytearray(Image(Header(1, 2, "camera"), 1, 2, "rgb8", 6, np.arange(6, dtype=np.uint8)).to_cdr())
    image = Image.from_cdr(data)
    data[-1] = 99
    assert image.data.tolist() == [0, 1, 2, 3, 4, 99]


def test_a_stamp_and_a_frame_id_survive_whatever_they_are() -> None:
    assert Header.at(1_700_000_000_123_456_789) == Header(1_700_000_000, 123_456_789)
    assert Header.at(-1).stamp_ns == -1
    odd = Header(-5, 2_000_000_000, b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert CompressedImage.from_cdr(CompressedImage(odd, "", np.empty(0, np.uint8)).to_cdr()).header == odd


def test_an_empty_string_without_its_nul_and_a_padded_end_are_read() -> None:
    data = struct.pack("<4sIIII", b"\0\1\0\0", 7, 8, 0, 0) + struct.pack("<I", 3) + b"abc\0"
    image = CompressedImage.from_cdr(data)
    assert (image.header, image.format, image.data.tobytes()) == (Header(7, 8, ""), "", b"abc")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        Image(Header(1, 2, "camera"), 2, 2, "rgb8", 6, np.arange(12, dtype=np.uint8)),
        CompressedImage(Header(1, 2, "camera"), "jpeg", np.arange(12, dtype=np.uint8)),
        CameraInfo(Header(1, 2, "camera"), 2, 2, "plumb_bob", (0.1,) * 5),
    ],
)
def test_a_message_cut_anywhere_is_refused(message: Any, big: bool) -> None:
    data = message.to_cdr(big_endian=big)
    for length in range(len(data)):
        with pytest.raises(MessageError):
            type(message).from_cdr(data[:length])


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), kind=st.sampled_from(TYPES))
def test_no_bytes_do_more_than_be_refused(data: bytes, kind: Any) -> None:
    for head in (b"", b"\0\1\0\0", b"\0\0\0\0"):
        with contextlib.suppress(MessageError):
            kind.from_cdr(head + data)


def test_a_length_that_is_not_there_reserves_nothing() -> None:
    data = struct.pack("<4sIII1sxxxI", b"\0\1\0\0", 1, 2, 1, b"\0", 2**32 - 1)
    with pytest.raises(MessageError, match="4294967295 bytes are missing"):
        CompressedImage.from_cdr(data)


def test_what_a_field_cannot_hold_is_refused() -> None:
    for message in (
        Image(Header(2**31, 0), 1, 1, "mono8", 1, np.zeros(1, np.uint8)),
        Image(Header(), -1, 1, "mono8", 1, np.zeros(1, np.uint8)),
        CameraInfo(Header(), 1, 1, k=(1.0,)),
    ):
        with pytest.raises(MessageError):
            message.to_cdr()
