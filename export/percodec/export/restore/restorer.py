"""A trained restorer as one ONNX file, run by ONNX Runtime on one thread: the same picture gives the same bytes, whoever runs it.

    residual, corrector   image uint8 [1,H,W,3], bpp float32 [1] -> restored uint8 [1,H,W,3]     sides are multiples of 8
    latent                symbols uint8 [1,C,h,w]                -> restored uint8 [1,8h,8w,3]

What it was trained on, and for which rates, is in the file's metadata under `percodec.restorer`. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from percodec.export.evaluate.any_size import filled
from percodec.export.evaluate.codecs import Picture
from percodec.runtime.engines.onnxruntime import open_session
from percodec.sdk.errors import DataError
from percodec.sdk.files import read_file

KEY = "percodec.restorer"
TILE, MARGIN = 768, 64  # pixels; the margin is more than a restorer sees to each side, so tiles change nothing but the memory needed


class Restorer:
    """One file, opened. `facts` is its metadata, `digest` its sha256."""

    def __init__(self, path: Path) -> None:
        try:
            data = read_file(path)
        except OSError as e:
            raise DataError(f"restorer {path}: {e.strerror or e}") from e
        try:
            model = onnx.load_from_string(data)
            self.facts: dict[str, Any] = json.loads({p.key: p.value for p in model.metadata_props}[KEY])
            self._session = open_session(data)
        except Exception as e:
            raise DataError(f"{path} is not a restorer; `percodec restore train` writes one as restorer.onnx") from e
        self.digest = hashlib.sha256(data).hexdigest()
        self.latent = self.facts["network"] == "latent"

    def restore(self, picture: Picture, bpp: float) -> Picture:
        """A decoded picture of any size and the rate it came at; rates outside of what was trained on count as the nearest one."""
        low, high = self.facts["bpp"]
        rate = np.array([min(max(bpp, low), high)], np.float32)
        height, width = picture.shape[:2]
        whole = filled(picture, 8)
        out = np.empty_like(whole)
        for y in range(0, whole.shape[0], TILE):
            for x in range(0, whole.shape[1], TILE):
                top, left = max(0, y - MARGIN), max(0, x - MARGIN)
                piece = np.ascontiguousarray(whole[top : y + TILE + MARGIN, left : x + TILE + MARGIN])
                done = self._session.run(None, {"image": piece[None], "bpp": rate})[0][0]
                out[y : y + TILE, x : x + TILE] = done[y - top : y - top + TILE, x - left : x - left + TILE]
        return np.ascontiguousarray(out[:height, :width])

    def restore_latent(self, symbols: NDArray[np.uint8]) -> Picture:
        """Symbols uint8 [C,h,w] of the bundle it was trained for."""
        return np.asarray(self._session.run(None, {"symbols": symbols[None]})[0][0])


__all__ = ["KEY", "MARGIN", "TILE", "Restorer"]
