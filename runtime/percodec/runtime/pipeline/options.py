"""What a pipeline is told: how to treat its frames, and who listens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import Slot
from percodec.sdk.errors import UsageError
from percodec.sdk.types import Prediction

POLICIES = ("block", "latest")
_MOST = {"workers": 64, "code_depth": 1024, "view_depth": 1024, "slots": 4096, "max_frames": 1 << 62}


class Coder(Protocol):
    """Turns one latent into one packet; `percodec.sdk.codec.PacketCodec` does."""

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int) -> bytes: ...


@dataclass(frozen=True)
class PipelineOptions:
    """`policy`: `block` predicts every frame, `latest` the newest. `workers`: predictions computed at the same time, 1..64. Depths: slots
    a lane may hold. `slots` None: what the stages need. `max_frames` None: as many as there are. Raises `UsageError` for anything else.

    `max_age_ms`: a prediction older than this is delivered with valid = False. `max_lost`: so many frames in a row lost by the engine end
    the run; infinity where a supervisor replaces engines that lose frames. `allow_unfamiliar`: predictions of scenes that the bundle was
    not made for stay valid; they are counted all the same.
    """

    policy: str = "block"
    workers: int = 1
    code_depth: int = 3
    view_depth: int = 2
    slots: int | None = None
    max_frames: int | None = None
    max_age_ms: float = math.inf
    max_lost: float = 10
    allow_unfamiliar: bool = False

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(f"policy is one of {', '.join(POLICIES)}; got {self.policy!r}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is None and name in ("slots", "max_frames"):
                continue
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UsageError(f"{name} is a whole number from 1 to {most}; got {value!r}")
        for name in ("max_age_ms", "max_lost"):
            if not getattr(self, name) > 0:  # nor is NaN
                raise UsageError(f"{name} is above 0; got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Outputs:
    """Who is told. Each is called from one thread at a time, in capture order; arrays are the slot's: copy what must stay.

    `on_prediction` is called once for each head of a frame, inside the prediction stage: keep it short.
    `on_packet` returns once the packet is safe.
    """

    on_prediction: Callable[[Prediction], None] | None = None
    on_packet: Callable[[bytes, int, int], None] | None = None
    on_record: Callable[[FrameRecord], None] | None = None
    on_view: Callable[[Slot, FrameRecord], None] | None = None


__all__ = ["POLICIES", "Coder", "Outputs", "PipelineOptions"]
