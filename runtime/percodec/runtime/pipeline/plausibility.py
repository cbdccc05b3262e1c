"""What an engine gave is judged before anyone sees it: written at all, in range, not constant, not the last frame's.

A wrong output is delivered with valid = False and the reason; symbols nobody wrote are no latent, so that frame is lost. A picture that is
itself constant (a cap on the lens) is no fault of the engine; one that a live camera repeats is named as such.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.pipeline.records import FrameRecord, HeadRecord, HeadTask
from percodec.runtime.pipeline.slots import POISON, FrameLost, Slot
from percodec.sdk.familiarity import BANDS, Familiarity, band_pixels

STEP = 16  # every 16th row and column of the picture tells whether it moved
MOVED = 4.0  # mean difference, in grey levels, that no sensor noise explains
UNFAMILIAR = "the scene is unfamiliar"
REPEATS = 5  # equal pictures in a row that no live camera gives


class Guard:
    """`check` and `examine` from any thread; `follow` in capture order, from one thread at a time."""

    def __init__(
        self, levels: int, heads: Mapping[str, HeadTask], *, live: bool = False, familiarity: Familiarity | None = None, strict: bool = True
    ) -> None:
        """`familiarity`: tells how usual a frame is, where its head is among `heads`; `strict`: of an unfamiliar one nothing is valid."""
        self._levels, self._heads, self._live, self._strict = levels, dict(heads), live, strict
        self._familiarity = familiarity if familiarity is not None and familiarity.head in (None, *self._heads) else None
        self._picture: NDArray[np.int16] | None = None
        self._latent = 0
        self._equal = 0

    def check(self, slot: Slot) -> None:
        """Raises `FrameLost` where a symbol is none: poison that the encoder did not overwrite, or an engine not to be trusted."""
        if int(slot.symbols.max()) >= self._levels:
            raise FrameLost(f"frame {slot.frame_id}: the encoder gave symbols outside 0..{self._levels - 1}; do not trust this engine")

    def examine(self, slot: Slot, record: FrameRecord, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Fill in what `record` says of the outputs. `masks`: scratch, bool, of the labels' shape, for each segmentation head."""
        record.latent_crc = zlib.crc32(slot.symbols.data)
        record.invalid, usual, pixels = "", self._familiarity, None
        for name, task in self._heads.items():
            outputs = slot.outputs[name]
            crc = 0
            for array in outputs.values():
                crc = zlib.crc32(array.data, crc)
            found = record.heads[name] = HeadRecord(crc)
            if task.task == "segmentation":
                bands = BANDS if usual is not None and usual.head == name else 1
                counts = band_pixels(outputs["labels"], task.classes, masks[name], bands)
                pixels = counts if bands > 1 else pixels
                wrong = _examine_labels(outputs["labels"], counts.sum(0), found, slot)
            elif task.task == "classification":
                wrong = _examine_probs(outputs["probs"], found)
            else:
                wrong = "" if all(map(_written, outputs.values())) else "an output that nobody wrote"
            if wrong and not record.invalid:
                record.invalid = wrong if len(self._heads) == 1 else f"head {name}: {wrong}"
        if usual is not None:
            record.unfamiliarity = usual.distance(slot.symbols[0], () if pixels is None else pixels)
            if record.unfamiliar and self._strict:
                record.invalid = record.invalid or UNFAMILIAR

    def follow(self, slot: Slot, record: FrameRecord) -> None:
        """Compare with the frame before: an output that stood still while the picture moved, or a picture that stands still."""
        picture = slot.image[0, ::STEP, ::STEP].astype(np.int16)
        before, self._picture = self._picture, picture
        latent, self._latent = self._latent, record.latent_crc
        if before is None:
            return
        moved = float(np.abs(picture - before).mean())
        if record.latent_crc == latent and moved > MOVED:
            record.invalid = record.invalid or "the latent is the last frame's, the picture is not"
        self._equal = self._equal + 1 if moved == 0 else 0
        if self._live and self._equal >= REPEATS:
            record.invalid = record.invalid or "the camera repeats one picture"


def _examine_labels(labels: NDArray[np.uint8], pixels: NDArray[np.int64], found: HeadRecord, slot: Slot) -> str:
    found.class_pixels = pixels
    if int(pixels.sum()) != labels.size:
        return "labels of no class: the head did not write all of its output"
    if int(pixels.max()) == labels.size and int(slot.symbols.min()) == int(slot.symbols.max()) and _varies(slot.image):
        return "latent and labels are constant, the picture is not"
    return ""


def _examine_probs(probs: NDArray[np.float32], found: HeadRecord) -> str:
    found.probs = probs.reshape(-1).copy()
    inside = bool(np.isfinite(probs).all()) and float(probs.min()) >= -1e-3 and float(probs.max()) <= 1 + 1e-3
    return "" if inside else "probabilities outside 0..1: the head did not write all of its output, or cannot be trusted"


def _written(array: NDArray[Any]) -> bool:
    return bool((array.reshape(-1).view(np.uint8) != POISON).any())


def _varies(image: NDArray[np.uint8]) -> bool:
    return int(image.max()) - int(image.min()) > MOVED


__all__ = ["MOVED", "REPEATS", "STEP", "UNFAMILIAR", "Guard"]
