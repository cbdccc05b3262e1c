"""What `encode` and `camera` share: a pipeline from a source with headers to packets, labels and an overlay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from percodec.runtime.messages.topic_source import ClockedSource, StampingCoder, TopicSource
from percodec.runtime.messages.topic_status import Snapshot
from percodec.runtime.pipeline.options import Outputs, PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.run.engines import Engines, open_engines
from percodec.runtime.run.settings import RunSettings
from percodec.runtime.session import chosen_heads, default_bundle, pipeline_of
from percodec.runtime.supervise.health import Health
from percodec.sdk.camera import CameraFormat
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import PercodecError, reason
from percodec.sdk.types import Prediction
from percodec_ros.node import PercodecNode
from percodec_ros.outputs import Packets, Predictions, Publishers

DRAIN_S = 10.0
USELESS = 5  # predictions in a row


class PipelineNode(PercodecNode):
    """A node has `make_source` and says which image topic the outputs stand beside."""

    image_topic = ""
    camera: CameraFormat | None = None

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.outlets = Publishers(self)
        self.source: TopicSource | ClockedSource | None = None
        self.predictions: Predictions | None = None
        self._packets: Packets | None = None
        self._engines: Engines | None = None
        self._slots: list[Slot] = []
        self._pipeline: Pipeline | None = None
        self._health = Health()
        self._heads: tuple[str, ...] = ()
        self._next_id = 0
        self._trouble = ""

    def make_source(self, first_id: int) -> TopicSource | ClockedSource:
        """What the pipeline reads from. Raises `PercodecError`."""
        raise AssertionError("each node has its own")

    # -- life --------------------------------------------------------------------------------------------------------------
    def open(self) -> None:
        bundle = self.bundle
        self._heads = self._wanted_heads()
        self._health = Health(lambda status: self.get_logger().warning(str(status)))
        folder = self.value("bundle")
        settings = RunSettings(
            source="",
            out=Path(),
            bundle=Path(folder) if folder else default_bundle(),
            backend=self.value("backend"),
            threads=self.value("threads"),
            provider=self.value("provider") or None,
            transfer=self.value("transfer"),
            camera=self.camera,
            isolate=self.value("isolate"),
            fallback=tuple(self.value("fallback")),
        )
        self._engines = open_engines(settings, bundle, self._heads, self._health)
        self._engines.prepare(self._policy)
        self._slots = []
        self._coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:], stream_id=self.value("stream_id"))
        self._packets = Packets(self, self.outlets, self.image_topic) if self.value("packets") else None
        self.predictions = Predictions(self, self.outlets, [bundle.head(name) for name in self._heads])

    def begin(self) -> None:
        source = self.source = self.make_source(self._next_id)
        source.throttle.rate_hz = self.value("rate_hz")
        coder = StampingCoder(self._coder, source.origins) if self._packets is not None else _NoPackets()
        patience = math.inf if self.value("isolate") else PipelineOptions.max_lost
        options = PipelineOptions(
            policy=self._policy, max_age_ms=self.value("max_age_ms"), max_lost=patience, allow_unfamiliar=self.value("allow_unfamiliar")
        )
        outputs = Outputs(
            on_prediction=self._predicted if self._heads else None,
            on_packet=self._coded if self._packets is not None else None,
            on_record=self._settled,
            on_view=self._seen if self.predictions is not None and self.predictions.drawn else None,
        )
        on_device = self.camera if self.value("backend").partition(":")[0] != "ort" and not self.value("isolate") else None
        self._trouble = ""
        self._pipeline = pipeline_of(
            self.bundle, self._heads, source, self._ring, coder, camera=on_device, options=options, outputs=outputs
        )  # fmt: skip
        self._pipeline.start()

    def end(self) -> None:
        pipeline, source = self._pipeline, self.source
        if pipeline is None or source is None:
            return
        # Closing a topic lets the pipeline finish what waits; a camera has nothing that waits.
        source.close()
        deadline = time.monotonic() + DRAIN_S
        while not pipeline.wait(0.1):
            if time.monotonic() > deadline:
                pipeline.stop()
                deadline = time.monotonic() + DRAIN_S
        counts = pipeline.settle()
        self._next_id = source.next_id
        self.outlets.settle()
        self._pipeline = self.source = None
        taken = f"arrived {source.arrivals.arrived}, captured {counts.captured}, predicted {counts.predicted}"
        taken += "".join(f", {n} {name}" for name, n in counts.dropped.items())
        self.get_logger().info(f"{taken}; packets {counts.logged}, not coded {counts.coding_dropped}")

    def close(self) -> None:
        self.outlets.close()
        self._packets = self.predictions = None
        self._slots = []
        if self._engines is not None:
            self._engines.close()
            self._engines = None

    def failed(self) -> str:
        pipeline = self._pipeline
        if pipeline is None or not pipeline.wait(0):
            return ""
        return f"the pipeline has ended: {reason(pipeline.error)}" if pipeline.error is not None else self.ended()

    def ended(self) -> str:
        """The source has, without an error. Why that is a fault; "" where it is not."""
        return ""

    @property
    def wanted(self) -> bool:
        """Somebody subscribes to something, or `lazy` is off."""
        return not self.value("lazy") or self.outlets.subscribers > 0

    # -- diagnostics ---------------------------------------------------------------------------------------------------------
    def fill(self, snapshot: Snapshot) -> None:
        snapshot.about["subscribers"] = str(self.outlets.subscribers)
        health = self._health.status.reasons.values()
        calibration = self.predictions.calibration if self.predictions is not None else None
        snapshot.worries = tuple(text for text in (*health, self._trouble, calibration.trouble if calibration else "") if text)
        pipeline, source = self._pipeline, self.source
        if pipeline is None or source is None:
            return
        snapshot.counts, snapshot.arrivals, snapshot.superseded = pipeline.counts, replace(source.arrivals), source.superseded
        bad, why = pipeline.invalid_in_a_row
        snapshot.invalid = why if bad >= USELESS else ""

    # -- the pipeline's threads ------------------------------------------------------------------------------------------------
    def _predicted(self, prediction: Prediction) -> None:
        def publish() -> None:
            if self.predictions is not None and self.source is not None:
                self.predictions.publish(prediction, self.source.origins.of(prediction.frame_id), self.bundle.fit)

        self._try(publish)

    def _coded(self, packet: bytes, frame_id: int, timestamp_ns: int) -> None:
        def publish() -> None:
            if self._packets is not None and self.source is not None:
                self._packets.publish(packet, self.source.origins.of(frame_id))

        self._try(publish)

    def _seen(self, slot: Slot, record: FrameRecord) -> None:
        def publish() -> None:
            predictions, source = self.predictions, self.source
            if predictions is not None and source is not None and predictions.overlay_wanted and record.valid:
                labels = slot.outputs[predictions.drawn]["labels"][0]
                predictions.publish_overlay(slot.image[0], labels, source.origins.of(record.frame_id))

        self._try(publish)

    def _settled(self, record: FrameRecord) -> None:
        self.status.latency_ms.add(record.age_ms)
        if record.packet_bytes:
            self.status.packet_bytes.add(record.packet_bytes)

    def _try(self, publish: Callable[[], None]) -> None:
        """A message that cannot be made is said, and the next one is tried."""
        try:
            publish()
        except PercodecError as error:
            self._trouble = reason(error)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    @property
    def _policy(self) -> str:
        return "latest" if "policy" not in self._parameters_of else str(self.value("policy"))

    def _ring(self, count: int) -> list[Slot]:
        """The same slots in every life of a pipeline: what is allocated on a device is so once."""
        if len(self._slots) != count:
            assert self._engines is not None
            self._slots = self._engines.make(count)
        return self._slots

    def _wanted_heads(self) -> tuple[str, ...]:
        if not self.value("predict"):
            return ()
        return chosen_heads(self.bundle, self.value("heads") or None)


class _NoPackets:
    """Where nobody wants any."""

    def encode(self, symbols: NDArray[Any], frame_id: int, timestamp_ns: int) -> bytes:
        return b""


__all__ = ["DRAIN_S", "PipelineNode"]
