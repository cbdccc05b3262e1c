"""Frames from a topic: what arrives as bytes becomes a `FrameSource`, and every output of a frame finds its way back to the header.

    subscription --offer(bytes)--> [mailbox] --read()--> Frame --> Pipeline --frame id--> origins.of(id) --> header of the output

Two clocks. A frame's `timestamp_ns` is when its message arrived, on the monotonic clock: that is what ages are measured from, so a replayed
recording is as fresh as a camera. The packet gets the header's stamp instead, by `StampingCoder`; stamps may stand still, jump and go back.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.source import FrameSource, SourceInfo
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.runtime.messages.mailbox import Mailbox
from percodec.runtime.messages.pictures import picture_from_image, rgb_from_compressed
from percodec.runtime.pipeline.options import Coder
from percodec.sdk.errors import MessageError, reason
from percodec.sdk.types import Frame, PixelFormat

KEPT = 1024  # origins; far more than frames can be under way


@dataclass(frozen=True)
class Origin:
    """Where a frame came from: its header as it was, and the picture's ROS encoding and size in pixels as it came in."""

    header: Header
    encoding: str
    width: int
    height: int


class Origins:
    """Frame id -> `Origin`, of the last `KEPT` frames. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Origin] = OrderedDict()

    def keep(self, frame_id: int, origin: Origin) -> None:
        """Remember it."""
        with self._lock:
            self._kept[frame_id] = origin
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def of(self, frame_id: int) -> Origin:
        """Raises `MessageError` for a frame that was never there, or left long ago."""
        with self._lock:
            found = self._kept.get(frame_id)
        if found is None:
            raise MessageError(f"frame {frame_id}: its header is not known any more; {KEPT} later frames have come")
        return found


class StampingCoder:
    """A coder whose packets carry the stamp of the frame's header instead of the time at which it arrived."""

    def __init__(self, coder: Coder, origins: Origins) -> None:
        self._coder, self._origins = coder, origins

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int) -> bytes:
        """`timestamp_ns` is not used. Raises what the coder raises."""
        return self._coder.encode(symbols, frame_id, self._origins.of(frame_id).header.stamp_ns)


@dataclass
class Arrivals:
    """What came and was not taken. Written by `TopicSource` alone, read by whoever likes.

    `arrived`: all. `throttled`: above `rate_hz`. `stale`: older by their stamp than allowed. `refused`: not pictures, the last of them
    because of `why`. `last_ns`: of the last one, monotonic. `stamp_age_ms`: of the last picture, by the clock in use.
    """

    arrived: int = 0
    throttled: int = 0
    stale: int = 0
    refused: int = 0
    why: str = ""
    last_ns: int = 0
    stamp_age_ms: float = 0.0


class Throttle:
    """At most `rate_hz` a second, 0 for all. The grid of the rate is kept: of 30 images a second 10 Hz take every third."""

    def __init__(self) -> None:
        self.rate_hz = 0.0
        self._due_ns = 0

    def admits(self, now_ns: int) -> bool:
        """Whether this one, arriving at `now_ns`, is to be taken."""
        if self.rate_hz <= 0:
            return True
        period = int(1e9 / self.rate_hz)
        if now_ns < self._due_ns - period // 10:  # arrival times jitter
            return False
        self._due_ns = self._due_ns + period if now_ns - self._due_ns < period else now_ns + period
        return True


