"""The contract of whatever gives frames, `FrameSource`, and a file played like a camera.

Frame identity: `frame_id` counts up from 0, one per frame the source was asked for, so an unreadable image leaves a gap instead of
renumbering what follows. `timestamp_ns` never goes back. A live source stamps the start of exposure on CLOCK_MONOTONIC as well as
its driver allows (the driver's buffer stamp, else the moment the frame arrived). A source that is not live stamps media time since
its first frame, so that two runs over one file give equal packets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from percodec.sdk.types import Frame

DEFAULT_FRAME_RATE = 25.0


@dataclass
class SourceInfo:
    """What is known of a source: `kind`, pixel size, frame rate in Hz and number of frames, None where unknown."""

    spec: str
    kind: str
    live: bool
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    notes: list[str] = field(default_factory=list)


class FrameSource(Protocol):
    """An opened source. Not thread-safe, except that `close` may be called while `read` waits."""

    info: SourceInfo

    def read(self) -> Frame | None:
        """The next frame, None at the regular end.

        The image is valid until the next `read`. Raises SourceError when the source ended before it should, or gave
        nothing new within its timeout; frames already handed out stay good.
        """

    def close(self) -> None:
        """Release the source; returns within a second even if the device hangs. Idempotent."""


class Paced:
    """A file played like a camera: each frame is handed out when it is due; a late reader is not served the past."""

    def __init__(self, source: FrameSource) -> None:
        self.info = source.info
        self._source = source
        self._start_ns: int | None = None
        self._first_ns = 0
        self._closed = False

    def read(self) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            return None
        if self._start_ns is None:
            self._start_ns, self._first_ns = time.monotonic_ns(), frame.timestamp_ns
        due = self._start_ns + frame.timestamp_ns - self._first_ns
        while (wait := due - time.monotonic_ns()) > 0 and not self._closed:
            time.sleep(min(wait / 1e9, 0.2))
        return frame

    def close(self) -> None:
        self._closed = True
        self._source.close()


__all__ = ["DEFAULT_FRAME_RATE", "FrameSource", "Paced", "SourceInfo"]
