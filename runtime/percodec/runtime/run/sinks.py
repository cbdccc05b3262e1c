"""Where results go: JSON lines, overlay video, contact sheet. The packet log is `percodec.sdk.log`.

A JSON line acknowledges a frame. It is written with one `write` to an append-only descriptor, after the log took the packet: whatever
kills the process, a frame whose line says `"logged": true` is in the log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import opencv
from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.run.drawing import OverlayPainter, contact_sheet, draw_legend
from percodec.runtime.run.heads import as_json, drawn_head
from percodec.sdk.bundle import Bundle, GraphInfo
from percodec.sdk.errors import LogError
from percodec.sdk.files import read_file
from percodec.sdk.text import native_name


class JsonLines:
    """One line per frame, in capture order.

    Fields: `frame_id`, `timestamp_ns`, `age_ms`, `valid`, `logged`, `packet_bytes`, `bpp`, `latent_crc` (CRC-32, hex), `heads` (by
    name: `heads.as_json`); `unfamiliarity` where the bundle can tell (above 1.0: unfamiliar); `why` where not valid. `labels_crc` and
    `classes` are those of the first segmentation head; `heads` is left out where that is the only one.
    """

    def __init__(self, path: Path, bundle: Bundle, heads: Mapping[str, GraphInfo]) -> None:
        self._path = path
        self._pixels = bundle.frame_height * bundle.frame_width
        self._heads, drawn = heads, drawn_head(heads)
        self._drawn = next((name for name, info in heads.items() if info is drawn), None)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def write(self, record: FrameRecord) -> None:
        """Append one line. Raises LogError when the disk does not take all of it."""
        size = record.packet_bytes
        found = {name: as_json(self._heads[name], head) for name, head in record.heads.items()}
        line: dict[str, Any] = {
            "frame_id": record.frame_id,
            "timestamp_ns": record.timestamp_ns,
            "age_ms": round(record.age_ms, 3),
            "valid": record.valid,
            "logged": record.logged,
            "packet_bytes": size,
            "bpp": None if size is None else round(8 * size / self._pixels, 5),
            "latent_crc": f"{record.latent_crc:08x}",
        }
        if self._drawn in found:
            line |= {"labels_crc": found[self._drawn]["crc"], "classes": found[self._drawn]["classes"]}
        if found.keys() - {self._drawn}:
            line["heads"] = found
        line |= {} if record.unfamiliarity is None else {"unfamiliarity": round(record.unfamiliarity, 3)}
        line |= {} if record.valid else {"why": str(record.lost or record.invalid)}
        data = (json.dumps(line, separators=(",", ":")) + "\n").encode()
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            raise LogError(f"{self._path}: cannot be written ({error.strerror}); frames already acknowledged are safe") from error
        if written != len(data):
            raise LogError(f"{self._path}: the disk took {written} of {len(data)} bytes; it is probably full")

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Every complete line. Raises LogError when a complete line is not one of ours, or the file cannot be read."""
    try:
        data = read_file(path, 1 << 30)
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or 'cannot be read'}") from error
    lines = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            entry = json.loads(line)
            lines.append({"frame_id": int(entry["frame_id"]), **entry})
        except (ValueError, KeyError, TypeError) as error:
            raise LogError(f"{path}:{number}: not a line written by percodec run") from error
    return lines


class VideoSink:
    """A checked video file of BGR pictures: MPEG-4 in .mp4, or Motion JPEG in .avi where OpenCV lacks the former."""

    def __init__(self, path: Path, fps: float, height: int, width: int) -> None:
        cv2 = opencv()
        self.frames = 0
        self._writer: Any = None
        for code, suffix in (("mp4v", ".mp4"), ("MJPG", ".avi")):
            self.path = path.with_suffix(suffix)
            self._writer = cv2.VideoWriter(native_name(self.path), cv2.VideoWriter_fourcc(*code), fps, (width, height))
            if self._writer.isOpened():
                return
            self._writer = None
            self.path.unlink(missing_ok=True)
        raise LogError(f"{path}: OpenCV cannot write a video here (folder not writable, or no MPEG-4 and no MJPG encoder)")

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add one picture."""
        self._writer.write(picture)
        self.frames += 1

    def close(self) -> None:
        """Finish the file. Idempotent. OpenCV does not report write errors, so the file is opened again: LogError if short."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if self.frames == 0:
            self.path.unlink(missing_ok=True)
            return
        cv2 = opencv()
        check = cv2.VideoCapture(native_name(self.path), cv2.CAP_FFMPEG)
        found = int(check.get(cv2.CAP_PROP_FRAME_COUNT)) if check.isOpened() else 0
        check.release()
        if found < self.frames:
            raise LogError(f"{self.path}: the video is incomplete ({found} of {self.frames} frames); the disk is probably full")


