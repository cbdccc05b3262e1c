"""What nodes publish of a frame, each with the image's own header: its packet, labels and what belongs to them, an overlay, a class.

Publishers are reliable, which fits every subscriber. All may be called from the pipeline's threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from percodec.runtime.capture.opencv import opencv
from percodec.runtime.messages import cdr
from percodec.runtime.messages.calibration import fitted_camera_info
from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.messages.topic_source import Origin
from percodec.runtime.run.drawing import OverlayPainter
from percodec.sdk.bundle import GraphInfo
from percodec.sdk.errors import CodecError, MessageError, reason
from percodec.sdk.fit import PAD
from percodec.sdk.types import Prediction
from percodec_ros import messages
from percodec_ros.node import PercodecNode

ACKNOWLEDGED_S = 2.0  # how long the last messages may take to arrive before a node ends
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Publishers:
    """Publishers of one node, and how they end."""

    def __init__(self, node: PercodecNode) -> None:
        self._node = node
        self._all: list[Any] = []

    def add(self, kind: type[Any], topic: str, qos: int | QoSProfile) -> Any:
        """A publisher that is silent while the node is not active; its QoS can be overridden by parameters."""
        options = QoSOverridingOptions.with_default_policies()
        publisher = self._node.create_lifecycle_publisher(kind, topic, qos, qos_overriding_options=options)
        self._all.append(publisher)
        return publisher

    @property
    def subscribers(self) -> int:
        """Of all of them."""
        return sum(publisher.get_subscription_count() for publisher in self._all)

    def settle(self) -> None:
        """Wait until what was published has arrived where it is wanted, for two seconds at most."""
        for publisher in self._all:
            with contextlib.suppress(RuntimeError):  # a middleware that cannot tell
                publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGED_S))

    def close(self) -> None:
        """Take them out of the graph."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)
        self._all.clear()


class Calibration:
    """The latest camera info of a topic, and what it says of the bundle's frames."""

    def __init__(self, node: PercodecNode, publishers: Publishers, topic: str) -> None:
        self._node, self._publisher = node, publishers.add(CameraInfo, topic, 5)
        self._message: bytes = b""
        self._info: cdr.CameraInfo | None = None
        self.trouble = ""

    def take(self, message: bytes) -> None:
        """A serialized CameraInfo. Read only where it says something new: every image brings one."""
        behind = 4 + 8  # the stamp changes each time
        if message[behind:] == self._message[behind:]:
            return
        self._message = message
        try:
            self._info = cdr.CameraInfo.from_cdr(message)
        except MessageError as error:
            self.trouble = reason(error)

    def publish(self, origin: Origin, fit: str) -> None:
        """With the image's header; nothing as long as no camera info has come."""
        if self._info is None:
            return
        bundle = self._node.bundle
        if fit == PAD:  # the picture is as it was
            self._publisher.publish(messages.camera_info(replace(self._info, header=origin.header)))
            return
        try:
            fitted = fitted_camera_info(
                self._info, origin.header, origin.height, origin.width, fit, bundle.frame_height, bundle.frame_width
            )
        except MessageError as error:
            self.trouble = reason(error)
            return
        self.trouble = ""
        self._publisher.publish(messages.camera_info(fitted))


class Packets:
    """`<image topic>/percodec`."""

    def __init__(self, node: PercodecNode, publishers: Publishers, image_topic: str) -> None:
        self._node, self._publisher = node, publishers.add(CompressedImage, f"{image_topic}/percodec", 10)
        PacketFormat.of(node.bundle, "rgb8", 1, 1, node.bundle.fit)  # a name that no format can carry is refused now

    def publish(self, packet: bytes, origin: Origin) -> None:
        """One packet."""
        bundle = self._node.bundle
        format = PacketFormat.of(bundle, origin.encoding, origin.width, origin.height, bundle.fit)
        self._publisher.publish(messages.compressed(origin.header, str(format), packet))


