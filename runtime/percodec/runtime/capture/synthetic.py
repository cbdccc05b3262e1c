"""A rendered, seeded drive as a source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.source import SourceInfo
from percodec.sdk.errors import SourceError
from percodec.sdk.synthetic.road import RoadScene
from percodec.sdk.types import Frame


class SyntheticRoad:
    """A rendered, seeded drive in CamVid's classes. `truth` holds the last frame's exact labels, uint8 [H,W]."""

    def __init__(self, spec: str, *, frames: int, seed: int, height: int, width: int, fps: int) -> None:
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


__all__ = ["SyntheticRoad"]
