"""A ROS 2 graph for one test: node processes from the built package, and a node of the test's own that talks to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from percodec.sdk.synthetic.road import RoadScene

PATIENCE_S = 30.0
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Process:
    """One node process; its output is kept."""

    def __init__(self, words: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    @property
    def output(self) -> str:
        """So far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self, number: int = signal.SIGINT) -> int:
        """Signal it; its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(timeout=PATIENCE_S)


class Graph:
    """`run` starts nodes, `collect` subscribes, `until` spins. `python_path`: of the processes, to be added to."""

    def __init__(self, domain: int, package: Path, folder: Path) -> None:
        self._package, self._folder, self.domain = package, folder, domain
        self.python_path = [package / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"]
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("test", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.processes: list[Process] = []
        self._diagnostics: dict[str, list[Any]] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 10)

    @property
    def environment(self) -> dict[str, str]:
        """Of a process in this graph."""
        path = os.pathsep.join(map(str, self.python_path))
        return {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(self, node: str, *words: str, **parameters: Any) -> Process:
        """Start a node of percodec_ros; `words` follow --ros-args. On a busy machine no prediction is too old."""
        if node in ("encode", "camera"):
            parameters = {"max_age_ms": 60_000.0, **parameters}
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={_text(value)}")]
        command = [str(self._package / "lib" / "percodec_ros" / node), "--ros-args", *words, *given]
        return self.start(command, node)

    def start(self, command: list[str], name: str) -> Process:
        """Any process in this graph."""
        process = Process(command, self.environment, self._folder / f"{name}-{len(self.processes)}.log")
        self.processes.append(process)
        return process

    def collect(self, kind: type[Any], topic: str, qos: QoSProfile | int = 100, frame: str = "") -> list[Any]:
        """Every message of a topic from now on, while the graph spins; `frame`: of a frame that begins like this alone."""
        found: list[Any] = []

        def take(message: Any) -> None:
            if not frame or message.header.frame_id.startswith(frame):
                found.append(message)

        self.node.create_subscription(kind, topic, take, qos)
        return found

    def until(self, condition: Callable[[], Any], what: str = "", patience_s: float = PATIENCE_S) -> None:
        """Spin until it holds."""
        deadline = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline or any(process.popen.poll() not in (None, 0) for process in self.processes):
                told = "\n".join(process.output for process in self.processes)
                raise AssertionError(f"waited for {what or 'a condition'}\n{told}\n{self._last()}")
            self._executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        """Take what comes for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def status(self, node: str) -> dict[str, str]:
        """The last diagnostics of a node: its values, with `level` and `message`."""
        found = self._diagnostics.get(node)
        return {} if not found else _values(found[-1])

    def statuses(self, node: str) -> list[dict[str, str]]:
        """All of them."""
        return [_values(status) for status in self._diagnostics.get(node, [])]

    def publisher(self, kind: type[Any], topic: str, qos: QoSProfile | int = 10, subscribers: int = 1) -> Any:
        """One that so many have subscribed to."""
        made = self.node.create_publisher(kind, topic, qos)
        self.until(lambda: made.get_subscription_count() >= subscribers, f"{subscribers} subscribers of {topic}")
        return made

    def settled(self, *nodes: str) -> None:
        """Until these have seen a reliable publisher, and publishers them: what comes while a subscription is made anew may be lost."""
        self.until(lambda: all(self._reliable(node) for node in nodes), "reliable subscriptions")
        self.spin(0.5)  # nothing says when a publisher in another process has met the new subscription

    def _reliable(self, node: str) -> bool:
        status = self.status(node)
        if status.get("input_reliability") != "reliable":
            return False
        seen = self.node.get_subscriptions_info_by_topic(status["input"])
        of_node = [s.qos_profile.reliability for s in seen if f"{s.node_namespace}/{s.node_name}".strip("/") == node]
        return of_node == [ReliabilityPolicy.RELIABLE]

    def change(self, node: str, label: str) -> bool:
        """A transition of its life."""
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.call(ChangeState, f"/{node}/change_state", request).success)

    def state(self, node: str) -> str:
        """Of its life."""
        return str(self.call(GetState, f"/{node}/get_state", GetState.Request()).current_state.label)

    def set(self, node: str, name: str, value: Any) -> str:
        """`ros2 param set`; "" or why not."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        (result,) = self.call(SetParameters, f"/{node}/set_parameters", request).results
        return "" if result.successful else str(result.reason)

    def call(self, kind: type[Any], name: str, request: Any) -> Any:
        """A service's answer."""
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, name)
        future = client.call_async(request)
        self.until(future.done, name)
        self.node.destroy_client(client)
        return future.result()

    def close(self) -> None:
        """End every process, then the test's own node. One that is killed leaves its part of /dev/shm behind, so that comes last."""
        running = [process.popen for process in self.processes if process.popen.poll() is None]
        for popen in running:
            popen.send_signal(signal.SIGINT)
        for popen in running:
            try:
                popen.wait(timeout=10)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def _diagnosed(self, message: Any) -> None:
        for status in message.status:
            self._diagnostics.setdefault(status.name.partition(":")[0], []).append(status)

    def _last(self) -> str:
        return "\n".join(f"{name}: {_values(found[-1])}" for name, found in self._diagnostics.items())


def pictures(count: int, width: int = 480, height: int = 360, seed: int = 1) -> list[NDArray[np.uint8]]:
    """Of a drive, uint8 [H,W,3] RGB."""
    scene = RoadScene(seed, height, width)
    return [scene.render(index)[0].copy() for index in range(count)]


def image(picture: NDArray[np.uint8], stamp_ns: int, frame: str = "camera", encoding: str = "rgb8") -> Image:
    """As a camera's driver sends it."""
    height, width = picture.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=picture.nbytes // height)
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.data = array("B", picture.tobytes())
    return message


def stamp_ns(message: Any) -> int:
    """Of a message with a header."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _values(status: Any) -> dict[str, str]:
    return {"level": str(status.level[0]), "message": status.message, **{entry.key: entry.value for entry in status.values}}


__all__ = ["BEST_EFFORT", "PATIENCE_S", "Graph", "Process", "image", "pictures", "stamp_ns"]
