"""How often does a label change where the picture does not? Neighbouring frames of a drive, label against label, and what they look like.

    python benchmarks/flicker.py --video PATH [--bundle DIR ...] [--camvid PATH] [--record]

Of each pair of frames the earlier one's labels are moved along the optical flow (DIS, of the pictures alone). Pixels count where the moved
picture is what the later one shows, to 8 levels. `held`: a pixel takes a new label when two frames in a row say it, a frame later than the
head. With --camvid the mIoU of both on `val`, every second frame of a drive, where holding a label may cost. With --sheet FILE overlays of
every bundle, side by side.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import record
from numpy.typing import NDArray
from video_pictures import fitted_pictures

from percodec.export.data.sets import load
from percodec.export.metrics.scores import Confusion
from percodec.runtime import Session, default_bundle
from percodec.runtime.run.drawing import OverlayPainter
from percodec.sdk.machine import machine_info

Picture = NDArray[np.uint8]
HERE = Path(__file__).resolve().parent
ALIKE = 8  # levels of luma
SHOWN = (20, 90, 160, 210)  # frames of the sheet


class Held:
    """Labels that change when two frames in a row say so."""

    def __init__(self) -> None:
        self._shown: Picture | None = None
        self._before: Picture | None = None

    def __call__(self, labels: Picture) -> Picture:
        if self._shown is None or self._before is None:
            self._shown = labels.copy()
        else:
            np.copyto(self._shown, labels, where=labels == self._before)
        self._before = labels.copy()
        return self._shown.copy()


def steady(before: Picture, now: Picture) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel of `now` was in `before` [h,w,2], and where the picture there is the same."""
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (before, now)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[1], grey[0], None)
    height, width = grey[0].shape
    where = flow + np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    inside = (where >= 0).all(-1) & (where[..., 0] < width) & (where[..., 1] < height)
    moved = cv2.remap(grey[0], where, None, cv2.INTER_LINEAR)
    alike = cv2.absdiff(moved, grey[1]) <= ALIKE
    return where, inside & alike


def of_video(folder: Path, video: Path) -> tuple[dict[str, Any], list[Picture]]:
    """The bundle's row, and overlays BGR of the frames `SHOWN`."""
    shown: list[Picture] = []
    changed = {"labels": 0, "held": 0}
    pixels, frames = 0, 0
    hold, last = Held(), None
    with Session.open(folder) as session:
        painter = OverlayPainter(session.bundle, session.bundle.labels)
        for picture in fitted_pictures(video, session.bundle.frame_height, session.bundle.frame_width, session.bundle.fit):
            labels = session.predict(session.encode(picture)).labels.copy()
            now = {"labels": labels, "held": hold(labels)}
            if frames in SHOWN:
                shown.append(painter.blend(picture, labels).copy())
            if last is not None:
                where, same = steady(last[0], picture)
                pixels += int(same.sum())
                for kind in changed:
                    moved = cv2.remap(last[1][kind], where, None, cv2.INTER_NEAREST)
                    changed[kind] += int((moved != now[kind])[same].sum())
            last, frames = (picture, now), frames + 1
        name = f"{session.bundle.name}@{session.bundle.digest[:12]}"
    row = {"bundle": name, "frames": frames, "pixels": pixels, **{kind: count / pixels for kind, count in changed.items()}}
    return row, shown


def of_val(folder: Path, camvid: Path) -> dict[str, float]:
    """mIoU of both kinds of labels on CamVid's `val`, in the order of its frames."""
    data, hold = load(f"camvid:{camvid}:val"), Held()
    found = {"labels": Confusion(11), "held": Confusion(11)}
    with Session.open(folder) as session:
        for image, truth in zip(data.images, data.labels, strict=True):
            labels = session.predict(session.encode(np.ascontiguousarray(image))).labels
            for kind, said in (("labels", labels), ("held", hold(labels))):
                found[kind].add(said, truth)
    return {f"miou {kind}": confusion.miou() for kind, confusion in found.items()}


def sheet(columns: Sequence[Sequence[Picture]]) -> Picture:
    return np.hstack([np.vstack(column) for column in columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, action="append", help="repeatable (default: road-edge and the built-in bundle)")
    parser.add_argument("--camvid", type=Path, help="CamVid's folder")
    parser.add_argument("--sheet", type=Path, help="write overlays here, a column a bundle")
    record.add_arguments(parser)
    args = parser.parse_args()
    rows, columns = [], []
    for folder in args.bundle or [HERE / "bundles" / "road-edge", default_bundle()]:
        row, shown = of_video(folder, args.video)
        row |= of_val(folder, args.camvid) if args.camvid else {}
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
        rows.append(row)
        columns.append(shown)
    if args.sheet:
        cv2.imwrite(str(args.sheet), sheet(columns))
    command = "python benchmarks/flicker.py --video PATH" + (" --camvid PATH" if args.camvid else "")
    result = {"benchmark": "flicker", "date": datetime.date.today().isoformat(), "command": command, "machine": machine_info()}
    record.write_result(args, "flicker", result | {"video": args.video.name, "alike": ALIKE, "rows": rows})


if __name__ == "__main__":
    main()
