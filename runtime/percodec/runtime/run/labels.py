"""Label maps as PNG files, for measuring: class ids, 8 bits grey, one file a frame.

    frame_00000012_t480000000.png     frame id, and the frame's timestamp in ns

Of several segmentation heads each has a subfolder of its name. Every file that is there is whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import opencv
from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import Slot
from percodec.sdk.errors import LogError, UsageError
from percodec.sdk.files import write_whole
from percodec.sdk.folder_lock import FolderLock

_NAME = re.compile(r"frame_\d{8,}_t\d+\.png(\.part)?")


def label_name(frame_id: int, timestamp_ns: int) -> str:
    """The name of a frame's label map."""
    return f"frame_{frame_id:08d}_t{timestamp_ns}.png"


class LabelMaps:
    """Writes the label maps of `heads`, names of segmentation heads, into `folder`, which it makes and has alone until it is closed.

    Raises `UsageError` where there are no such heads, where the folder cannot be used or is in use, and where it holds label maps already;
    with `overwrite` those are deleted. `shared`: somebody of this run has locked the folder.
    """

    def __init__(self, folder: Path, heads: Sequence[str], *, overwrite: bool = False, shared: bool = False) -> None:
        if not heads:
            raise UsageError(f"{folder}: label maps need a segmentation head, and none was asked for; name one with --heads")
        self.folder, self.count, self.bytes = folder, 0, 0
        self._places = {head: folder / head if len(heads) > 1 else folder for head in heads}
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: is a file; label maps need a folder")
        self._lock: FolderLock | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not shared:
                self._lock = FolderLock(folder)
            self._clear(overwrite)
            for place in self._places.values():
                place.mkdir(exist_ok=True)
            for place in self._places.values():
                if not os.access(place, os.W_OK | os.X_OK):
                    raise UsageError(f"{place}: not writable; choose another folder")
        except OSError as error:
            self.close()
            raise UsageError(f"{folder}: cannot hold label maps ({error.strerror}); choose another folder") from error
        except UsageError:
            self.close()
            raise

    def close(self) -> None:
        """Give the folder up. Idempotent."""
        if self._lock is not None:
            self._lock.close()

    def _clear(self, overwrite: bool) -> None:
        earlier = [p for pattern in ("frame_*", "*/frame_*") for p in sorted(self.folder.glob(pattern)) if _NAME.fullmatch(p.name)]
        if earlier and not overwrite:
            raise UsageError(f"{self.folder}: already holds {len(earlier)} label maps; choose another folder or add --overwrite")
        for path in earlier:
            path.unlink()

    def write_all(self, slot: Slot, record: FrameRecord) -> None:
        """Write the label maps of all heads of a frame. Raises as `write` does."""
        for head in self._places:
            self.write(slot.outputs[head]["labels"][0], record.frame_id, record.timestamp_ns, head)

    def write(self, labels: NDArray[np.uint8], frame_id: int, timestamp_ns: int, head: str) -> None:
        """Write class ids uint8 [H,W]. Raises `LogError` when the disk does not take all of it; the files before are whole."""
        path = self._places[head] / label_name(frame_id, timestamp_ns)
        ok, data = opencv().imencode(".png", np.ascontiguousarray(labels))
        try:
            if not ok:
                raise OSError(0, "PNG encoding failed")
            write_whole(path, data.tobytes())
        except OSError as error:
            raise LogError(
                f"{path}: cannot be written ({error.strerror}); free disk space or choose another folder. "
                f"The {self.count} label maps before are whole"
            ) from error
        self.count += 1
        self.bytes += data.nbytes


__all__ = ["LabelMaps", "label_name"]
