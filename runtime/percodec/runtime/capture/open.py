"""Where frames come from: one call, `open_source`.

| spec                                             | source                                                | live |
|--------------------------------------------------|-------------------------------------------------------|------|
| `drive.mp4`                                      | video file (`video.VideoFile`)                        | no   |
| `camvid/val/`, `frame.png`                       | image folder in natural order, one image              | no   |
| `/dev/video0`, `v4l2://0`                        | camera (`camera.Camera`)                              | yes  |
| `gstreamer://v4l2src ! ... ! appsink`            | camera behind a GStreamer pipeline                    | yes  |
| `synthetic://road?frames=300&seed=1`             | rendered drive (`width`, `height`, `fps` as well)     | no   |
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from urllib.parse import parse_qsl

from percodec.runtime.capture.camera import Camera, no_camera
from percodec.runtime.capture.images import IMAGE_SUFFIXES, ImageFiles
from percodec.runtime.capture.source import DEFAULT_FRAME_RATE, FrameSource, Paced
from percodec.runtime.capture.synthetic import SyntheticRoad
from percodec.runtime.capture.video import VideoFile
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import SourceError


def open_source(
    spec: str | os.PathLike[str],
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
    try:
        spec = os.fspath(spec)
    except TypeError:
        raise SourceError(f"{spec!r}: a source is text or a path; a camera is v4l2://NUMBER, for example v4l2://0") from None
    if not 0 < timeout_s <= 3600:
        raise SourceError(f"{spec}: timeout_s is above 0 and at most 3600 s, got {timeout_s}")
    scheme, separator, rest = spec.partition("://")
    source: FrameSource
    if not separator:
        source = _open_path(spec, timeout_s, camera)
    elif scheme == "synthetic":
        source = _open_synthetic(spec, rest, height or 360, width or 480)
    elif scheme == "v4l2":
        if not re.fullmatch(r"\d{1,3}", rest):
            raise SourceError(f"{spec!r}: expected v4l2://NUMBER, for example v4l2://0")
        source = Camera.from_device(f"/dev/video{rest}", timeout_s, camera)
    elif scheme == "gstreamer":
        source = Camera.from_gstreamer(rest, timeout_s, camera)
    else:
        raise SourceError(f"{spec!r}: unknown kind of source {scheme!r}; use a path, v4l2://, gstreamer:// or synthetic://")
    if camera is not None and not source.info.live:
        source.close()
        raise SourceError(f"{spec}: is no camera; its pictures are decoded already and have no {camera} form")
    return Paced(source) if realtime and not source.info.live else source


def _open_path(spec: str, timeout_s: float, camera: CameraFormat | None) -> FrameSource:
    path = Path(spec)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if spec.startswith("/dev/video"):
            raise no_camera(spec) from error
        raise SourceError(f"{spec}: {error.strerror or 'cannot be read'}; check the path") from error
    except ValueError as error:
        raise SourceError(f"{spec!r}: not a path ({error})") from error
    if stat.S_ISCHR(mode):
        return Camera.from_device(spec, timeout_s, camera)
    if stat.S_ISDIR(mode):
        return ImageFiles.from_folder(path)
    if not stat.S_ISREG(mode):
        raise SourceError(f"{spec}: not a regular file, folder or camera")
    if path.stat().st_size == 0:
        raise SourceError(f"{spec}: the file is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFiles(spec, [path], kind="image")
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


__all__ = ["open_source"]
