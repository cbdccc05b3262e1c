"""`encode`: images in, packets out, and from the same latent what the heads say.

image_raw --> encode --> image_raw/percodec, segmentation/labels, .../label_info, .../overlay/compressed, .../camera_info
"""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from percodec.runtime.messages.topic_source import TopicSource
from percodec_ros.node import run
from percodec_ros.outputs import camera_info_topic
from percodec_ros.pipeline_node import PipelineNode
from percodec_ros.topic_input import DEPTH, TopicInput

WAITING = 100  # images under the policy block


class EncodeNode(PipelineNode):
    """Its packets stand beside the image it reads: a remap of `image_raw` carries them along."""

    def __init__(self) -> None:
        super().__init__("encode")
        self.image_topic = self.resolve_topic_name("image_raw")
        self._infos: TopicInput | None = None

    def make_source(self, first_id: int) -> TopicSource:
        compressed = self.value("input_transport") == "compressed"
        depth = WAITING if self.value("policy") == "block" else 1
        source = TopicSource(
            f"{self.image_topic}/compressed" if compressed else self.image_topic,
            self.now_ns,
            compressed=compressed,
            depth=depth,
            check_repeats=self.value("check_repeats") and not self.simulated,
            first_id=first_id,
        )
        source.max_stamp_age_ms = self.value("max_stamp_age_ms")
        return source

    def begin(self) -> None:
        super().begin()
        assert isinstance(self.source, TopicSource)
        self.input = TopicInput(
            self,
            CompressedImage if self.value("input_transport") == "compressed" else Image,
            self.source.info.spec,
            self.source.offer,
            reliability=self.value("input_reliability"),
            depth=max(DEPTH, WAITING if self.value("policy") == "block" else 0),
            wanted=lambda: self.wanted,
        )
        if self.predictions is not None and self.predictions.calibration is not None:
            self._infos = TopicInput(
                self, CameraInfo, camera_info_topic(self, self.image_topic), self.predictions.calibration.take, depth=1
            )
        if self.predictions is not None:
            self.predictions.begin("")

    def end(self) -> None:
        if self._infos is not None:
            self._infos.close()
            self._infos = None
        super().end()

    def changed(self, name: str, value: Any) -> None:
        if isinstance(self.source, TopicSource):
            if name == "rate_hz":
                self.source.throttle.rate_hz = value
            elif name == "max_stamp_age_ms":
                self.source.max_stamp_age_ms = value


def main() -> int:
    """The process."""
    return run(EncodeNode)


if __name__ == "__main__":
    raise SystemExit(main())

__all__ = ["WAITING", "EncodeNode", "main"]
