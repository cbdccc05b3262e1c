"""What a run counts and what it knows of each frame. Exactness lives here: every frame is in one of these numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import BackendError, CodecError, LogError, PercodecError, SourceError


@dataclass(frozen=True)
class HeadTask:
    """What a head is for, "segmentation", "classification" or "array", and how many classes it knows (0: none)."""

    task: str
    classes: int = 0


@dataclass
class HeadRecord:
    """What one head gave. `crc`: CRC-32 over its outputs in order, as C-ordered bytes.

    `class_pixels`: int64 [classes] of a segmentation; `probs`: float32 [classes] of a classification.
    """

    crc: int
    class_pixels: NDArray[np.int64] | None = None
    probs: NDArray[np.float32] | None = None


@dataclass
class FrameRecord:
    """What is known of one encoded frame; small, lives on after its slot was reused. Settled once both flags are True.

    `age_ms`: from the start of exposure (live) or the hand-over by the source (files) to the prediction.
    `packet_bytes` is None when the packet was dropped or coding is off; `logged` is True once the log accepted it. `invalid`: why the
    prediction must not be used, "" where it may. `unfamiliarity`: above 1.0 the scene is none that the bundle was made for; None where the
    bundle cannot tell. `lost`: why the engine gave none.
    `latent_crc`: CRC-32 of the symbols as C-ordered bytes; `heads`: what each head gave.
    """

    sequence: int
    frame_id: int
    timestamp_ns: int
    age_ms: float = 0.0
    invalid: str = "not predicted"
    unfamiliarity: float | None = None
    latent_crc: int = 0
    heads: dict[str, HeadRecord] = field(default_factory=dict)
    packet_bytes: int | None = None
    logged: bool = False
    predicted: bool = False
    lost: Exception | None = None
    coding_settled: bool = False

    @property
    def valid(self) -> bool:
        """The prediction may be used."""
        return not self.invalid

    @property
    def unfamiliar(self) -> bool:
        """The scene is none that the bundle was made for."""
        return self.unfamiliarity is not None and self.unfamiliarity > 1


@dataclass
class Counts:
    """Exact numbers of frames. `encoded = coded + coding_dropped` holds at the end of every run that met no error."""

    captured: int = 0
    predicted: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    invalid: int = 0
    unfamiliar: int = 0
    encoded: int = 0
    coded: int = 0
    coding_dropped: int = 0
    logged: int = 0
    recorded: int = 0
    viewed: int = 0
    view_dropped: int = 0
    packet_bytes: int = 0

    @property
    def balanced(self) -> bool:
        """captured = predicted + dropped."""
        return self.captured == self.predicted + sum(self.dropped.values())


def typed_error(error: BaseException, stage: str) -> PercodecError:
    """The one error a user sees for whatever a stage raised."""
    if isinstance(error, PercodecError):
        return error
    if stage == "code" and isinstance(error, OSError):
        stage = "log"  # coding computes; what met the disk is the log behind it
    kinds: dict[str, type[PercodecError]] = {
        "capture": SourceError, "encode": BackendError, "predict": BackendError, "code": CodecError,
    }  # fmt: skip
    text = error.strerror if isinstance(error, OSError) and error.strerror else (str(error).splitlines() or [type(error).__name__])[0]
    text = text if isinstance(error, Exception) else type(error).__name__
    where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    typed = kinds.get(stage, LogError)(f"the {stage} stage failed: {text}{where}")
    typed.__cause__ = error
    return typed


__all__ = ["Counts", "FrameRecord", "HeadRecord", "HeadTask", "typed_error"]
