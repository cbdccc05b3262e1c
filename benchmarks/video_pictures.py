"""The pictures of a video or a rendered drive as an encoder is given them, for the benchmarks that look at each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime import open_source
from percodec.runtime.capture.preprocess import Preprocessor


def fitted_pictures(video: Path, height: int, width: int, fit: str) -> Iterator[NDArray[np.uint8]]:
    """RGB uint8 [height,width,3] each, yours to keep. `fit`: as a bundle says it."""
    source, preprocess = open_source(str(video), height=height, width=width), Preprocessor(height, width, fit)
    try:
        while (frame := source.read()) is not None:
            out = np.empty((height, width, 3), np.uint8)
            preprocess(frame, out)
            yield out
    finally:
        source.close()


__all__ = ["fitted_pictures"]
