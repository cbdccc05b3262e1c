"""A camera over engines in a process of their own, and all that the pipeline said."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.engines.open import graph_specs
from percodec.runtime.pipeline.options import Outputs, PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import HeadTask
from percodec.runtime.supervise.health import Health
from percodec.runtime.supervise.supervisor import Supervisor
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.types import Frame, Prediction
from support.tiny_bundle import frames

PERIOD_S = 0.02


class Clocked:
    """A camera at 50 frames a second, until it is closed."""

    def __init__(self, bundle: Bundle, count: int | None = None, period_s: float = PERIOD_S) -> None:
        self.info = SourceInfo("clocked", "fake", period_s > 0, bundle.frame_width, bundle.frame_height, 1 / PERIOD_S, count)
        self._images = frames(16, bundle.frame_height, bundle.frame_width)
        self._count, self._period, self._next, self._closed = count, period_s, 0, False
        self.stamps: list[float] = []
        self._begin = time.monotonic()

    def read(self) -> Frame | None:
        if self._closed or self._next == self._count:
            return None
        time.sleep(max(0.0, self._begin + self._next * self._period - time.monotonic()) if self._period else 0)
        self.stamps.append(time.monotonic())
        index, self._next = self._next, self._next + 1
        return Frame(self._images[index % 16], index, time.monotonic_ns())

    def close(self) -> None:
        self._closed = True


class Drive:
    """A pipeline over a supervisor, and all it said."""

    def __init__(
        self, folder: Path, *, candidates: tuple[str, ...] = ("ort",), count: int | None = None, period_s: float = PERIOD_S, **more: Any
    ):
        bundle = Bundle.open(folder)
        image, (symbols,) = graph_specs(bundle, "encoder")
        outputs = {"segmentation": graph_specs(bundle, "head_segmentation")[1]}
        self.states: list[tuple[float, str]] = []
        self.health = Health(lambda status: self.states.append((time.monotonic(), str(status))))
        self.supervisor = Supervisor(folder, (image, symbols), outputs, candidates, self.health, waits=period_s == 0, **more)
        self.seen: list[tuple[float, int, bool]] = []
        self.packets: list[int] = []
        self.source = Clocked(bundle, count, period_s)
        self.pipeline = Pipeline(
            self.source, Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit), self.supervisor.make,
            PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), levels=bundle.levels,
            heads={"segmentation": HeadTask("segmentation", len(bundle.labels))},
            options=PipelineOptions("latest" if period_s else "block", max_lost=float("inf"), max_age_ms=500),
            outputs=Outputs(self._prediction, lambda packet, frame, stamp: self.packets.append(frame)),
        )  # fmt: skip

    def _prediction(self, prediction: Prediction) -> None:
        self.seen.append((time.monotonic(), prediction.frame_id, prediction.valid))

    def until(self, condition: Callable[[], bool], limit_s: float = 20) -> float:
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < limit_s, (self.health.status, self.pipeline.counts)
            time.sleep(0.005)
        return time.monotonic() - begin

    def more(self, count: int = 5) -> None:
        """Wait for so many further predictions."""
        have = len(self.seen)
        self.until(lambda: len(self.seen) >= have + count)

    def end(self) -> Any:
        self.pipeline.stop()
        assert self.pipeline.wait(10)
        counts = self.pipeline.finish()
        self.supervisor.close()
        assert counts.balanced, counts
        return counts


__all__ = ["PERIOD_S", "Clocked", "Drive"]
