"""A node's life: what is refused and why, what may change when, and an end in full flow that loses nothing."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import cv2
import pytest
from sensor_msgs.msg import CompressedImage, Image
from support.ros_graph import Graph, image, pictures

from percodec.sdk.codec import parse_header

START_NS = 1_700_000_000_000_000_000


def test_a_life_from_a_wrong_bundle_to_packets_and_back(graph: Graph, tmp_path: Path) -> None:
    graph.run("encode", autostart=False, bundle=str(tmp_path), predict=False)
    assert graph.state("encode") == "unconfigured"
    assert not graph.change("encode", "configure")
    assert graph.state("encode") == "unconfigured"
    graph.until(lambda: graph.status("encode").get("level") == "2", "the reason")
    assert "manifest.json" in graph.status("encode")["message"]
    assert graph.set("encode", "bundle", "") == ""
    assert graph.change("encode", "configure")
    assert graph.set("encode", "bundle", "/elsewhere") == "bundle can change only while the node is unconfigured"
    assert graph.change("encode", "activate")
    packets = graph.collect(CompressedImage, "/image_raw/percodec")
    camera = graph.publisher(Image, "/image_raw")
    graph.settled("encode")
    frames = pictures(2)
    for number in range(2):
        for index, frame in enumerate(frames):
            camera.publish(image(frame, START_NS + index))
            wanted = number * len(frames) + index
            graph.until(lambda wanted=wanted: len(packets) > wanted, "a packet")
        assert graph.change("encode", "deactivate")
        camera.publish(image(frames[0], START_NS))
        graph.spin(0.3)
        assert len(packets) == (number + 1) * len(frames)
        assert graph.change("encode", "activate")
        graph.until(lambda: camera.get_subscription_count() == 1, "the subscription to be back")
    headers = [parse_header(bytes(packet.data)) for packet in packets]
    assert [header.counter for header in headers] == [header.frame_id for header in headers] == [0, 1, 2, 3]
    assert graph.change("encode", "deactivate")
    assert graph.change("encode", "cleanup")
    assert graph.state("encode") == "unconfigured"


def test_lives_leave_no_memory_behind(graph: Graph) -> None:
    """The short form; `benchmarks/bench_ros.py` lives 50 times."""
    process = graph.run("encode", autostart=False)
    resident = []
    for _ in range(7):
        assert all(graph.change("encode", label) for label in ("configure", "activate", "deactivate", "cleanup"))
        pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text(encoding="ascii").split()[1])
        resident.append(pages * 4096 / 1e6)
    assert max(resident[4:]) - min(resident[1:4]) < 5, resident


def test_a_source_that_fails_ends_the_active_life_with_the_reason(graph: Graph, tmp_path: Path) -> None:
    """As a camera that is unplugged; here a folder with a damaged picture behind a good one."""
    assert cv2.imwrite(str(tmp_path / "1.png"), pictures(1)[0])
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:-100])
    packets = graph.collect(CompressedImage, "/image_raw/percodec")
    process = graph.run("camera", source=str(tmp_path), autostart=False)
    for _ in range(2):
        assert graph.change("camera", "configure")
        graph.until(lambda: graph.node.count_publishers("/image_raw/percodec"))
        assert graph.change("camera", "activate")
        graph.until(lambda: graph.state("camera") == "unconfigured", "the end of its life")
        graph.until(lambda: graph.status("camera").get("state") == "unconfigured")
        assert graph.status("camera")["level"] == "2"
        assert "the 1 readable images were processed" in graph.status("camera")["message"]
    assert len(packets) <= 2
    assert process.end() == 0
    assert "Traceback" not in process.output


def test_a_camera_that_is_not_there_is_the_reason(graph: Graph) -> None:
    process = graph.run("camera", source="v4l2://97", ratehz=5.0)
    graph.until(lambda: graph.status("camera").get("level") == "2", "the reason")
    assert "cannot be activated: /dev/video97: no such camera" in graph.status("camera")["message"]
    assert graph.state("camera") == "inactive"
    assert "there is no parameter ratehz" in process.output
    assert process.output.count("there is no parameter") == 1


def test_parameters_change_when_and_within_what_they_say(graph: Graph) -> None:
    graph.run("encode")
    graph.until(lambda: graph.status("encode").get("state") == "active")
    assert graph.set("encode", "rate_hz", 5.0) == ""
    assert "out of range" in graph.set("encode", "rate_hz", -1.0)
    assert "out of range" in graph.set("encode", "jpeg_quality", 101)
    assert graph.set("encode", "overlay_alpha", 0.2) == ""
    assert "unconfigured" in graph.set("encode", "policy", "block")
    assert "one of latest, block" in graph.set("encode", "policy", "oldest")
    assert "read" in graph.set("encode", "autostart", False).lower()
    packets = graph.collect(CompressedImage, "/image_raw/percodec")
    camera = graph.publisher(Image, "/image_raw")
    graph.settled("encode")
    for index, frame in enumerate(pictures(20)):
        camera.publish(image(frame, START_NS + index))
        graph.spin(0.05)
    graph.until(lambda: int(graph.status("encode")["throttled"]) > 0)
    assert 3 <= len(packets) <= 10  # a second of images, at 5 Hz; a busy machine sends more slowly


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-p", "rate_hz:=-5.0"], "rate_hz out of range"),
        (["-p", "policy:=oldest"], "one of latest, block"),
        (["-p", "rate_hz:=5"], "expecting type 'DOUBLE'"),
        (["-r", ":::"], "Couldn't parse remap rule"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(graph: Graph, package: Path, words: list[str], told: str) -> None:
    command = [str(package / "lib" / "percodec_ros" / "encode"), "--ros-args", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=graph.environment, timeout=30)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("percodec_ros:")]
    assert told in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_in_full_flow_lets_every_captured_frame_out(graph: Graph, number: signal.Signals) -> None:
    process = graph.run("camera", source="synthetic://road?frames=100000&fps=25")
    packets = graph.collect(CompressedImage, "/image_raw/percodec", 1000)
    graph.until(lambda: len(packets) > 12, "packets")
    process.popen.send_signal(number)
    graph.until(lambda: process.popen.poll() is not None, "the end")
    graph.spin(0.5)
    assert process.popen.returncode == 0, process.output
    assert "Traceback" not in process.output
    counts = re.search(r"captured (\d+), predicted (\d+)(.*); packets (\d+), not coded (\d+)", process.output)
    assert counts, process.output
    captured, predicted, dropped, coded, left = int(counts[1]), int(counts[2]), counts[3], int(counts[4]), int(counts[5])
    lost = sum(int(figure) for figure in re.findall(r"\d+", dropped))
    assert captured == predicted + lost == coded + left + lost
    counters = [parse_header(bytes(packet.data)).counter for packet in packets]
    assert counters == list(range(counters[0], coded)), "the last packet that was made is the last that came"


def test_images_that_wait_when_the_signal_comes_are_coded_first(graph: Graph) -> None:
    """Under `block` nothing that arrived is lost."""
    process = graph.run("encode", predict=False, policy="block")
    packets = graph.collect(CompressedImage, "/image_raw/percodec", 1000)
    camera = graph.publisher(Image, "/image_raw", 100)
    graph.settled("encode")
    message = image(pictures(1, 1280, 720)[0], START_NS)
    for _ in range(25):
        camera.publish(message)
    graph.until(lambda: len(packets) > 1, "a packet")
    process.popen.send_signal(signal.SIGINT)
    graph.until(lambda: process.popen.poll() is not None, "the end")
    graph.spin(0.5)
    counts = re.search(r"arrived (\d+), captured (\d+), predicted (\d+); packets (\d+), not coded 0", process.output)
    assert counts, process.output
    assert len(set(counts.groups())) == 1, process.output
    assert len(packets) == int(counts[4])


def test_an_engine_process_that_dies_is_replaced(graph: Graph) -> None:
    """With `isolate` the networks live elsewhere; the node says so and goes on."""
    process = graph.run("camera", source="synthetic://road?frames=100000&fps=10", isolate=True)
    packets = graph.collect(CompressedImage, "/image_raw/percodec", 1000)
    graph.until(lambda: len(packets) > 3, "packets")
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text(encoding="ascii").split()
    workers = [pid for pid in children if "supervise.worker" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")]
    for pid in workers:
        subprocess.run(["kill", "-9", pid], check=True)
    assert workers
    before = len(packets)
    graph.until(lambda: len(packets) > before + 5, "packets of another engine")
    assert process.end() == 0
