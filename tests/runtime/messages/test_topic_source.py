"""Frames from a topic without ROS: whose header is whose, what gives way, and what is refused without an end of the run."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from percodec.runtime import Outputs, PipelineOptions, Session
from percodec.runtime.capture.open import open_source
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.runtime.messages.mailbox import Mailbox
from percodec.runtime.messages.topic_source import KEPT, ClockedSource, Origin, Origins, StampingCoder, Throttle, TopicSource
from percodec.sdk.codec import PacketCodec, parse_header
from percodec.sdk.errors import MessageError
from percodec.sdk.synthetic.road import RoadScene
from percodec.sdk.types import PixelFormat

STAMP_NS = 1_700_000_000_000_000_007


def _message(value: int = 0, *, stamp_ns: int = STAMP_NS, encoding: str = "bgr8", step: int = 30, height: int = 4) -> bytes:
    pixels = np.full(height * step, value, np.uint8)
    return Image(Header.at(stamp_ns, f"frame {value}"), height, 8, encoding, step, pixels).to_cdr()


def _source(**words: Any) -> TopicSource:
    return TopicSource("/image", lambda: STAMP_NS + 5_000_000, **words)


def test_a_message_becomes_a_frame_and_finds_its_header_again() -> None:
    source = _source(first_id=7)
    before = time.monotonic_ns()
    source.offer(_message(3))
    frame = source.read()
    assert frame is not None
    assert (frame.frame_id, frame.pixel_format, frame.image.shape) == (7, PixelFormat.BGR8, (4, 8, 3))
    assert frame.image.min() == frame.image.max() == 3
    assert before <= frame.timestamp_ns <= time.monotonic_ns(), "a frame is as old as its message, not as its stamp"
    assert source.origins.of(7) == Origin(Header.at(STAMP_NS, "frame 3"), "bgr8", 8, 4)
    assert source.arrivals.stamp_age_ms == 5
    assert source.next_id == 8


def test_the_newest_message_is_read_and_what_it_replaced_is_counted() -> None:
    source = _source()
    for value in range(4):
        source.offer(_message(value))
    source.close()
    source.offer(_message(9))
    frame = source.read()
    assert frame is not None
    assert frame.image[0, 0, 0] == 3
    assert source.read() is None
    assert (source.arrivals.arrived, source.superseded) == (5, 3)


def test_what_waits_when_the_source_is_closed_is_still_read() -> None:
    source = _source(depth=3)
    for value in range(5):
        source.offer(_message(value))
    source.close()
    frames = [source.read() for _ in range(4)]
    assert [frame and int(frame.image[0, 0, 0]) for frame in frames] == [2, 3, 4, None]


def test_close_wakes_a_reader() -> None:
    source = _source()
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(source.read()))
    reader.start()
    source.close()
    reader.join(timeout=5)
    assert found == [None]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "not a CDR message"),
        (_message()[:40], "cut off"),
        (_message(encoding="32FC1"), "'32FC1' are not coded"),
        (_message(step=5), "has step 5"),
        (_message(stamp_ns=-1), "before 1970"),
    ],
)
def test_what_is_no_picture_is_refused_by_name_and_the_next_is_read(message: bytes, why: str) -> None:
    source = _source(depth=2)
    source.offer(message)
    source.offer(_message(1))
    frame = source.read()
    assert frame is not None
    assert frame.frame_id == 0
    assert source.arrivals.refused == 1
    assert why in source.arrivals.why


def test_a_jpeg_comes_as_rgb_and_depth_does_not_come() -> None:
    cv2 = pytest.importorskip("cv2")
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[..., 0] = 200  # red
    data = cv2.imencode(".png", picture[..., ::-1])[1].ravel()
    source = _source(compressed=True, depth=2)
    source.offer(CompressedImage(Header.at(STAMP_NS), "16UC1; compressedDepth png", data).to_cdr())
    source.offer(CompressedImage(Header.at(STAMP_NS), "bgr8; png compressed bgr8", data).to_cdr())
    frame = source.read()
    assert frame is not None
    assert np.array_equal(frame.image, picture)
    assert frame.pixel_format is PixelFormat.RGB8
    assert source.origins.of(0).width == 24
    assert "is depth" in source.arrivals.why


def test_stamps_too_old_by_the_clock_in_use_are_left_out() -> None:
    source = _source(depth=3)
    source.max_stamp_age_ms = 4.0
    source.offer(_message(1))  # 5 ms old
    source.offer(_message(2, stamp_ns=STAMP_NS + 2_000_000))
    frame = source.read()
    assert frame is not None
    assert frame.image[0, 0, 0] == 2
    assert source.arrivals.stale == 1


def test_a_throttle_keeps_the_grid_of_its_rate() -> None:
    throttle = Throttle()
    assert all(throttle.admits(now) for now in range(5))
    throttle.rate_hz = 10.0
    times = [10**9 + k * 33_333_333 for k in range(90)]
    taken = [now for now in times if throttle.admits(now)]
    assert len(taken) == 30
    assert throttle.admits(times[-1] + 60 * 10**9), "after a pause the grid begins anew"
    assert not throttle.admits(times[-1] + 60 * 10**9 + 50_000_000)


def test_the_headers_of_long_ago_are_forgotten() -> None:
    origins = Origins()
    for frame_id in range(KEPT + 1):
        origins.keep(frame_id, Origin(Header.at(frame_id), "rgb8", 1, 1))
    assert origins.of(1).header.stamp_ns == 1
    with pytest.raises(MessageError, match="frame 0: its header is not known any more"):
        origins.of(0)


def test_a_mailbox_hands_over_in_order() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    for item in range(3):
        mailbox.put(item)
    assert (mailbox.take(), mailbox.take(), mailbox.superseded) == (1, 2, 1)


def test_packets_carry_the_stamp_and_ages_the_arrival() -> None:
    """Through the whole pipeline: a recording of another year, with a stamp that stands still, gives valid predictions."""
    pytest.importorskip("onnxruntime")
    scene = RoadScene(1, 360, 480)
    packets: list[bytes] = []
    with Session.open(selftest=False) as session:
        source = _source(depth=10)
        for index in range(4):
            picture = scene.render(index)[0]
            source.offer(Image(Header.at(STAMP_NS), 360, 480, "rgb8", 1440, picture.reshape(-1)).to_cdr())
        source.close()
        coder = StampingCoder(PacketCodec(session.bundle.entropy_model, *session.bundle.latent_shape[1:], stream_id=9), source.origins)
        outputs = Outputs(on_packet=lambda packet, frame_id, timestamp_ns: packets.append(packet))
        options = PipelineOptions(policy="block", max_age_ms=60_000)
        counts = session.pipeline(source, coder=coder, outputs=outputs, options=options).run()
    assert (counts.captured, counts.predicted, counts.invalid) == (4, 4, 0)
    assert [(parse_header(p).timestamp_ns, parse_header(p).frame_id, parse_header(p).stream_id) for p in packets] == [
        (STAMP_NS, index, 9) for index in range(4)
    ]


@pytest.mark.parametrize(("repeats", "invalid"), [(True, True), (False, False)])
def test_only_a_camera_may_not_stand_still(repeats: bool, invalid: bool) -> None:
    pytest.importorskip("onnxruntime")
    picture = RoadScene(1, 360, 480).render(0)[0]
    source = _source(depth=20, check_repeats=repeats)
    for _ in range(9):
        source.offer(Image(Header.at(STAMP_NS), 360, 480, "rgb8", 1440, picture.reshape(-1)).to_cdr())
    source.close()
    with Session.open(selftest=False) as session:
        counts = session.pipeline(source, options=PipelineOptions(policy="block", max_age_ms=60_000)).run()
    assert (counts.invalid > 0) == invalid


def test_a_camera_of_ones_own_is_stamped_by_the_clock_in_use() -> None:
    told: list[Origin] = []
    inner = open_source("synthetic://road?frames=6", height=48, width=64)
    source = ClockedSource(inner, iter(range(100, 200)).__next__, "optical", first_id=5, on_frame=told.append)
    frame = source.read()
    assert frame is not None
    assert frame.frame_id == 5
    assert source.origins.of(5) == told[0] == Origin(Header.at(100, "optical"), "rgb8", 64, 48)
    source.throttle.rate_hz = 1.0
    frames = [source.read() for _ in range(2)]
    assert [frame is None for frame in frames] == [False, True], "one is admitted, the others of the same second are not"
    assert source.arrivals.throttled == 4
    source.close()
