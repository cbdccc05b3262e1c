"""`camera`: opens the camera itself, so that no image travels between processes; otherwise as `encode`.

    source --> camera --> image_raw/percodec, segmentation/*, camera_info

A picture of 2.8 MB hardly ever arrives over a topic with best effort. Here it never leaves the process.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sensor_msgs.msg import CameraInfo

from percodec.runtime.capture.camera import Reconnecting
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.source import FrameSource
from percodec.runtime.messages.calibration_file import camera_info_from_yaml
from percodec.runtime.messages.cdr import CameraInfo as CameraInfoCdr
from percodec.runtime.messages.topic_source import ClockedSource, Origin
from percodec.sdk.camera import CameraFormat
from percodec_ros import messages
from percodec_ros.node import run
from percodec_ros.outputs import camera_info_topic
from percodec_ros.pipeline_node import PipelineNode


class CameraNode(PipelineNode):
    """Stamps are those of the node's clock at the start of the exposure."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.image_topic = self.resolve_topic_name("image_raw")
        self._calibrated: CameraInfoCdr | None = None
        self._infos: Any = None

    def open(self) -> None:
        text, file = self.value("camera_format"), self.value("camera_info_file")
        self.camera = CameraFormat.from_text(text) if text else None
        super().open()
        self._calibrated = camera_info_from_yaml(Path(file.removeprefix("file://"))) if file else None
        self._infos = None
        if self._calibrated is not None:
            self._infos = self.outlets.add(CameraInfo, camera_info_topic(self, self.image_topic), 5)
            if self.predictions is not None and self.predictions.calibration is not None:
                self.predictions.calibration.take(self._calibrated.to_cdr())

    def make_source(self, first_id: int) -> ClockedSource:
        bundle = self.bundle

        def again() -> FrameSource:
            size = {"height": bundle.frame_height, "width": bundle.frame_width}
            return open_source(self.value("source"), realtime=True, camera=self.camera, **size)

        source = again()
        if source.info.live and self.value("reconnect_s") > 0:
            source = Reconnecting(source, again, self.value("reconnect_s"))
        return ClockedSource(source, self.now_ns, self.value("frame_id"), first_id=first_id, on_frame=self._captured)

    def begin(self) -> None:
        super().begin()
        if self.predictions is not None:
            self.predictions.begin(self.value("frame_id"))

    def ended(self) -> str:
        """A file has an end; a camera that ends is a fault already."""
        self.get_logger().info(f"{self.value('source')}: has ended")
        self.trigger_deactivate()
        return ""

    def changed(self, name: str, value: Any) -> None:
        if name == "rate_hz" and self.source is not None:
            self.source.throttle.rate_hz = value

    def _captured(self, origin: Origin) -> None:
        if self._calibrated is not None:
            self._infos.publish(messages.camera_info(replace(self._calibrated, header=origin.header)))


def main() -> int:
    """The process."""
    return run(CameraNode)


if __name__ == "__main__":
    raise SystemExit(main())

__all__ = ["CameraNode", "main"]
