"""Images through the nodes: what comes out, whose header it carries, and that every process says the same of one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from support.launch_file import launched
from support.ros_graph import Graph, image, pictures, stamp_ns
from support.vision_messages import write_module

from percodec.runtime import Session
from percodec.runtime.messages.format import PacketFormat
from percodec.sdk.codec import parse_header
from percodec.sdk.fit import PAD

ROOT = Path(__file__).resolve().parents[2]
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STEP_NS = 40_000_000
START_NS = 1_700_000_000_123_456_789
CALIBRATION = """image_width: 480
image_height: 360
distortion_model: plumb_bob
distortion_coefficients: {data: [0, 0, 0, 0, 0]}
camera_matrix: {data: [500, 0, 239.5, 0, 500, 179.5, 0, 0, 1]}
rectification_matrix: {data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {data: [500, 0, 239.5, 0, 0, 500, 179.5, 0, 0, 0, 1, 0]}
"""
PACKETS, LABELS = "/image_raw/percodec", "/segmentation/labels"


def _send(graph: Graph, publisher: Any, found: list[Any], frames: list[NDArray[np.uint8]], *nodes: str) -> None:
    """To `nodes`, one after the other, each when the one before has been answered."""
    graph.settled(*nodes)
    begin = len(found)
    for index, picture in enumerate(frames):
        publisher.publish(image(picture, START_NS + index * STEP_NS, f"optical {index}"))
        graph.until(lambda index=index: len(found) > begin + index, f"an answer to image {index}")


def _header(message: Any) -> tuple[int, str]:
    return stamp_ns(message), message.header.frame_id


def test_an_image_comes_back_as_a_picture(graph: Graph) -> None:
    graph.run("encode", predict=False)
    graph.run("decode")
    found = graph.collect(Image, "/decoded/image")
    graph.until(lambda: graph.node.count_subscribers(PACKETS) and graph.node.count_publishers("/decoded/image"), "decode")
    frames = pictures(4)
    _send(graph, graph.publisher(Image, "/image_raw"), found, frames, "encode", "decode")
    for index, (message, frame) in enumerate(zip(found, frames, strict=True)):
        assert _header(message) == (START_NS + index * STEP_NS, f"optical {index}")
        assert (message.encoding, message.width, message.height, message.step) == ("rgb8", 480, 360, 1440)
        error = np.frombuffer(message.data, np.uint8).reshape(frame.shape).astype(float) - frame
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 20


def test_pictures_coded_whole_come_back_at_their_own_size(graph: Graph) -> None:
    """As `percodec bag compress` leaves them; `ros2 bag play` and `decode` show them. `predict` says why it cannot."""
    graph.run("decode")
    graph.run("predict")
    found = graph.collect(Image, "/decoded/image")
    frames = pictures(2, 332, 250)
    graph.until(lambda: graph.node.count_publishers("/decoded/image"))
    relay = graph.publisher(CompressedImage, PACKETS, subscribers=2)
    graph.settled("decode", "predict")
    with Session.open(size=(332, 250)) as session:
        form = PacketFormat.of(session.bundle, "bgr8", 332, 250, PAD)
        for index, frame in enumerate(frames):
            latent = session.encode(frame, frame_id=index, timestamp_ns=START_NS)
            message = CompressedImage(format=str(form), data=session.pack(latent))
            message.header.frame_id = f"optical {index}"
            relay.publish(message)
            graph.until(lambda index=index: len(found) > index, "a picture")
            assert (found[-1].width, found[-1].height, found[-1].header.frame_id) == (332, 250, f"optical {index}")
            assert bytes(found[-1].data) == session.decode(latent).tobytes()
    graph.until(lambda: graph.status("predict").get("refused") == "2", "predict to refuse")
    assert "heads are trained for one size" in graph.status("predict")["message"]


def test_same_labels_wherever_they_are_predicted_and_the_same_header_on_everything(graph: Graph) -> None:
    """`encode` here, `predict` in another process from its packets, and `Session` with no ROS at all."""
    graph.run("encode", publish_invalid=True)
    graph.run("predict", "-r", "__ns:=/elsewhere", "-r", "image_raw:=/image_raw")
    topics = {
        LABELS: Image,
        f"/elsewhere{LABELS}": Image,
        PACKETS: CompressedImage,
        "/segmentation/camera_info": CameraInfo,
        "/elsewhere/segmentation/overlay/compressed": CompressedImage,
        "/segmentation/overlay/compressed": CompressedImage,
    }
    begun = [graph.collect(kind, topic) for topic, kind in topics.items()]
    exact = [graph.collect(kind, topic, frame="optical") for topic, kind in topics.items()]
    here, there, packets, infos, _, overlays = exact
    graph.until(lambda: graph.node.count_publishers(f"/elsewhere{LABELS}"), "predict")
    calibration = graph.publisher(CameraInfo, "/camera_info", subscribers=2)
    k = [800.0, 0.0, 639.5, 0.0, 810.0, 359.5, 0.0, 0.0, 1.0]
    camera = graph.publisher(Image, "/image_raw")
    frames = pictures(12, 1280, 720)
    while not all(begun):  # the calibration comes with images, and a subscription may have been made anew meanwhile
        calibration.publish(CameraInfo(height=720, width=1280, k=k, distortion_model="plumb_bob"))
        camera.publish(image(frames[0], START_NS - STEP_NS))
        graph.spin(0.2)
    _send(graph, camera, there, frames, "encode", "elsewhere/predict")
    wanted = [(START_NS + index * STEP_NS, f"optical {index}") for index in range(len(frames))]
    graph.until(lambda: min(map(len, exact[:5])) == len(frames) and overlays, "everything of every image")
    for messages in exact[:5]:
        assert [_header(message) for message in messages] == wanted
    assert {_header(message) for message in overlays} <= set(wanted)  # a busy machine leaves some undrawn
    assert [message.data for message in here] == [message.data for message in there]
    with Session.open() as session:
        for message, packet, frame in zip(here, packets, frames, strict=True):
            header = parse_header(bytes(packet.data))
            assert header.timestamp_ns == stamp_ns(message)
            form = PacketFormat.from_text(packet.format)
            assert (form.encoding, form.width, form.height, form.digest) == ("rgb8", 1280, 720, session.bundle.digest[:12])
            labels = session.predict(session.unpack(bytes(packet.data))).labels
            assert bytes(message.data) == labels.tobytes() == session.predict(session.encode(frame)).labels.tobytes()
    counters = [parse_header(bytes(packet.data)).counter for packet in packets]
    assert counters == list(range(counters[0], counters[0] + len(frames)))
    assert (infos[0].width, infos[0].height, infos[0].distortion_model) == (480, 360, "plumb_bob")
    assert abs(infos[0].k[0] - 400) < 1e-9  # 720 rows cropped to 960x720, then halved
    assert overlays[0].format == "bgr8; jpeg compressed bgr8"
    assert graph.status("elsewhere/predict")["lost_packets"] == "0"


def test_two_cameras_of_one_launch_file_keep_to_their_namespaces(graph: Graph, package: Path, tmp_path: Path) -> None:
    """No image topic, no other step: packets, labels, overlay and diagnostics of each."""
    share = package / "share" / "percodec_ros"
    sources = {"left": "synthetic://road?frames=2000&seed=1", "right": "synthetic://road?frames=2000&seed=2"}
    nodes = list(launched(share / "launch" / "two_cameras.launch.xml", share, **sources))
    assert [node.executable for node in nodes] == ["camera", "camera"]
    topics = {"image_raw/percodec": CompressedImage, "segmentation/labels": Image, "segmentation/overlay/compressed": CompressedImage}
    found = {(side, topic): graph.collect(kind, f"/{side}/{topic}") for side in sources for topic, kind in topics.items()}
    (tmp_path / "camera.yaml").write_text(CALIBRATION, encoding="utf-8")
    infos = graph.collect(CameraInfo, "/left/camera_info"), graph.collect(CameraInfo, "/left/segmentation/camera_info")
    for node in nodes:
        graph.run(node.executable, *node.words, "-p", "rate_hz:=8.0", "-p", f"camera_info_file:={tmp_path}/camera.yaml")
    graph.until(lambda: all(len(messages) > 10 for messages in (*found.values(), *infos)), "everything of both cameras")
    assert (infos[0][0].width, infos[0][0].k[0], infos[1][0].width, infos[1][0].k[0]) == (480, 500.0, 480, 500.0)
    assert {stamp_ns(info) for info in infos[1][:5]} <= {stamp_ns(info) for info in infos[0]} | {stamp_ns(infos[1][0])}
    graph.until(lambda: all(graph.status(f"{side}/camera").get("level") == "0" for side in sources), "both to be well")
    for side, stream in (("left", 0), ("right", 1)):
        packets, labels = found[side, "image_raw/percodec"], found[side, "segmentation/labels"]
        assert {parse_header(bytes(packet.data)).stream_id for packet in packets} == {stream}
        assert {message.header.frame_id for message in labels} == {f"{side}_optical"}
        stamps = [stamp_ns(packet) for packet in packets]
        both = [stamp_ns(message) for message in labels if stamps[0] <= stamp_ns(message) <= stamps[-1]]
        assert len(both) > 5
        assert set(both) <= set(stamps)
        assert abs(stamp_ns(labels[-1]) - graph.node.get_clock().now().nanoseconds) < 20e9
        assert graph.status(f"{side}/camera")["bundle"].startswith("road@")


def test_a_remapped_image_carries_its_packets_along_and_may_come_as_jpeg(graph: Graph) -> None:
    graph.run("encode", "-r", "__ns:=/front", "-r", "image_raw:=/rig/image_rect", predict=False, input_transport="compressed", lazy=True)
    graph.until(lambda: graph.status("front/encode").get("state") == "active")
    assert not graph.node.count_subscribers("/rig/image_rect/compressed"), "without a subscriber there is nothing to do"
    packets = graph.collect(CompressedImage, "/rig/image_rect/percodec")
    camera = graph.publisher(CompressedImage, "/rig/image_rect/compressed")
    graph.settled("front/encode")
    for index, picture in enumerate(pictures(2, 640, 480)):
        data = cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()
        message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=data)
        message.header.stamp.sec = index + 1
        camera.publish(message)
        graph.until(lambda index=index: len(packets) > index, "a packet")
    assert [stamp_ns(packet) for packet in packets] == [1_000_000_000, 2_000_000_000]
    form = PacketFormat.from_text(packets[0].format)
    assert (form.encoding, form.width, form.height) == ("rgb8", 640, 480)
    assert not graph.node.count_publishers("/front/image_raw/percodec")


def test_a_lost_packet_is_counted_and_a_foreign_message_named(graph: Graph) -> None:
    graph.run("encode", predict=False)
    graph.run("predict", "-r", "image_raw:=/relayed")
    packets, labels = graph.collect(CompressedImage, PACKETS), graph.collect(Image, LABELS)
    relay = graph.publisher(CompressedImage, "/relayed/percodec")
    graph.settled("predict")
    _send(graph, graph.publisher(Image, "/image_raw"), packets, pictures(4), "encode")
    for index in (0, 1, 3):
        relay.publish(packets[index])
        graph.until(lambda index=index: len(labels) == min(index, 2) + 1, f"labels of packet {index}")
    relay.publish(CompressedImage(format="jpeg", data=b"no packet"))
    graph.until(lambda: graph.status("predict").get("refused") == "1", "the foreign message to be refused")
    found = graph.status("predict")
    assert found["lost_packets"] == "1"
    assert found["level"] == "1"
    assert "1 packets were lost" in found["message"]
    assert "'jpeg' is not that of a percodec packet" in found["message"]


def test_class_names_and_classes_go_out_where_vision_msgs_is(graph: Graph, tmp_path: Path) -> None:
    """A bundle with a head of each kind; names latched for who comes late, and with each label image where that is asked for."""
    graph.python_path.append(write_module(tmp_path))
    words = {"bundle": ROOT / "benchmarks" / "bundles" / "lab-0.330", "heads": "[segmentation, classification]", "packets": False}
    graph.run("encode", "-r", "__ns:=/once", "-r", "image_raw:=/image_raw", **words)
    graph.run("encode", "-r", "__ns:=/each", "-r", "image_raw:=/image_raw", label_info="each", **words)
    camera = graph.publisher(Image, "/image_raw", subscribers=2)
    classes, each = graph.collect(String, "/once/classification"), graph.collect(String, "/each/segmentation/label_info")
    graph.until(
        lambda: graph.node.count_publishers("/once/classification") and graph.node.count_publishers("/each/segmentation/label_info")
    )
    _send(graph, camera, classes, pictures(2, 320, 240), "once/encode", "each/encode")
    graph.until(lambda: len(each) == 2, "names with each image")
    late = graph.collect(String, "/once/segmentation/label_info", LATCHED)
    graph.until(lambda: late, "latched names")
    assert late[0].data.splitlines()[1:] == each[0].data.splitlines()[1:]
    assert len(late[0].data.splitlines()) > 10
    for index, (names, scores) in enumerate(zip(each, classes, strict=True)):
        header = f"1700000000.{START_NS % 10**9 + index * STEP_NS:09d} optical {index}"
        assert names.data.splitlines()[0] == scores.data.splitlines()[0] == header
        shares = [float(line.rpartition(" ")[2]) for line in scores.data.splitlines()[1:]]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 11
        assert 0 <= min(shares) <= max(shares) <= 1
    assert not any("vision_msgs is not installed" in process.output for process in graph.processes)


def test_replays_give_the_same_labels_at_any_speed_and_under_simulated_time(graph: Graph) -> None:
    """Stamps of long ago, played at half and at twice their speed, the clock with them, and again from the start."""
    graph.run("encode", packets=False, policy="block", use_sim_time=True)
    graph.run("encode", "-r", "__ns:=/plain", "-r", "image_raw:=/image_raw", packets=False, policy="block")
    timed, plain = graph.collect(Image, LABELS), graph.collect(Image, f"/plain{LABELS}")
    clock = graph.node.create_publisher(Clock, "/clock", 10)
    camera = graph.publisher(Image, "/image_raw", subscribers=2)
    graph.until(lambda: clock.get_subscription_count() and graph.node.count_publishers(f"/plain{LABELS}"), "the clock's reader")
    frames = pictures(8)
    graph.settled("encode", "plain/encode")
    for passed, speed in enumerate((0.5, 2.0)):
        for index, picture in enumerate(frames):
            now = START_NS + index * 100_000_000
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(now, 1_000_000_000)
            clock.publish(message)
            camera.publish(image(picture, now))
            graph.spin(0.1 / speed)
        graph.until(lambda passed=passed: min(len(timed), len(plain)) == (passed + 1) * len(frames), "every image of the pass")
    for labels in (timed, plain):
        first, second = labels[: len(frames)], labels[len(frames) :]
        assert [bytes(message.data) for message in first] == [bytes(message.data) for message in second]
    assert [bytes(message.data) for message in timed] == [bytes(message.data) for message in plain]
    graph.until(lambda: graph.status("encode").get("invalid") == graph.status("plain/encode").get("invalid") == "0", "both reports")