class TopicSource:
    """`sensor_msgs/Image`, or with `compressed` JPEG and PNG in `sensor_msgs/CompressedImage`, as a live source of frames.

    `depth`: messages that may wait to be read; the oldest gives way. `clock`: the time in ns that stamps are compared with, of the robot or
    of the simulation. `check_repeats`: a picture that comes again and again is a broken camera, and not a simulator that stands still.
    `first_id`: of the first frame. `throttle.rate_hz` and `max_stamp_age_ms`, 0 for none, may be changed at any time.
    """

    def __init__(
        self,
        topic: str,
        clock: Callable[[], int],
        *,
        compressed: bool = False,
        depth: int = 1,
        check_repeats: bool = True,
        first_id: int = 0,
    ) -> None:
        self.info = SourceInfo(topic, "topic" if check_repeats else "memory", True)
        self.origins, self.arrivals = Origins(), Arrivals()
        self.throttle = Throttle()
        self.max_stamp_age_ms = 0.0
        self.next_id = first_id
        self._clock, self._compressed = clock, compressed
        self._mailbox: Mailbox[tuple[bytes, int]] = Mailbox(depth)

    @property
    def superseded(self) -> int:
        """Messages that a newer one replaced before they were read."""
        return self._mailbox.superseded

    def offer(self, message: bytes) -> None:
        """Take one serialized message. Returns at once; from one thread."""
        now, arrivals = time.monotonic_ns(), self.arrivals
        arrivals.arrived, arrivals.last_ns = arrivals.arrived + 1, now
        if self.throttle.admits(now):
            self._mailbox.put((message, now))
        else:
            arrivals.throttled += 1

    def read(self) -> Frame | None:
        """The next picture; waits as long as it takes. None once closed and everything that waited was read."""
        while (taken := self._mailbox.take()) is not None:
            message, received_ns = taken
            try:
                image, kind, origin = self._picture(message)
            except MessageError as error:
                self.arrivals.refused += 1
                self.arrivals.why = reason(error)
                continue
            age_ms = self.arrivals.stamp_age_ms = (self._clock() - origin.header.stamp_ns) / 1e6
            if 0 < self.max_stamp_age_ms < age_ms:
                self.arrivals.stale += 1
                continue
            frame_id, self.next_id = self.next_id, (self.next_id + 1) & 0xFFFFFFFF
            self.origins.keep(frame_id, origin)
            return Frame(image, frame_id, received_ns, kind)
        return None

    def close(self) -> None:
        """No more messages; those that wait are still read. Idempotent."""
        self._mailbox.close()

    def _picture(self, message: bytes) -> tuple[NDArray[np.uint8], PixelFormat, Origin]:
        if self._compressed:
            found = CompressedImage.from_cdr(message)
            picture, kind, header = rgb_from_compressed(found), PixelFormat.RGB8, found.header
            origin = Origin(header, "rgb8", picture.shape[1], picture.shape[0])
        else:
            image = Image.from_cdr(message)
            picture, kind = picture_from_image(image)
            header, origin = image.header, Origin(image.header, image.encoding, image.width, image.height)
        if header.stamp_ns < 0:
            raise MessageError(f"the stamp {header.sec}.{header.nanosec:09d} is before 1970; packets cannot carry it")
        return picture, kind, origin


class ClockedSource:
    """A camera's own frames as a live source, each with a header that `clock` (ns) gives for the start of its exposure.

    A source that is not live (a file, a rendering: pace it) is stamped as it is read. Ids count up from `first_id`. `on_frame` is told of
    each frame. Raises what the source raises.
    """

    def __init__(
        self,
        source: FrameSource,
        clock: Callable[[], int],
        frame: str,
        *,
        first_id: int = 0,
        on_frame: Callable[[Origin], None] | None = None,
    ) -> None:
        self.info = SourceInfo(source.info.spec, source.info.kind if source.info.live else "memory", True, fps=source.info.fps)
        self.origins, self.arrivals, self.throttle = Origins(), Arrivals(), Throttle()
        self.next_id = first_id
        self._source, self._clock, self._frame, self._on_frame = source, clock, frame, on_frame
        self._live = source.info.live

    def read(self) -> Frame | None:
        while True:
            frame = self._source.read()
            if frame is None:
                return None
            now = time.monotonic_ns()
            self.arrivals.arrived, self.arrivals.last_ns = self.arrivals.arrived + 1, now
            if self.throttle.admits(now):
                break
            self.arrivals.throttled += 1
        age = max(0, now - frame.timestamp_ns) if self._live else 0
        picture, kind = frame.image, frame.pixel_format
        height = picture.shape[0] * 2 // 3 if kind is PixelFormat.NV12 else picture.shape[0]
        frame_id, self.next_id = self.next_id, (self.next_id + 1) & 0xFFFFFFFF
        encoding = "yuv422_yuy2" if kind is PixelFormat.YUYV else kind.value
        origin = Origin(Header.at(self._clock() - age, self._frame), encoding, picture.shape[1], height)
        self.origins.keep(frame_id, origin)
        if self._on_frame is not None:
            self._on_frame(origin)
        return Frame(picture, frame_id, now - age, kind)

    @property
    def superseded(self) -> int:
        """None: the camera keeps only its newest picture."""
        return 0

    def close(self) -> None:
        self._source.close()


__all__ = ["KEPT", "Arrivals", "ClockedSource", "Origin", "Origins", "StampingCoder", "Throttle", "TopicSource"]
