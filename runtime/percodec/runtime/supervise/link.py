"""One worker process as its owner sees it: what it is asked, what it answers, how it ended.

Each slot has a socket for answers: who waits sleeps in the kernel until the frame is done, and nobody else is woken. What comes through it
is anybody's word: one bounded message of a known form, or the process is ended. A socket and not a pipe, for whoever still holds the other
end cannot keep a waiter once this end is shut down.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from percodec.runtime.supervise.worker import DONE, FAILED, LOST, MOST_REPLY, REFUSED, REPLY, REQUEST
from percodec.sdk.text import printable

MOST_TEXT = 16 << 10
NO_ANSWER = "the worker answered with what is no answer"


class Link:
    """`about`, `up` and `killed` are the supervisor's, under its condition; `wait` is called without it."""

    def __init__(self, command: Sequence[str], config: dict[str, Any], memory: int) -> None:
        self.backend = str(config["backend"])
        self.words = tempfile.TemporaryFile()  # not a pipe: nobody reads while the worker lives  # noqa: SIM115
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(config["count"])]
        self._lanes = [ours for ours, _ in pairs]
        weakref.finalize(self, _close, self._lanes)  # and not before: a waiter must not find its number to be another file's
        self._ready, ready = os.pipe()
        os.set_blocking(self._ready, False)
        fds = [theirs.fileno() for _, theirs in pairs]
        words = [*command, json.dumps({**config, "memory_fd": memory, "ready_fd": ready, "reply_fds": fds})]
        try:
            self.process = subprocess.Popen(
                words, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.words, pass_fds=(memory, ready, *fds)
            )
        finally:
            os.close(ready)
            _close([theirs for _, theirs in pairs])
        self.up = False
        self.since = self.progress = time.monotonic()
        self.about: dict[str, Any] = {}
        self.killed = self._why = ""
        self._over = threading.Event()

    def ask(self, index: int, token: int) -> None:
        """Run what is in a slot. Raises OSError, or ValueError after `retire`, where the process is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(REQUEST.pack(index, token))

    def wait(self, index: int, token: int) -> str:
        """Until all results of the run `token` are in the slot: "". Else why they will not be."""
        lane, wanted = self._lanes[index], REPLY.pack(DONE, token)
        while (said := lane.recv(MOST_REPLY)) != wanted:
            if not said:  # it is over, or will be as soon as its end is noticed
                self._over.wait()
                return self._why
            what, of = REPLY.unpack_from(said) if len(said) >= REPLY.size else (0, 0)
            if of > token or what != (DONE if len(said) == REPLY.size else FAILED):
                return self.kill(NO_ANSWER)
            if of == token:
                self.progress = time.monotonic()
                return printable(said[REPLY.size :].decode("utf-8", "replace"))
        self.progress = time.monotonic()
        return ""

    def answered(self, index: int) -> bool:
        """Whether something about a slot is there to be read."""
        return bool(_now(self._lanes[index], socket.MSG_PEEK))

    def forget(self, index: int) -> None:
        """Leave out what was said about the last run of a slot that nobody asked for: a full socket would stop the worker."""
        _now(self._lanes[index])

    def kill(self, why: str) -> str:
        """End it; returns `why`, which is kept."""
        self.killed = self.killed or why
        self.process.kill()
        return why

    def loaded(self) -> str | None:
        """Wait until the engines are up: what it says of them. None where it ends, or says too much."""
        said, some = b"", select.poll()
        some.register(self._ready, select.POLLIN)
        with open(self._ready, "rb", buffering=0) as ready:
            while self.process.poll() is None and len(said) <= MOST_TEXT:
                if some.poll(100):
                    if not (more := ready.read(MOST_TEXT)):
                        break
                    said += more
                    if said.endswith(b"\n"):
                        return said.decode("utf-8", "replace")
        if len(said) > MOST_TEXT:
            self.kill(NO_ANSWER)
        return None

    def over(self, why: str) -> None:
        """Nothing more comes; whoever waits is told why."""
        self._why = why
        self._over.set()
        for lane in self._lanes:
            lane.shutdown(socket.SHUT_RDWR)

    def retire(self) -> None:
        """No more requests; it answers what it has and ends."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # it is gone already
                self.process.stdin.close()

    def last_words(self) -> str:
        """Why it ended, once it has."""
        code = self.process.wait()
        self.retire()
        self.words.seek(0, os.SEEK_END)
        self.words.seek(max(0, self.words.tell() - 4000))
        lines = printable(self.words.read().decode("utf-8", "replace")).strip().splitlines()
        self.words.close()
        if code == -signal.SIGXCPU:
            return "the worker took more processor time than engines may to load"
        why = self.killed or (lines[-1] if lines else f"the worker ended with code {code}")
        return f"the GPU was lost to the worker: {why}" if code == LOST else why

    @property
    def refused(self) -> bool:
        """Another try would end as this one did, which has ended before it was up."""
        return not self.up and self.process.returncode in (REFUSED, -signal.SIGXCPU)


def _close(lanes: Sequence[socket.socket]) -> None:
    for lane in lanes:
        lane.close()


def _now(lane: socket.socket, flags: int = 0) -> bytes:
    try:
        return lane.recv(MOST_REPLY, socket.MSG_DONTWAIT | flags)
    except BlockingIOError:
        return b""


__all__ = ["NO_ANSWER", "Link"]
