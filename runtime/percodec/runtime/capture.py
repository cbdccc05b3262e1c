"""Where frames come from: one call, `open_source`, and one contract, `FrameSource`.

| spec                                             | source                                                | live |
|--------------------------------------------------|-------------------------------------------------------|------|
| `drive.mp4`                                      | video file (`video.VideoFile`)                        | no   |
| `camvid/val/`, `frame.png`                       | image folder in natural order, one image              | no   |
| `/dev/video0`, `v4l2://0`                        | camera (`camera.Camera`)                              | yes  |
| `gstreamer://v4l2src ! ... ! appsink`            | camera behind a GStreamer pipeline                    | yes  |
| `synthetic://road?frames=300&seed=1`             | rendered drive (`width`, `height`, `fps` as well)     | no   |

Frame identity: `frame_id` counts up from 0, one per frame the source was asked for, so an unreadable image leaves a gap instead of
renumbering what follows. `timestamp_ns` never goes back. A live source stamps the start of exposure on CLOCK_MONOTONIC as well as
its driver allows (the driver's buffer stamp, else the moment the frame arrived). A source that is not live stamps media time since
its first frame, so that two runs over one file give equal packets.
"""

from __future__ import annotations

import re
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.vision import MAX_PIXELS
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
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


def open_source(
    spec: str,
    *,
    realtime: bool = False,
    height: int | None = None,
    width: int | None = None,
    timeout_s: float = 3.0,
    camera: CameraFormat | None = None,
) -> FrameSource:
    """Open `spec` (see the module's table). Raises SourceError with the reason when it cannot be used.

    `realtime` paces a file, folder or rendering like a camera at its frame rate. `height` and `width` are the size a
    synthetic source renders unless its query says otherwise. `timeout_s` bounds the wait for a camera's next frame. `camera`: take a
    camera's pictures in this format as they are, instead of as BGR.
    """
    scheme, separator, rest = spec.partition("://")
    source: FrameSource
    if not separator:
        source = _open_path(spec, timeout_s, camera)
    elif scheme == "synthetic":
        source = _open_synthetic(spec, rest, height or 360, width or 480)
    elif scheme == "v4l2":
        from percodec.runtime.camera import Camera

        if not re.fullmatch(r"\d{1,3}", rest):
            raise SourceError(f"{spec!r}: expected v4l2://NUMBER, for example v4l2://0")
        source = Camera.from_device(f"/dev/video{rest}", timeout_s, camera)
    elif scheme == "gstreamer":
        from percodec.runtime.camera import Camera

        source = Camera.from_gstreamer(rest, timeout_s, camera)
    else:
        raise SourceError(f"{spec!r}: unknown kind of source {scheme!r}; use a path, v4l2://, gstreamer:// or synthetic://")
    if camera is not None and not source.info.live:
        source.close()
        raise SourceError(f"{spec}: is no camera; its pictures are decoded already and have no {camera} form")
    return Paced(source) if realtime and not source.info.live else source


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `frame_9` before `frame_10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"([0-9]+)", name) if part]


def _open_path(spec: str, timeout_s: float, camera: CameraFormat | None) -> FrameSource:
    path = Path(spec)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if spec.startswith("/dev/video"):
            from percodec.runtime.camera import no_camera

            raise no_camera(spec) from error
        raise SourceError(f"{spec}: {error.strerror or 'cannot be read'}; check the path") from error
    except ValueError as error:
        raise SourceError(f"{spec!r}: not a path ({error})") from error
    if stat.S_ISCHR(mode):
        from percodec.runtime.camera import Camera

        return Camera.from_device(spec, timeout_s, camera)
    if stat.S_ISDIR(mode):
        return ImageFiles.from_folder(path)
    if not stat.S_ISREG(mode):
        raise SourceError(f"{spec}: not a regular file, folder or camera")
    if path.stat().st_size == 0:
        raise SourceError(f"{spec}: the file is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFiles(spec, [path], kind="image")
    from percodec.runtime.video import VideoFile

    return VideoFile(path)


def _open_synthetic(spec: str, rest: str, height: int, width: int) -> FrameSource:
    name, _, query = rest.partition("?")
    if name != "road":
        raise SourceError(f"{spec!r}: unknown scene {name!r}; the one scene is synthetic://road")
    limits: dict[str, tuple[int, int]] = {
        "frames": (1, 10_000_000),
        "seed": (0, 2**31 - 1),
        "height": (32, 4096),
        "width": (32, 4096),
        "fps": (1, 1000),
    }
    values = {"frames": 300, "seed": 1, "height": height, "width": width, "fps": int(DEFAULT_FRAME_RATE)}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16)
    except ValueError as error:
        raise SourceError(f"{spec!r}: the part after '?' must read name=value&name=value ({error})") from error
    for key, text in pairs:
        if key not in limits:
            raise SourceError(f"{spec!r}: unknown setting {key!r}; use {', '.join(limits)}")
        low, high = limits[key]
        if not re.fullmatch(r"\d{1,10}", text) or not low <= int(text) <= high:
            raise SourceError(f"{spec!r}: {key} must be a whole number from {low} to {high}, got {text!r}")
        values[key] = int(text)
    return SyntheticRoad(spec, **values)


class SyntheticRoad:
    """A rendered, seeded drive in CamVid's classes. `truth` holds the last frame's exact labels, uint8 [H,W]."""

    def __init__(self, spec: str, *, frames: int, seed: int, height: int, width: int, fps: int) -> None:
        from percodec.sdk.road import RoadScene

        try:
            self._scene = RoadScene(seed, height, width)
        except ValueError as error:
            raise SourceError(f"{spec!r}: {error}") from error
        self.info = SourceInfo(spec, "synthetic", False, width, height, float(fps), frames)
        self.truth: NDArray[np.uint8] | None = None
        self._next = 0
        self._frames, self._fps = frames, fps

    def read(self) -> Frame | None:
        if self._next >= self._frames:
            return None
        index, self._next = self._next, self._next + 1
        image, self.truth = self._scene.render(index)
        return Frame(image, index, index * 1_000_000_000 // self._fps)

    def close(self) -> None:
        self._next = self._frames


class ImageFiles:
    """Images in the order given. An unreadable one is left out, remembered, and reported as SourceError at the end."""

    def __init__(self, spec: str, paths: list[Path], *, kind: str) -> None:
        fps = DEFAULT_FRAME_RATE
        self.info = SourceInfo(spec, kind, False, fps=fps, frames=len(paths))
        self._paths, self._next, self._good = paths, 0, 0
        self._bad: list[str] = []

    @classmethod
    def from_folder(cls, folder: Path) -> ImageFiles:
        """Every image directly in `folder`, natural order. Raises SourceError when there is none."""
        try:
            names = [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
        except OSError as error:
            raise SourceError(f"{folder}: {error.strerror or 'cannot be listed'}") from error
        if not names:
            raise SourceError(f"{folder}: no images in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
        return cls(str(folder), sorted(names, key=lambda path: natural_key(path.name)), kind="folder")

    def read(self) -> Frame | None:
        from percodec.runtime.images import read_image

        while self._next < len(self._paths):
            index, self._next = self._next, self._next + 1
            try:
                frame = read_image(self._paths[index])
            except SourceError as error:
                self._bad.append(str(error))
                continue
            self._good += 1
            if self.info.height is None:
                self.info.height, self.info.width = frame.shape[:2]
            return Frame(frame, index, index * 1_000_000_000 // int(DEFAULT_FRAME_RATE))
        if self._bad:
            bad, self._bad = self._bad, []
            if len(self._paths) == 1:
                raise SourceError(bad[0])
            more = f" (first of {len(bad)} such files)" if len(bad) > 1 else ""
            raise SourceError(f"{bad[0]}{more}; the {self._good} readable images were processed")
        return None

    def close(self) -> None:
        self._next = len(self._paths)


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


__all__ = [
    "DEFAULT_FRAME_RATE",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "FrameSource",
    "ImageFiles",
    "Paced",
    "SourceInfo",
    "SyntheticRoad",
    "natural_key",
    "open_source",
]
