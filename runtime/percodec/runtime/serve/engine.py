"""`Engine`: who does the work behind the protocols. `ThreadEngine` does it in threads of this process."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from percodec.runtime.serve.models import Model
from percodec.runtime.serve.predictor import Gone, Opening, Predictor, Tensor
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import Limits, Work
from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle

_LOG = logging.getLogger("percodec.serve")


class Engine(Protocol):
    """`frames`: waiting and in work, now."""

    @property
    def models(self) -> Mapping[str, Model]: ...

    @property
    def frames(self) -> int: ...

    async def answer(self, work: Work, seconds: float) -> list[Tensor]:
        """Raises `Refusal`: BUSY at once where too much waits, LATE after `seconds`, or what the work itself is refused for."""

    async def close(self) -> None:
        """What is in work ends first. Idempotent."""


class Counted:
    """How many frames there are, and no more than `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self.frames = 0

    def enter(self, count: int) -> None:
        """Raises `Refusal`."""
        with self._lock:
            if self.frames + count > self._limit:
                raise Refusal(Why.BUSY, f"{self.frames} frames wait; at most {self._limit} may. Try again later")
            self.frames += count

    def leave(self, count: int) -> None:
        with self._lock:
            self.frames -= count


class ThreadEngine:
    """`workers` threads, each with sessions of its own: nothing that one does waits for another's network."""

    def __init__(
        self,
        bundles: Mapping[str, Bundle],
        models: Mapping[str, Model],
        limits: Limits,
        opening: Opening,
        *,
        workers: int = 1,
    ) -> None:
        """Opens everything. Raises what `Session.open` raises."""
        self.models = models
        self._counted = Counted(limits.frames)
        self._idle: dict[str, queue.SimpleQueue[Predictor]] = {}
        self._sessions: list[Session] = []
        for name, bundle in bundles.items():
            self._idle[name] = queue.SimpleQueue()
            for k in range(workers):
                session = opening.session(bundle, first=k == 0)
                self._sessions.append(session)
                self._idle[name].put(Predictor(session, models[name]))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")

    @property
    def frames(self) -> int:
        return self._counted.frames

    async def answer(self, work: Work, seconds: float) -> list[Tensor]:
        count = len(work.packets)
        self._counted.enter(count)
        gone = threading.Event()
        try:
            job: Future[list[Tensor]] = self._pool.submit(self._work, work, gone)
        except RuntimeError:  # it was shut down
            self._counted.leave(count)
            raise Refusal(Why.CLOSING, "the server is closing; ask another one") from None
        job.add_done_callback(lambda _: self._counted.leave(count))  # when it has really ended, whoever still waits for it
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), seconds)
        except asyncio.TimeoutError:
            raise Refusal(Why.LATE, f"no answer within {seconds:.3g} s") from None
        finally:
            gone.set()

    def _work(self, work: Work, gone: threading.Event) -> list[Tensor]:
        idle = self._idle[work.model.name]
        predictor = idle.get()
        try:
            return predictor.answer(work, gone.is_set)
        except (Refusal, Gone):
            raise
        except Exception as error:
            _LOG.exception("a request of %d packets of %s", len(work.packets), work.model.name)
            raise Refusal(Why.DEFECT, "the server failed; its log says why") from error
        finally:
            idle.put(predictor)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown, True, cancel_futures=True)
        while self._sessions:
            self._sessions.pop().close()


__all__ = ["Counted", "Engine", "ThreadEngine"]