class Overlay:
    """The overlay video: `line(record)` is the text above each picture."""

    def __init__(self, path: Path, bundle: Bundle, heads: Mapping[str, GraphInfo], fps: float, line: Callable[[FrameRecord], str]) -> None:
        drawn = drawn_head(heads)
        self._drawn = next((name for name, info in heads.items() if info is drawn), "")
        self._painter = OverlayPainter(bundle, drawn.labels if drawn else ())
        self._line = line
        height, width = self._painter.canvas.shape[:2]
        self.video = VideoSink(path, fps, height, width)

    def write(self, slot: Slot, record: FrameRecord) -> None:
        """Paint one frame."""
        labels = slot.outputs[self._drawn]["labels"][0] if self._drawn else None
        self.video.write(self._painter.paint(slot.image[0], labels, self._line(record)))

    def close(self) -> None:
        """See `VideoSink.close`."""
        self.video.close()


class ContactSheet:
    """Keeps a few frames spread evenly over a run of unknown length, and draws them at its end.

    Every `stride`-th frame is kept; when the places are full, every second one is given up and the stride doubles.
    """

    def __init__(self, bundle: Bundle, heads: Mapping[str, GraphInfo], rows: int = 4) -> None:
        self._bundle, self._rows = bundle, rows
        self._info = drawn_head(heads)
        self._drawn = next((name for name, info in heads.items() if info is self._info), "")
        shape = (2 * rows, bundle.frame_height, bundle.frame_width)
        self._images: NDArray[np.uint8] = np.zeros((*shape, 3), np.uint8)
        self._labels: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self._symbols: NDArray[np.uint8] = np.zeros((2 * rows, *bundle.latent_shape), np.uint8)
        self._kept: list[tuple[int, FrameRecord]] = []  # (place, record)
        self._free = list(range(2 * rows))
        self._seen, self._stride = 0, 1

    def offer(self, slot: Slot, record: FrameRecord) -> None:
        """Look at a frame; it is copied when it is to be kept."""
        index, self._seen = self._seen, self._seen + 1
        if index % self._stride:
            return
        if not self._free:
            self._stride *= 2
            self._free = [place for place, _ in self._kept[1::2]]
            self._kept = self._kept[::2]
            if index % self._stride:
                return
        place = self._free.pop()
        np.copyto(self._images[place], slot.image[0])
        if self._drawn:
            np.copyto(self._labels[place], slot.outputs[self._drawn]["labels"][0])
        np.copyto(self._symbols[place], slot.symbols[0])
        self._kept.append((place, record))

    def draw(self, title: str, decode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None) -> NDArray[np.uint8] | None:
        """The sheet as BGR, None when no frame was seen. `decode`: symbols uint8 [C,h,w] -> RGB uint8 [H,W,3]."""
        if not self._kept:
            return None
        cv2 = opencv()
        picks = sorted({round(k * (len(self._kept) - 1) / max(1, self._rows - 1)) for k in range(self._rows)})
        classes = self._info.labels if self._info else ()
        painter = OverlayPainter(self._bundle, classes)
        pixels = self._bundle.frame_height * self._bundle.frame_width
        rows = []
        for place, record in (self._kept[k] for k in picks):
            image = self._images[place]
            pictures = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR)]
            pictures += [painter.blend(image, self._labels[place])] if self._drawn else []
            caption = f"frame {record.frame_id}"
            if record.packet_bytes is not None:
                caption += f"   {record.packet_bytes / 1000:.1f} kB   {8 * record.packet_bytes / pixels:.3f} bpp"
            if decode is not None:
                rebuilt = decode(self._symbols[place])
                pictures.append(cv2.cvtColor(rebuilt, cv2.COLOR_RGB2BGR))
                caption += f"   reconstruction {psnr_db(image, rebuilt):.1f} dB"
            rows.append((caption, pictures))
        columns = ["camera", *(["segmentation, predicted from the latent"] if self._drawn else [])]
        columns += ["rebuilt from the latent"] if decode else []
        legend = draw_legend(self._bundle.frame_width * len(columns), [(label.name, label.color) for label in classes])
        return contact_sheet(title, columns, rows, legend)


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 arrays of one shape, dB; inf when equal."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


__all__ = ["ContactSheet", "JsonLines", "Overlay", "VideoSink", "psnr_db", "read_json_lines"]
