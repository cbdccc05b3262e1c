"""`decode`: packets in, pictures out, for viewers and for nodes that know only images. Without a subscriber it does nothing.

image_raw/percodec --> decode --> decoded/image (rgb8), decoded/camera_info
"""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CameraInfo, Image

from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.messages.topic_source import Origin
from percodec.runtime.messages.topic_status import Snapshot
from percodec.runtime.session import Session
from percodec.sdk.errors import BundleError
from percodec.sdk.fit import PAD
from percodec_ros import messages
from percodec_ros.node import run
from percodec_ros.outputs import Calibration, camera_info_topic
from percodec_ros.packet_node import PacketNode
from percodec_ros.topic_input import TopicInput


class DecodeNode(PacketNode):
    """Pictures have the encoding rgb8, and the size that was coded: the bundle's, or their own where `percodec bag` made the packets."""

    takes_whole = True

    def __init__(self) -> None:
        super().__init__("decode")
        self._images: Any = None
        self._calibration: Calibration | None = None
        self._infos: TopicInput | None = None
        self._whole: Session | None = None

    def open(self) -> None:
        if "decoder" not in self.bundle.graphs:
            raise BundleError(f"bundle {self.bundle.name} has no decoder; use one exported with it")
        super().open()
        self._images = self.outlets.add(Image, "decoded/image", 5)
        self._calibration = Calibration(self, self.outlets, "decoded/camera_info")

    def begin(self) -> None:
        super().begin()
        assert self._calibration is not None
        self._infos = TopicInput(self, CameraInfo, camera_info_topic(self, self.image_topic), self._calibration.take, depth=1)

    def end(self) -> None:
        if self._infos is not None:
            self._infos.close()
            self._infos = None
        super().end()

    def close(self) -> None:
        self._images = self._calibration = None
        if self._whole is not None:
            self._whole.close()
            self._whole = None
        super().close()

    def fill(self, snapshot: Snapshot) -> None:
        super().fill(snapshot)
        if self._calibration is not None and self._calibration.trouble:
            snapshot.worries = (*snapshot.worries, self._calibration.trouble)

    def work(self, packet: Any, origin: Origin, format: PacketFormat) -> bool:
        if self._calibration is None or self._images.get_subscription_count() == 0:
            return False
        session = self._of_size(format) if format.fit == PAD else self.session
        picture = session.decode(session.unpack(packet.data))
        self._images.publish(messages.image(origin.header, "rgb8", picture))
        self._calibration.publish(origin, format.fit)
        return True

    def _of_size(self, format: PacketFormat) -> Session:
        """For the last size that came. Raises `UsageError` and `BundleError` where pictures of any size cannot be decoded."""
        size = format.width, format.height
        if self._whole is None or self._whole.size != size:
            if self._whole is not None:
                self._whole.close()
            backend, threads = self.value("backend"), self.value("threads")
            self._whole = Session.open(self.bundle, backend=backend, heads=(), threads=threads, selftest=False, size=size)
        return self._whole


def main() -> int:
    """The process."""
    return run(DecodeNode)


if __name__ == "__main__":
    raise SystemExit(main())

__all__ = ["DecodeNode", "main"]
