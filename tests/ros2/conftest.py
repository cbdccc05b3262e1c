"""Tests on a real graph, run by `make test-ros`: rclpy and its middleware, a process a node, loopback alone, a domain for each test."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READY = importlib.util.find_spec("rclpy") is not None
collect_ignore_glob = [] if READY else ["test_*.py"]

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOG_DIR"] = str(ROOT / "build" / "ros-log")
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(Path(__file__).with_name("loopback.xml")))
DOMAINS = itertools.count(os.getpid())


@pytest.fixture(scope="session", autouse=True)
def nothing_leaves_this_machine() -> Iterator[None]:
    """In a network that has only loopback every datagram for anywhere else has no route, and is counted."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False, capture_output=True)  # already so, or not ours to change
    alone = _interfaces() == ["lo"]
    yield
    if alone:
        assert _counter("Ip", "OutNoRoutes") == 0
        assert _counter("Ip", "OutRequests") > 0


def _interfaces() -> list[str]:
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def _counter(protocol: str, name: str) -> int:
    lines = Path("/proc/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith(protocol + ":"))
    return int(values[names.index(name)])


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install folder of `colcon build`, as a user's workspace has it."""
    work = tmp_path_factory.mktemp("workspace")
    command = [sys.executable, "-m", "colcon", "--log-base", str(work / "log"), "build", "--merge-install"]
    command += [
        "--base-paths",
        str(ROOT / "runtime" / "ros2"),
        "--build-base",
        str(work / "build"),
        "--install-base",
        str(work / "install"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
    assert built.returncode == 0, built.stdout + built.stderr
    return work / "install"


if READY:
    from support.ros_graph import Graph

    @pytest.fixture
    def graph(package: Path, tmp_path: Path) -> Iterator[Graph]:
        """A domain with nobody in it but this test's own node."""
        made = Graph(1 + next(DOMAINS) % 100, package, tmp_path)
        yield made
        made.close()
