"""What lies between a vehicle and its broker in the trials: so many bits a second, and nothing while it is cut. For `bench_uplink.py`.

Which one? `NamespaceLink` where the system lets a user make networks: a pair of interfaces in networks of their own, shaped by the kernel.
`ProxyLink` elsewhere: a TCP proxy on loopback. `links_of(count, bits_per_s, port)` makes them, after `enter_depot` at the start.

The round trip is what remains of this machine's: neither delays anything else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol

DEPOT = "10.77.0.1"  # the broker's address, in a network that ends with this process
_IN_DEPOT = "PERCODEC_TRIAL_DEPOT"
_PIECE = 1400


class Link(Protocol):
    """`url`: the broker, seen from the vehicle. `where`: words before a command that is to run on the vehicle."""

    url: str
    where: list[str]

    @property
    def sent(self) -> int:
        """Bytes so far, towards the broker."""

    def cut(self) -> None:
        """Pass nothing on, and close nothing: a tunnel."""

    def mend(self) -> None: ...

    def close(self) -> None: ...


def namespaces_allowed() -> bool:
    """Whether this user may make networks, and shape them."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip", "tc"))):
        return False
    trial = "ip link set lo up && ip link add name a type veth peer name b && tc qdisc add dev a root tbf rate 6mbit burst 8k latency 400ms"
    return subprocess.run([*_UNSHARE, "sh", "-c", trial], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


_UNSHARE = ["unshare", "--user", "--map-root-user", "--net"]


def enter_depot() -> None:
    """Run this program again in a network of its own, where that is allowed; returns in the depot, or where there is none."""
    if in_depot():
        _run("ip", "link", "set", "lo", "up")  # the network is new, and parts that need no link stay on loopback
        return
    if not namespaces_allowed():
        return
    os.execvpe(_UNSHARE[0], [*_UNSHARE, sys.executable, *sys.argv], {**os.environ, _IN_DEPOT: "1"})


def in_depot() -> bool:
    return _IN_DEPOT in os.environ


def broker_address() -> str:
    """Where the broker has to listen."""
    if not in_depot():
        return "127.0.0.1"
    _run("ip", "addr", "replace", f"{DEPOT}/32", "dev", "lo")
    return DEPOT


def links_of(count: int, bits_per_s: float, port: int) -> list[Link]:
    """One for each vehicle."""
    if in_depot():
        return [NamespaceLink(k + 1, bits_per_s, port) for k in range(count)]
    return [ProxyLink(port, bits_per_s) for _ in range(count)]


class NamespaceLink:
    """A network for one vehicle, joined to the depot by a pair of interfaces. The vehicle's end is shaped, with a buffer of 400 ms."""

    def __init__(self, number: int, bits_per_s: float, port: int) -> None:
        self.url = f"nats://{DEPOT}:{port}"
        self._end, self._address = f"depot{number}", f"10.77.1.{number}"
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        pid, here = str(self._holder.pid), os.readlink("/proc/self/ns/net")
        self.where = ["nsenter", "--target", pid, "--net"]
        while os.readlink(f"/proc/{pid}/ns/net") == here:
            time.sleep(0.01)
        _run("ip", "link", "add", "name", self._end, "type", "veth", "peer", "name", "car", "netns", pid)
        self.mend()
        burst = str(max(8000, int(bits_per_s / 8 / 250)))
        for words in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "addr", "add", f"{self._address}/32", "dev", "car"),
            ("ip", "link", "set", "car", "up"),
            ("ip", "route", "add", DEPOT, "dev", "car"),
            ("tc", "qdisc", "add", "dev", "car", "root", "tbf", "rate", f"{bits_per_s:.0f}bit", "burst", burst, "latency", "400ms"),
        ):
            _run(*self.where, *words)

    @property
    def sent(self) -> int:
        line = next(line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith(f"{self._end}:"))
        return int(line.split(":")[1].split()[0])

    def cut(self) -> None:
        _run("ip", "link", "set", self._end, "down")

    def mend(self) -> None:
        _run("ip", "link", "set", self._end, "up")
        _run("ip", "route", "replace", self._address, "dev", self._end)

    def close(self) -> None:
        """Its network ends with the last process in it."""
        _run("ip", "link", "del", self._end)
        self._holder.kill()
        self._holder.communicate()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


class ProxyLink:
    """A TCP proxy on loopback. What the sender's kernel takes is bounded to about 64 kB, so delays show the queue that the sender made."""

    def __init__(self, target: int, bits_per_s: float) -> None:
        self.bits_per_s = bits_per_s
        self.sent = 0
        self.where: list[str] = []
        self._target = target
        self._cut = threading.Event()
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(16)
        self.url = f"nats://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        self._cut.clear()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self._cut.is_set():
                    threading.Thread(target=self._swallow, args=(near,), daemon=True).start()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _swallow(self, near: socket.socket) -> None:
        """A connection that was tried in the tunnel: nobody answers, and it ends with the tunnel."""
        while self._cut.is_set():
            time.sleep(0.05)
        near.close()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                while self._cut.is_set():
                    time.sleep(0.02)
                if up:
                    self._wait(len(data))
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _wait(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now - 0.01, self._free_at) + 8 * size / self.bits_per_s
            pause = self._free_at - now
            self.sent += size
        if pause > 0:
            time.sleep(pause)


__all__ = ["DEPOT", "Link", "NamespaceLink", "ProxyLink", "broker_address", "enter_depot", "in_depot", "links_of", "namespaces_allowed"]
