"""Reliable and best-effort cameras without a setting, a mismatch that is said, and large images: what was lost is known."""

from __future__ import annotations

import re
import time

import pytest
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from support.ros_graph import BEST_EFFORT, Graph, image, pictures

START_NS = 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    ("offer", "found"), [(QoSProfile(depth=5), "reliable"), (BEST_EFFORT, "best_effort")], ids=["reliable", "best effort"]
)
def test_any_camera_works_without_a_setting(graph: Graph, offer: QoSProfile, found: str) -> None:
    graph.run("encode", predict=False)
    packets = graph.collect(CompressedImage, "/image_raw/percodec")
    camera = graph.publisher(Image, "/image_raw", offer)
    graph.until(lambda: graph.status("encode").get("input_reliability") == found, found)
    sent = 0
    while len(packets) < 10:  # some may be lost while the subscription is made anew
        camera.publish(image(pictures(1)[0], START_NS + sent))
        sent += 1
        graph.spin(0.05)
    assert sent < 20
    assert graph.status("encode")["publishers"] == "1"


def test_a_forced_mismatch_is_an_error_with_both_sides(graph: Graph) -> None:
    graph.run("encode", predict=False, input_reliability="reliable")
    graph.until(lambda: graph.status("encode").get("state") == "active")
    assert graph.status("encode")["level"] != "2"
    camera = graph.node.create_publisher(Image, "/image_raw", BEST_EFFORT)
    begin = time.monotonic()
    graph.until(lambda: graph.status("encode")["level"] == "2", "an error")
    assert time.monotonic() - begin < 2.0 + 0.5  # a message on its way
    message = graph.status("encode")["message"]
    assert "offers best_effort" in message
    assert "asks for reliable" in message
    graph.node.destroy_publisher(camera)
    graph.until(lambda: graph.status("encode")["level"] != "2", "the error to go")


def test_of_large_best_effort_images_the_lost_are_known_and_the_camera_node_loses_none(graph: Graph) -> None:
    """The middleware tells of what it lost but for the first and the last."""
    graph.run("encode", predict=False)
    camera = graph.publisher(Image, "/image_raw", BEST_EFFORT)
    message = image(pictures(1, 1280, 720)[0], START_NS)
    graph.spin(1.0)  # so that what was there before us is settled
    sent = 40
    for _ in range(sent):
        camera.publish(message)
        graph.spin(0.05)
    graph.spin(1.5)
    found = graph.status("encode")
    arrived = int(found["captured"]) + int(found["dropped_superseded"])
    lost = int(found["lost_by_middleware"])
    assert sent - 2 <= arrived + lost <= sent
    if lost > sent // 2:
        told = next(status["message"] for status in graph.statuses("encode") if "LARGE_DATA" in status["message"])
        assert "the camera offers best effort" in told
    graph.node.destroy_publisher(camera)

    own = graph.run("camera", "-r", "__ns:=/own", source="synthetic://road?width=1280&height=720&frames=12&fps=10", predict=False)
    graph.until(lambda: "has ended" in own.output, "the end of the source")
    graph.spin(0.5)
    counts = re.search(r"captured 12, predicted (\d+)(?:, (\d+) superseded)?; packets (\d+), not coded 0", own.output)
    assert counts, own.output  # on a busy machine a newer frame may take an older one's place, which is counted and no loss
    assert int(counts[1]) + int(counts[2] or 0) == 12
    assert counts[1] == counts[3]
