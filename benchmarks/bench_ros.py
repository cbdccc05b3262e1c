"""What does ROS add to a frame's way, what does a node cost that has nothing to do, and does its life leak?

    make test-ros && PATH=.venv/python3/ros/bin:$PATH python benchmarks/bench_ros.py

One `encode` node in a process of its own, images of 480x360 from this one, over loopback, each after the answer to the one before is long
there. Latency: image published to labels received here. ROS's share: that, less what the node itself measures from the arrival of an image
to its prediction. Idle: processor time of a node without images. Lives: configure, activate, deactivate, cleanup.

On a busy machine `chrt -r 1` before `python` sets both processes ahead of all others; the result says so.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import record

from percodec.sdk.machine import machine_info, versions
from percodec.sdk.synthetic.road import RoadScene

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 480, 360
WARM_UP = 20
PATIENCE_S = 60.0
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(HERE.parent / "tests" / "ros2" / "loopback.xml")
os.environ["ROS_LOG_DIR"] = str(HERE.parent / "build" / "ros-log")
os.environ.setdefault("ROS_DOMAIN_ID", "83")
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)


class Bench:
    """This process's node, and the one that is measured."""

    def __init__(self) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor

        rclpy.init()
        self.node = rclpy.create_node("bench")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.status: dict[str, str] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._told, 10)
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, **parameters: str) -> int:
        """Start `encode`; its process id."""
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "runtime" / "ros2" / "percodec_ros")}
        self._process = subprocess.Popen([sys.executable, "-m", "percodec_ros.encode", "--ros-args", *words], env=environment)
        return self._process.pid

    def until(self, condition: Callable[[], Any]) -> None:
        """Spin until it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing has come for {PATIENCE_S:g} s; the node says: {self.status}")
            self._executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        """Take what comes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def end(self) -> None:
        """Of the node that is measured."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self.status = {}

    def _told(self, message: Any) -> None:
        for status in message.status:
            self.status = {"message": status.message, **{entry.key: entry.value for entry in status.values}}


def latency(bench: Bench, images: int, period_s: float) -> dict[str, Any]:
    """Milliseconds from publishing an image to its labels, and the node's own part."""
    from sensor_msgs.msg import Image

    bench.run(overlay_alpha="0.5")
    received: dict[int, float] = {}
    bench.node.create_subscription(
        Image, "/segmentation/labels", lambda message: received.setdefault(message.header.stamp.nanosec, time.perf_counter()), 10
    )
    camera = bench.node.create_publisher(Image, "/image_raw", 10)
    bench.until(lambda: camera.get_subscription_count() == 1 and bench.status.get("input_reliability") == "reliable")
    scene = RoadScene(1, HEIGHT, WIDTH)
    messages = []
    for index in range(32):
        message = Image(width=WIDTH, height=HEIGHT, step=3 * WIDTH, encoding="rgb8")
        message.data = array("B", scene.render(index)[0].tobytes())
        messages.append(message)
    sent: dict[int, float] = {}
    for index in range(WARM_UP + images):
        message = messages[index % len(messages)]
        message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, index
        sent[index] = time.perf_counter()
        camera.publish(message)
        bench.spin(period_s)
    bench.spin(2.5)
    found = sorted(1000 * (received[index] - sent[index]) for index in range(WARM_UP, WARM_UP + images) if index in received)
    own = {name: float(bench.status[f"receive_to_result_ms_{name}"]) for name in ("p50", "p99")}
    bench.end()
    p50 = statistics.median(found)
    return {
        "images": images,
        "answered": len(found),
        "period_ms": 1000 * period_s,
        "total_ms": {"p50": round(p50, 2), "p90": round(found[int(0.9 * len(found))], 2), "min": round(found[0], 2)},
        "receive_to_result_ms": own,
        "ros_share_ms_p50": round(p50 - own["p50"], 2),
    }


def idle(bench: Bench, seconds: float) -> dict[str, float]:
    """Share of one core, percent, of an active node that gets nothing."""
    pid = bench.run()
    bench.until(lambda: bench.status.get("state") == "active")
    bench.spin(3.0)
    begin, used = time.monotonic(), _processor_s(pid)
    bench.spin(seconds)
    percent = 100 * (_processor_s(pid) - used) / (time.monotonic() - begin)
    bench.end()
    return {"seconds": seconds, "core_percent": round(percent, 3)}


def rounds(bench: Bench, count: int) -> dict[str, Any]:
    """Resident memory, MB, after each round of a life."""
    from lifecycle_msgs.srv import ChangeState

    pid = bench.run(autostart="false")
    client = bench.node.create_client(ChangeState, "/encode/change_state")
    bench.until(client.service_is_ready)
    resident = []
    for _ in range(count):
        for label in ("configure", "activate", "deactivate", "cleanup"):
            request = ChangeState.Request()
            request.transition.label = label
            future = client.call_async(request)
            bench.until(future.done)
            assert future.result().success, label
        resident.append(_resident_mb(pid))
    bench.end()
    # The first lives fill caches of the allocator and of the networks.
    growth = statistics.median(resident[-3:]) - statistics.median(resident[2:5]) if count > 5 else 0.0
    return {"rounds": count, "first_mb": resident[0], "last_mb": resident[-1], "growth_mb": round(growth, 2), "resident_mb": resident}


def _distribution() -> str:
    """As ROS names itself, or what PyPI's wheels are."""
    found = {entry.metadata["Name"]: entry.version for entry in metadata.distributions()}
    wheel = next((f"{name} {found[name]}" for name in ("ros-jazzy-rclpy", "ros-rclpy") if name in found), "unknown")
    return os.environ.get("ROS_DISTRO") or wheel


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="images whose latency is taken (default: 300)")
    parser.add_argument("--period", type=float, default=0.1, metavar="S", help="between two images (default: 0.1)")
    parser.add_argument("--idle", type=float, default=30.0, metavar="S", help="how long a node without images is watched (default: 30)")
    parser.add_argument("--rounds", type=int, default=50, help="lives of a node (default: 50)")
    record.add_arguments(parser)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    bench = Bench()
    result = {
        "benchmark": "bench_ros",
        "command": "python benchmarks/bench_ros.py",
        "date": datetime.date.today().isoformat(),
        "machine": machine_info(),
        "versions": versions(),
        "ros": _distribution(),
        "load_average": round(load, 2),
        "scheduling": "real-time" if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR) else "normal",
        "latency": latency(bench, args.images, args.period),
        "idle": idle(bench, args.idle),
        "lives": rounds(bench, args.rounds),
    }
    print(result["latency"], result["idle"], {k: v for k, v in result["lives"].items() if k != "resident_mb"}, sep="\n")
    record.write_result(args, "bench_ros", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
