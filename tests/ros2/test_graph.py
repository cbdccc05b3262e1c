"""Images through the nodes: what comes out, whose header it carries, and that every process says the same of one frame."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image
from support.ros_graph import Graph, image, pictures, stamp_ns

STEP_NS = 40_000_000
START_NS = 1_700_000_000_123_456_789


def _send(graph: Graph, publisher: object, found: list[object], frames: list[np.ndarray], start_ns: int = START_NS) -> None:
    """One after the other, each when the one before has been answered."""
    for index, picture in enumerate(frames):
        publisher.publish(image(picture, start_ns + index * STEP_NS, f"optical {index}"))
        graph.until(lambda index=index: len(found) > index, f"an answer to image {index}")


def test_an_image_comes_back_as_a_picture(graph: Graph) -> None:
    graph.run("encode", predict=False)
    graph.run("decode")
    found = graph.collect(Image, "/decoded/image")
    graph.until(lambda: graph.node.count_subscribers("/image_raw/percodec") > 0, "decode")
    camera = graph.publisher(Image, "/image_raw")
    graph.until(lambda: graph.node.count_publishers("/decoded/image") > 0)
    frames = pictures(5)
    _send(graph, camera, found, frames)
    for index, (message, frame) in enumerate(zip(found, frames, strict=True)):
        assert (stamp_ns(message), message.header.frame_id) == (START_NS + index * STEP_NS, f"optical {index}")
        assert (message.encoding, message.width, message.height, message.step) == ("rgb8", 480, 360, 1440)
        error = np.frombuffer(message.data, np.uint8).reshape(frame.shape).astype(float) - frame
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 20
