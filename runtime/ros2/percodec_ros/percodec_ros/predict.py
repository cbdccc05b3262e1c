"""`predict`: packets in, what the heads say out: the same labels as where the packets were made, in another process or machine.

image_raw/percodec --> predict --> segmentation/labels, .../label_info, .../overlay/compressed, .../camera_info
"""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CameraInfo

from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.messages.topic_source import Origin
from percodec.runtime.messages.topic_status import Snapshot
from percodec.runtime.session import chosen_heads
from percodec.sdk.types import Prediction
from percodec_ros.node import run
from percodec_ros.outputs import Predictions, camera_info_topic
from percodec_ros.packet_node import PacketNode
from percodec_ros.topic_input import TopicInput


class PredictNode(PacketNode):
    """The overlay is drawn over the picture that the decoder rebuilds."""

    def __init__(self) -> None:
        super().__init__("predict")
        self._predictions: Predictions | None = None
        self._infos: TopicInput | None = None

    def heads(self) -> tuple[str, ...]:
        return chosen_heads(self.bundle, self.value("heads") or None)

    def open(self) -> None:
        super().open()
        self._predictions = Predictions(self, self.outlets, list(self.session.heads.values()))

    def begin(self) -> None:
        super().begin()
        assert self._predictions is not None
        if self._predictions.calibration is not None:
            topic = camera_info_topic(self, self.image_topic)
            self._infos = TopicInput(self, CameraInfo, topic, self._predictions.calibration.take, depth=1)
        self._predictions.begin("")

    def end(self) -> None:
        if self._infos is not None:
            self._infos.close()
            self._infos = None
        super().end()

    def close(self) -> None:
        self._predictions = None
        super().close()

    def fill(self, snapshot: Snapshot) -> None:
        super().fill(snapshot)
        calibration = self._predictions.calibration if self._predictions is not None else None
        if calibration is not None and calibration.trouble:
            snapshot.worries = (*snapshot.worries, calibration.trouble)

    def work(self, packet: Any, origin: Origin, format: PacketFormat) -> bool:
        session, predictions = self.session, self._predictions
        latent = session.unpack(packet.data)
        if predictions is None:
            return False
        found: dict[str, Prediction] = {}
        for head in session.heads:
            found[head] = session.predict(latent, head)
            predictions.publish(found[head], origin, format.fit)
        if predictions.overlay_wanted and "decoder" in self.bundle.graphs:
            predictions.publish_overlay(session.decode(latent), found[predictions.drawn].labels, origin)
        return True


def main() -> int:
    """The process."""
    return run(PredictNode)


if __name__ == "__main__":
    raise SystemExit(main())

__all__ = ["PredictNode", "main"]
