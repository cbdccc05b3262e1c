"""Where work units run: in this process, in several, or on a Ray cluster. Results come as they are ready, in any order.

Which one should I use? A number: so many processes on this machine. "ray" (or "ray:N" workers) where RAY_ADDRESS names a cluster whose
machines see the same folders; without it Ray starts on this machine alone.
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

AHEAD = 4  # units handed out per worker before their turn
_unit: Callable[..., Any] | None = None


class Workers:
    """`run(items)` yields `unit(*item)` for each. `unit` is pickled once per worker. Raises what a unit raises."""

    def __init__(self, unit: Callable[..., Any], workers: str) -> None:
        kind, _, count = workers.partition(":")
        self.ray = kind == "ray"
        if not self.ray and count:
            raise UsageError(f"--workers {workers!r}: write a number, ray or ray:N")
        number = count if self.ray else kind
        if number and (not number.isdecimal() or not 1 <= int(number) <= 1024):
            raise UsageError(f"--workers {workers!r}: write a number from 1 to 1024, ray or ray:N")
        self.unit, self.number = unit, int(number) if number else 0
        self._pool: ProcessPoolExecutor | None = None
        self._own = False

    def __enter__(self) -> Workers:
        if self.ray:
            self._start_ray()
        elif self.number > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.number, context, _begin, (self.unit, os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._own:
            import ray

            ray.shutdown()

    def run(self, items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        if self.ray:
            yield from self._run_ray(items)
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

    def _start_ray(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # its default is to report to its maker
        try:
            import ray
        except ImportError as e:
            raise BackendError("--workers ray needs Ray; install with: pip install 'percodec[ray]'") from e
        self._own = not ray.is_initialized()
        if self._own and os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False)
        elif self._own:
            ray.init(num_cpus=self.number or os.cpu_count(), include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        cluster: Any = ray
        count = self.number or max(1, int(cluster.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1)(_Actor)
        self._actors = [actor.remote(self.unit) for _ in range(count)]

    def _run_ray(self, items: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        import ray

        rest, running = iter(items), {}

        def feed(actor: Any) -> None:
            for item in rest:
                running[actor.do.remote(item)] = actor
                return

        for _ in range(AHEAD):
            for actor in self._actors:
                feed(actor)
        try:
            while running:
                done, _ = ray.wait(list(running))
                for one in done:
                    feed(running.pop(one))
                    yield ray.get(one)
        except ray.exceptions.RayTaskError as e:
            raise getattr(e, "cause", None) or e from None  # a full disk is a full disk wherever it is


class _Actor:
    """A Ray worker."""

    def __init__(self, unit: Callable[..., Any]) -> None:
        self.unit = unit

    def do(self, item: tuple[Any, ...]) -> Any:
        return self.unit(*item)


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
