"""Where work units run: in this process, in several, or on a Ray cluster. Results come as they are ready, in any order.

Which one should I use? A number: so many processes on this machine. "ray" (or "ray:N" workers) where RAY_ADDRESS names a cluster whose
machines reach the same folders or object store; without it Ray starts on this machine alone.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

from percodec.sdk.errors import BackendError, UsageError

AHEAD = 4  # units handed out per process before their turn
_unit: Callable[..., Any] | None = None


class Workers:
    """`run(items)` yields `unit(*item)` for each. `unit` is pickled once per worker. Raises what a unit raises.

    `gpus`: share of a GPU that each Ray worker takes. On Ray a worker or a machine that dies is replaced, and its units are done again: a
    unit has to leave the same whether it was done once or twice.
    """

    def __init__(self, unit: Callable[..., Any], workers: str, gpus: float = 0) -> None:
        kind, _, count = workers.partition(":")
        self.ray = kind == "ray"
        if not self.ray and count:
            raise UsageError(f"--workers {workers!r}: write a number, ray or ray:N")
        number = count if self.ray else kind
        if number and (not number.isdecimal() or not 1 <= int(number) <= 1024):
            raise UsageError(f"--workers {workers!r}: write a number from 1 to 1024, ray or ray:N")
        if gpus and not self.ray:
            raise UsageError("a share of a GPU is for --workers ray; processes on one machine share its GPU by themselves")
        if not 0 <= gpus <= 16:
            raise UsageError(f"a worker takes from 0 to 16 GPUs, got {gpus:g}")
        self.unit, self.number, self.gpus = unit, int(number) if number else 0, gpus
        self._pool: ProcessPoolExecutor | None = None
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Workers:
        if self.ray:
            from percodec.runtime.cluster import start

            self._stop = start(self.number)
        elif self.number > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.number, context, _begin, (self.unit, os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._stop()

    def run(self, items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        if self.ray:
            from percodec.export.fleet.cluster import run

            yield from run(self.unit, items, self.number, self.gpus)
        elif self._pool is None:
            for item in items:
                yield self.unit(*item)
        else:
            yield from self._run_pool(self._pool, items)

    def _run_pool(self, pool: ProcessPoolExecutor, items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        waiting: set[Future[Any]] = set()
        rest = iter(items)
        try:
            while True:
                for item in rest:
                    waiting.add(pool.submit(_do, item))
                    if len(waiting) >= AHEAD * self.number:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as e:
            raise BackendError("a worker process ended by itself (out of memory?); fewer --workers need less") from e


def _begin(unit: Callable[..., Any], parent: int) -> None:
    global _unit
    _unit = unit
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """A worker whose parent was killed ends too: nobody would."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(item: tuple[Any, ...]) -> Any:
    assert _unit is not None
    return _unit(*item)


__all__ = ["AHEAD", "Workers"]
