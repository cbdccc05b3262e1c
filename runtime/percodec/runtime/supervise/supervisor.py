"""Engines in a process of their own, watched: when it dies, hangs or loses the GPU it is replaced, while capture and log go on.

    pipeline --slot--> [shared memory] --> worker process (engines, streams, graphs)
                 <-- symbols, outputs, or: this frame is lost --

What is watched is progress, not life: a worker that owes an answer and gives none for `patience` is killed. Restarts wait longer each time;
after `GIVE_UP` ends in ten minutes the next candidate backend takes over, and after the last candidate the state is FAULT. `switch` loads
other engines beside the running ones and changes over between two frames.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.pipeline.slots import FrameLost, Slot
from percodec.runtime.supervise.health import Health
from percodec.runtime.supervise.link import NO_ANSWER, Link
from percodec.runtime.supervise.worker import layout, views
from percodec.sdk import errors
from percodec.sdk.errors import BackendError, PercodecError

BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
GIVE_UP, WINDOW_S = 3, 600.0
START_S = 120.0
# Not -m, which puts the current folder first on the path: whoever can write there would run code in the worker.
_START = (
    "import os, sys; sys.path[:] = [p for p in sys.path if os.path.isabs(p)]; "
    "from percodec.runtime.supervise.worker import main; raise SystemExit(main())"
)
COMMAND = (sys.executable, "-c", _START)


@dataclass
class _Answer:
    """The run of one slot. `settled`: its results are here, or it is `lost`."""

    link: Link | None = None
    token: int = 0
    since: float = 0.0
    settled: bool = False
    lost: str = ""


class Supervisor:
    """`make(count)` gives a pipeline its slots. `encoder`: its input and
    output; `heads`: the outputs of each. `config`: what `backends.open_slots` is told; `candidates`: backends, the best first.

    `waits`: a frame waits for a worker that is being replaced (files) instead of being lost (cameras). `patience_s`: the longest time
    without progress; a worker whose frames take longer than an eighth of it is given eight of its frames.
    """

    def __init__(
        self,
        bundle: Path,
        encoder: tuple[TensorSpec, TensorSpec],
        heads: Mapping[str, tuple[TensorSpec, ...]],
        candidates: Sequence[str],
        health: Health,
        *,
        config: dict[str, Any] | None = None,
        waits: bool = False,
        patience_s: float = 0.3,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.health, self.restarts = health, 0
        self._heads = dict(heads)
        self._specs = [*encoder, *(spec for outputs in heads.values() for spec in outputs)]
        specs = [[spec.name, spec.shape, spec.dtype] for spec in self._specs]
        self._config = {"bundle": str(bundle), "specs": specs, "heads": list(heads), **(config or {})}
        self._candidates, self.waits, self._patience, self._command = list(candidates), waits, patience_s, list(command)
        self._cv = threading.Condition()
        self._answers: list[_Answer] = []
        self._link: Link | None = None  # takes the frames
        self._next: Link | None = None  # loads, to take over
        self._alive: list[Link] = []  # these two, and what still finishes its last frames
        self._memory = -1
        self._next_token = 0
        self._ends: deque[float] = deque()
        self._retry_at = 0.0
        self._why = "no worker has started"
        self._error: type[PercodecError] = BackendError
        self._faulted = self._closing = False
        self._over = threading.Event()  # for the watch alone: the condition is told of every restart
        self._proved = False  # a worker was up

    @property
    def about(self) -> dict[str, Any]:
        """What runs now, as `backends.Made.about`; {} while nothing does."""
        with self._cv:
            return dict(self._link.about) if self._link is not None and self._link.up else {}

    @property
    def worker_pid(self) -> int:
        """Of the process that runs the engines now, 0 without one."""
        with self._cv:
            return self._link.process.pid if self._link is not None else 0

    def make(self, count: int) -> list[Slot]:
        """Slots, once the first worker is up. Raises `BackendError` when no candidate comes up."""
        self._memory = os.memfd_create("percodec-slots", os.MFD_CLOEXEC)
        size = layout(self._specs, count)[1]
        os.ftruncate(self._memory, size)
        self._config["count"] = count
        arrays = views(mmap.mmap(self._memory, size), self._specs, count)
        self._answers = [_Answer() for _ in range(count)]
        slots = []
        for k, (image, *shared) in enumerate(arrays):
            # The worker can go on writing to what is shared, so it is copied, once, before anything here checks, codes or shows it.
            symbols, *results = own = [np.empty_like(array) for array in shared]
            pairs = list(zip(own, shared, strict=True))
            settle = self._settles(k, pairs)
            slots.append(Slot(k, image, symbols, self._by_head(results), self._asks(k), settle, settle))
        with self._cv:
            self._link = self._start(self._candidates[0])
        threading.Thread(target=self._watch, name="percodec-supervisor", daemon=True).start()
        with self._cv:
            self._cv.wait_for(lambda: self._faulted or (self._link is not None and self._link.up))
            if self._faulted:
                raise self._error(self._why)
        return slots

    def switch(self, backend: str, **config: Any) -> None:
        """Load `backend` (and another `bundle`, if given) beside what runs, and change over when it is ready. Returns at once."""
        with self._cv:
            self._config |= config
            self._candidates = [backend, *[c for c in self._candidates if c != backend]]
            if self._next is not None:
                self._next.process.kill()
            self._next = self._start(backend)

    def close(self) -> None:
        """End the workers. Idempotent."""
        with self._cv:
            self._closing = True
            self._cv.notify_all()
            self._over.set()
            alive = list(self._alive)
        for link in alive:
            link.process.kill()
        with self._cv:
            self._cv.wait_for(lambda: not self._alive, timeout=5)
            if self._memory >= 0:
                os.close(self._memory)
                self._memory = -1

    def _by_head(self, arrays: list[NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
        rest = iter(arrays)
        return {head: {spec.name: next(rest) for spec in outputs} for head, outputs in self._heads.items()}

    # -- the pipeline's side ----------------------------------------------------------------------------------------
    def _asks(self, index: int) -> Callable[[], None]:
        def encode() -> None:
            with self._cv:
                while True:
                    if self.waits and (self._link is None or not self._link.up):
                        self._cv.wait_for(lambda: self._faulted or self._closing or (self._link is not None and self._link.up))
                    if self._faulted:
                        raise BackendError(self._why)
                    link = self._link
                    if link is None or not link.up:
                        raise FrameLost(self._why)
                    self._next_token += 1
                    if not self._answers[index].settled and self._answers[index].link is link:
                        link.forget(index)
                    answer = self._answers[index] = _Answer(link, self._next_token, time.monotonic())
                    try:
                        return link.ask(index, self._next_token)
                    except (OSError, ValueError) as error:  # ValueError: its pipe is closed already, its end not yet noticed
                        link.up, answer.settled, answer.lost = False, True, "the worker is gone"
                        if not self.waits:
                            raise FrameLost(answer.lost) from error

        return encode

    def _settles(self, index: int, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> Callable[[], None]:
        """Waits for a slot's results. `pairs` of arrays: here, shared. The coder and the prediction wait for one message: each would cost
        the other's share of waking up, and a packet can wait for the frame's prediction.
        """
        first = threading.Lock()  # who comes second finds everything done

        def settle() -> None:
            with first:
                answer = self._answers[index]
                if not answer.settled and answer.link is not None:
                    answer.lost = answer.link.wait(index, answer.token)
                    if not answer.lost:
                        for mine, theirs in pairs:
                            np.copyto(mine, theirs)
                    answer.settled = True
                if answer.lost:
                    raise FrameLost(answer.lost)

        return settle

    # -- the workers' side --------------------------------------------------------------------------------------------
    def _start(self, backend: str) -> Link:
        link = Link(self._command, {**self._config, "backend": backend}, self._memory)
        self._alive.append(link)
        threading.Thread(target=self._follow, args=(link,), name="percodec-worker", daemon=True).start()
        return link

    def _follow(self, link: Link) -> None:
        said = link.loaded()
        with self._cv:
            about = None if said is None else _about(said)
            if about is not None:
                self._take_over(link, about)
            elif said is not None:
                link.kill(NO_ANSWER)
            self._cv.notify_all()
        why = link.last_words()
        with self._cv:
            self._ended(link, why)
            link.over(why)
            self._cv.notify_all()

    def _take_over(self, link: Link, about: dict[str, Any]) -> None:
        link.up, link.about = True, about
        if link is self._next:
            old, self._link, self._next = self._link, link, None
            if old is not None:
                old.retire()
            self.health.clear("switch")
        self._proved = True
        self.health.clear("worker")

    def _ended(self, link: Link, why: str) -> None:
        self._alive.remove(link)
        if self._closing or self._faulted:
            return
        kind, why = _typed(why) if link.refused else (BackendError, why)
        if link is self._next:
            self._next = None
            self.health.degrade("switch", f"{link.backend} was not taken over: {why}")
        elif link is self._link:
            self._link, self._why = None, why
            now = time.monotonic()
            self._ends.append(now)
            while now - self._ends[0] > WINDOW_S:
                self._ends.popleft()
            self.health.degrade("worker", why)
            if link.refused and not self._proved:
                self._error = kind
                self._give_up("cannot run", why)
            elif len(self._ends) >= GIVE_UP:
                failed = f"failed {GIVE_UP} times"
                self._give_up(failed, f"{self._candidates[0]} {failed}, nothing else is left: {why}")
            self._retry_at = now + BACK_OFF_S[min(max(len(self._ends), 1), len(BACK_OFF_S)) - 1]

    def _give_up(self, how: str, at_last: str) -> None:
        """The next candidate, or the end: `at_last` says why."""
        gone = self._candidates.pop(0)
        self._ends.clear()
        if self._candidates:
            self.health.degrade("backend", f"{gone} {how}, {self._candidates[0]} runs instead: {self._why}")
            return
        self._why, self._faulted = at_last, True
        self.health.fault("backend", self._why)

    def _watch(self) -> None:
        """Kill what owes and does not answer; start what is missing."""
        while not self._over.wait(self._patience / 6):
            with self._cv:
                if self._closing or self._faulted:
                    return
                now = time.monotonic()
                if self._link is None and now >= self._retry_at:
                    self.restarts += 1
                    self._link = self._start(self._candidates[0])
                for link in self._alive:
                    if link.killed:
                        continue
                    owed = [a.since for k, a in enumerate(self._answers) if a.link is link and not a.settled and not link.answered(k)]
                    patience = max(self._patience, 8e-3 * float(link.about.get("frame_ms", 0)))
                    if link.up and owed and now - max(min(owed), link.progress) > patience:
                        link.kill(f"the worker gave no answer for {1000 * patience:.0f} ms")
                    elif not link.up and now - link.since > START_S:
                        link.kill(f"the worker was not ready within {START_S:g} s")


def _about(text: str) -> dict[str, Any] | None:
    """What a worker says of its engines; None where it does not say it."""
    try:
        about = json.loads(text)
        return about if 0 <= float(about["frame_ms"]) <= 1000 * START_S and isinstance(about["backend"], str) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _typed(words: str) -> tuple[type[PercodecError], str]:
    """The error that a worker's last words name, and what it says."""
    name, _, text = words.partition(": ")
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    return (kind, text) if isinstance(kind, type) and issubclass(kind, PercodecError) else (BackendError, words)


__all__ = ["BACK_OFF_S", "GIVE_UP", "Supervisor"]
