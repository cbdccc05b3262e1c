"""`NarrowLink`: a TCP proxy on loopback that lets through so many bytes a second, and nothing while it is cut. For `bench_uplink.py`.

Its buffers are small, as a modem's are large: what the sender's kernel takes is bounded to about 64 kB, so delays show the queue that
the sender itself made. It delays nothing else: the round trip is what remains of loopback.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_PIECE = 1400


class NarrowLink:
    """Listens on `port` and passes on to `target`, a port of loopback. `sent`: bytes so far, towards the target."""

    def __init__(self, target: int, bits_per_s: float) -> None:
        self.bits_per_s = bits_per_s
        self.sent = 0
        self._target = target
        self._cut = threading.Event()
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(16)
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Pass nothing on, and close nothing: a tunnel."""
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


__all__ = ["NarrowLink"]
