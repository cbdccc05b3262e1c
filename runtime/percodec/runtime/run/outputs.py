"""All that a run writes into its folder.

<out>/packets.mcap or packets/  frames.jsonl  overlay.mp4  contact_sheet.png  report.json   (report.json last: its presence means "ended")
and label maps, into a folder of their own
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.images import write_image
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.pipeline.options import Outputs
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.run.heads import in_words, infos_of
from percodec.runtime.run.labels import LabelMaps
from percodec.runtime.run.settings import RunSettings
from percodec.runtime.run.sinks import ContactSheet, JsonLines, Overlay
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import LogError, PercodecError
from percodec.sdk.files import write_whole
from percodec.sdk.log import LogWriter, SegmentedLogWriter
from percodec.sdk.log.names import SEGMENTS


class RunOutputs:
    """The open outputs of one run. `labels`: where label maps of the segmentation heads go, None for nowhere."""

    def __init__(self, settings: RunSettings, bundle: Bundle, heads: Sequence[str], source: SourceInfo, labels: LabelMaps | None) -> None:
        out = settings.out
        self._settings, self._bundle, self._out = settings, bundle, out
        self._pixels = bundle.frame_height * bundle.frame_width
        self._heads = infos_of(bundle, heads)
        self._pipeline: Pipeline | None = None
        self._log = _open_log(out, bundle, settings, source.live) if settings.log else None
        self._lines = JsonLines(out / "frames.jsonl", bundle, self._heads)
        self._sheet = ContactSheet(bundle, self._heads) if settings.sheet else None
        fps = source.fps or 25.0
        self._overlay = Overlay(out / "overlay.mp4", bundle, self._heads, fps, self._figures) if settings.overlay else None
        self._labels = labels

    def follow(self, pipeline: Pipeline) -> None:
        """Take the figures in the overlay's text line from `pipeline`."""
        self._pipeline = pipeline

    def outputs(self) -> Outputs:
        views = [self._sheet.offer] if self._sheet else []
        views += [self._overlay.write] if self._overlay else []
        views += [self._labels.write_all] if self._labels else []

        def view(slot: Slot, record: FrameRecord) -> None:
            for one in views:
                one(slot, record)

        return Outputs(on_packet=self._log.append if self._log else None, on_record=self._lines.write, on_view=view if views else None)

    def close(self) -> list[PercodecError]:
        """Finish every output; the errors met, in order of importance."""
        faults: list[PercodecError] = []
        for name, close in (
            ("packets", self._log.close if self._log else None),
            ("frames.jsonl", self._lines.close),
            ("overlay", self._overlay.close if self._overlay else None),
        ):
            if close is None:
                continue
            try:
                close()
            except PercodecError as error:
                faults.append(error)
            except OSError as error:
                faults.append(LogError(f"{self._out / name}: cannot be finished ({error.strerror})"))
        return faults

    def abandon(self) -> None:
        """Close what an unexpected end left open; errors were or will be reported elsewhere."""
        with contextlib.suppress(Exception):
            self.close()

    def files(self) -> dict[str, Any]:
        """Names and sizes of what was written."""
        paths = {"lines": self._out / "frames.jsonl"}
        if self._overlay is not None:
            paths["overlay"] = self._overlay.video.path
        found: dict[str, Any] = {name: {"file": path.name, "bytes": path.stat().st_size} for name, path in paths.items() if path.exists()}
        if self._log is not None:
            found = {"log": {"file": self._log.path.name, "bytes": self._log.bytes}, **found}
        if self._labels is not None:
            found["labels"] = {"file": str(self._labels.folder.absolute()), "bytes": self._labels.bytes, "count": self._labels.count}
        return found

    def draw_sheet(self, decode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None) -> dict[str, Any] | None:
        """Write contact_sheet.png; None when there was no frame. `decode`: symbols uint8 [C,h,w] -> RGB uint8 [H,W,3]."""
        if self._sheet is None:
            return None
        picture = self._sheet.draw(f"percodec   {self._settings.source}   {self._bundle.name}", decode)
        if picture is None:
            return None
        path = self._out / "contact_sheet.png"
        write_image(path, np.ascontiguousarray(picture[..., ::-1]))
        return {"file": path.name, "bytes": path.stat().st_size}

    def _figures(self, record: FrameRecord) -> str:
        text = f"{self._bundle.name}   frame {record.frame_id}"
        if self._pipeline is not None:
            counts = self._pipeline.counts
            seconds = (self._pipeline.last_prediction_ns - self._pipeline.first_capture_ns) / 1e9
            if counts.coded:
                each = counts.packet_bytes / counts.coded
                text += f"   {8 * each / self._pixels:.3f} bpp   {each / 1000:.1f} kB/frame"
            if counts.predicted > 1 and seconds > 0:
                text += f"   {counts.predicted / seconds:.1f} fps"
        words = in_words(self._heads, record.heads)
        return text + f"   age {record.age_ms:.0f} ms" + (f"   {words}" if words else "") + ("" if record.valid else "   NOT VALID")


def _open_log(out: Path, bundle: Bundle, settings: RunSettings, live: bool) -> LogWriter | SegmentedLogWriter:
    """packets.mcap in `out`, or the folder `packets` of segments. Raises `LogError`."""
    if settings.log_segment is None:
        return LogWriter(out / "packets.mcap", bundle, stream_id=settings.stream_id, live=live, key=settings.log_key)
    return SegmentedLogWriter(out / SEGMENTS, bundle, settings.log_segment, stream_id=settings.stream_id, live=live, key=settings.log_key)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write beside and rename, so that a reader sees all of it or none. Raises OSError."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


__all__ = ["RunOutputs", "write_json"]