class Predictions:
    """`segmentation/*` of the first segmentation head, `classification` of the first classification head."""

    def __init__(self, node: PercodecNode, publishers: Publishers, heads: Sequence[GraphInfo]) -> None:
        self._node = node
        self._segmentation = next((head for head in heads if head.task == "segmentation"), None)
        self._classification = next((head for head in heads if head.task == "classification"), None)
        self._each = node.value("label_info") == "each"
        self._vision = messages.vision_messages()
        self._labels = self._label_info = self._overlay = self._probs = None
        self.calibration: Calibration | None = None
        if self._segmentation is not None:
            self._labels = publishers.add(Image, "segmentation/labels", 5)
            self._overlay = publishers.add(CompressedImage, "segmentation/overlay/compressed", 1)
            self.calibration = Calibration(node, publishers, "segmentation/camera_info")
            self._painter = OverlayPainter(node.bundle, self._segmentation.labels)
            if self._vision is not None:
                self._label_info = publishers.add(self._vision.LabelInfo, "segmentation/label_info", LATCHED)
        if self._classification is not None and self._vision is not None:
            self._probs = publishers.add(self._vision.Classification, "classification", 5)
        if self._vision is None and heads:
            node.get_logger().info("vision_msgs is not installed: no label_info and no classification are published")

    def begin(self, frame: str) -> None:
        """Class names, latched, where they are not sent with each label image."""
        if self._label_info is not None and self._segmentation is not None and not self._each:
            header = cdr.Header.at(self._node.now_ns(), frame)
            self._label_info.publish(messages.label_info(self._vision, header, self._segmentation.labels))

    def publish(self, prediction: Prediction, origin: Origin, fit: str) -> None:
        """What one head says. One that is not valid is left out: the messages have no place to say so."""
        if not prediction.valid and not self._node.value("publish_invalid"):
            return
        if self._segmentation is not None and prediction.head == _name(self._segmentation):
            assert self._labels is not None
            assert self.calibration is not None
            self._labels.publish(messages.image(origin.header, "mono8", prediction.labels))
            self.calibration.publish(origin, fit)
            if self._each and self._label_info is not None:
                self._label_info.publish(messages.label_info(self._vision, origin.header, self._segmentation.labels))
        elif self._probs is not None and self._classification is not None and prediction.head == _name(self._classification):
            probs = prediction.probs.ravel().tolist()
            self._probs.publish(messages.classification(self._vision, origin.header, probs, self._classification.labels))

    @property
    def overlay_wanted(self) -> bool:
        """Somebody looks at it."""
        return self._overlay is not None and self._overlay.get_subscription_count() > 0

    @property
    def drawn(self) -> str:
        """The head whose labels the overlay shows; "" without one."""
        return _name(self._segmentation) if self._segmentation is not None else ""

    def publish_overlay(self, rgb: Any, labels: Any, origin: Origin) -> None:
        """`rgb` uint8 [H,W,3] of the bundle's size under the colours of `labels` uint8 [H,W]."""
        if self._overlay is None:
            return
        cv2 = opencv()
        picture = self._painter.blend(rgb, labels, self._node.value("overlay_alpha"))
        fine, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self._node.value("jpeg_quality")])
        if not fine:
            raise CodecError("the overlay cannot be written as JPEG; OpenCV was built without it")
        self._overlay.publish(messages.compressed(origin.header, "bgr8; jpeg compressed bgr8", data))


def camera_info_topic(node: PercodecNode, image_topic: str) -> str:
    """Beside the image, unless `camera_info` is remapped."""
    named, plain = node.resolve_topic_name("camera_info"), node.resolve_topic_name("camera_info", only_expand=True)
    return str(named) if named != plain else image_topic.rpartition("/")[0] + "/camera_info"


def _name(head: GraphInfo) -> str:
    return head.name.removeprefix("head_")


__all__ = ["Calibration", "Packets", "Predictions", "Publishers", "camera_info_topic"]
