"""What a run counts and what it knows of each frame. Exactness lives here: every frame is in one of these numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import BackendError, CodecError, LogError, PercodecError, SourceError


@dataclass
class FrameRecord:
    """What is known of one encoded frame; small, lives on after its slot was reused. Settled once both flags are True.

    `age_ms`: from the start of exposure (live) or the hand-over by the source (files) to the prediction.
    `packet_bytes` is None when the packet was dropped or coding is off; `logged` is True once the log accepted it. `invalid`: why the
    prediction must not be used, "" where it may. `lost`: why the engine gave none.
    `class_pixels`: int64 [number of classes]. The two CRCs are CRC-32 of the symbols and labels as C-ordered bytes.
    """

    sequence: int
    frame_id: int
    timestamp_ns: int
    age_ms: float = 0.0
    invalid: str = "not predicted"
    latent_crc: int = 0
    labels_crc: int = 0
    class_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    packet_bytes: int | None = None
    logged: bool = False
    predicted: bool = False
    lost: Exception | None = None
    coding_settled: bool = False

    @property
    def valid(self) -> bool:
        """The prediction may be used."""
        return not self.invalid


@dataclass
class Counts:
    """Exact numbers of frames. `encoded = coded + coding_dropped` holds at the end of every run that met no error."""

    captured: int = 0
    predicted: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    invalid: int = 0
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


def typed_error(error: Exception, stage: str) -> PercodecError:
    """The one error a user sees for whatever a stage raised."""
    if isinstance(error, PercodecError):
        return error
    if stage == "code" and isinstance(error, OSError):
        stage = "log"  # coding computes; what met the disk is the log behind it
    kinds: dict[str, type[PercodecError]] = {
        "capture": SourceError, "encode": BackendError, "predict": BackendError, "code": CodecError,
    }  # fmt: skip
    text = error.strerror if isinstance(error, OSError) and error.strerror else (str(error).splitlines() or [type(error).__name__])[0]
    where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    typed = kinds.get(stage, LogError)(f"the {stage} stage failed: {text}{where}")
    typed.__cause__ = error
    return typed


__all__ = ["Counts", "FrameRecord", "typed_error"]
