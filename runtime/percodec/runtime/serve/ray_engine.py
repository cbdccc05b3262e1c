"""`RayEngine`: the work behind the protocols on Ray Serve. The fronts stay in this process; replicas are anywhere in the cluster.

    answer --waiting--> groups of up to 16 frames --at most two calls a replica--> Ray Serve's handle --> Replica.answer

A call costs the same for one frame and for many, so what has to wait anyway goes together. A group is sent at once where a call is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from percodec.runtime.cluster import joins, ray_module, start
from percodec.runtime.serve.engine import Counted
from percodec.runtime.serve.models import Model
from percodec.runtime.serve.predictor import Opening, Tensor
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.replica import Job, Outcome, Recipe, Replica
from percodec.runtime.serve.requests import Limits, Work
from percodec.runtime.session import default_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BackendError
from percodec.sdk.machine import usable_cores

NAME = "percodec"  # of the application on the cluster
GROUP = 16  # frames of a call, unless one request has more
TRIES = 3  # workers that a request may have ended
_PAUSE_S = 0.1
_LOG = logging.getLogger("percodec.serve")


@dataclass(frozen=True)
class Replicas:
    """How many workers: from `low` to `high`, as many as there are calls. `gpus`: that each takes. `calm_s`: before one goes."""

    low: int = 1
    high: int = 1
    gpus: float = 0.0
    calm_s: float = 60.0


@dataclass(eq=False)
class _Asked:
    work: Work
    until: float
    answer: asyncio.Future[Outcome]
    group: list[_Asked] = field(default_factory=list)
    call: asyncio.Task[None] | None = None

    def job(self, now: float) -> Job:
        return Job(self.work.model.name, self.work.model.digest, self.work.packets, self.work.wanted, self.until - now)


class RayEngine:
    """`Engine` on the cluster of RAY_ADDRESS, or on one of this machine alone. Its loop is the one that first asks it."""

    def __init__(
        self,
        bundles: Mapping[str, Bundle],
        models: Mapping[str, Model],
        limits: Limits,
        opening: Opening,
        *,
        replicas: Replicas = Replicas(),
        policy: Path | None = None,
    ) -> None:
        """Starts or joins Ray, and waits for the first replicas. Raises `BackendError`."""
        self.models = models
        self._counted, self._most = Counted(limits.frames), 2 * replicas.high
        self._waiting: deque[_Asked] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        folders = {
            name: ("" if bundle.path == default_bundle() else os.path.abspath(bundle.path), bundle.digest)
            for name, bundle in bundles.items()
        }
        recipe = Recipe(folders, None if policy is None else os.path.abspath(policy), opening)
        self._leave = _begun(max(usable_cores(), replicas.high * opening.threads))
        try:
            self._handle = _handle(recipe, replicas)
        except BaseException:
            self._stop()
            raise

    @property
    def frames(self) -> int:
        return self._counted.frames

    @property
    def replicas(self) -> int:
        """That run now. Asks the cluster: not for the loop."""
        states = _serve().status().applications[NAME].deployments[NAME].replica_states
        return int(states.get("RUNNING", 0))

    async def answer(self, work: Work, seconds: float) -> list[Tensor]:
        loop, count = asyncio.get_running_loop(), len(work.packets)
        self._counted.enter(count)
        asked = _Asked(work, loop.time() + seconds, loop.create_future())
        self._waiting.append(asked)
        self._send()
        try:
            outcome = await asyncio.wait_for(asked.answer, seconds)
        except asyncio.TimeoutError:
            raise Refusal(Why.LATE, f"no answer within {seconds:.3g} s") from None
        finally:
            self._counted.leave(count)
            if asked.call is None:
                self._waiting.remove(asked)
            elif all(one.answer.done() for one in asked.group):
                asked.call.cancel()  # nobody waits for it any more
        if isinstance(outcome, Refusal):
            raise outcome
        return outcome

    def _send(self) -> None:
        while self._waiting and len(self._calls) < self._most:
            group: list[_Asked] = []
            while self._waiting and (not group or sum(len(one.work.packets) for one in [*group, self._waiting[0]]) <= GROUP):
                group.append(self._waiting.popleft())
            call = asyncio.get_running_loop().create_task(self._call(group))
            for asked in group:
                asked.group, asked.call = group, call
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._send()

    async def _call(self, group: Sequence[_Asked]) -> None:
        try:
            await self._ask(group)
        except Exception:
            _LOG.exception("a call of %d requests", len(group))
        finally:
            for one in group:  # whatever happened, nobody waits in vain
                _give(one, Refusal(Why.DEFECT, "the server failed; its log says why"))

    async def _ask(self, group: Sequence[_Asked], tries: int = 0) -> None:
        """Until each has an outcome, or nobody waits for any. A worker that dies is not the fault of what it had, unless three do."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

        while group := [one for one in group if not one.answer.done()]:
            now = asyncio.get_running_loop().time()
            try:
                for one, outcome in zip(group, await self._called([one.job(now) for one in group]), strict=True):
                    _give(one, outcome)
                return
            except DeploymentUnavailableError:
                await asyncio.sleep(_PAUSE_S)  # all are gone, and others come
            except (RayError, RayServeException) as error:
                _LOG.warning("a worker did not answer: %s", str(error).strip().splitlines()[0][:200])
                tries = TRIES if isinstance(error, RayTaskError) else tries + 1
                if tries >= TRIES:
                    for one in group:
                        _give(one, Refusal(Why.DEFECT, "the server's workers ended over this request; its log says more"))
                elif len(group) > 1:
                    await asyncio.gather(*(self._ask([one], tries) for one in group))  # it may be the fault of one
                else:
                    await asyncio.sleep(_PAUSE_S)

    async def _called(self, jobs: list[Job]) -> list[Outcome]:
        response = self._handle.remote(jobs)
        try:
            found: list[Outcome] = await response
            return found
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def close(self) -> None:
        while self._calls:
            await asyncio.wait(self._calls)
        self._stop()  # here: Ray wants the thread that it was started in

    def _stop(self) -> None:
        with contextlib.suppress(Exception):  # the cluster may be gone, or never was
            self._handle.shutdown()
        with contextlib.suppress(Exception):
            if joins():
                _serve().delete(NAME)
        leave, self._leave = self._leave, lambda: None
        leave()


def _give(one: _Asked, outcome: Outcome) -> None:
    if not one.answer.done():
        one.answer.set_result(outcome)


def _begun(cpus: int) -> Callable[[], None]:
    os.environ.setdefault("RAY_worker_niceness", "0")  # its workers would wait for everybody else
    os.environ.setdefault("RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "1")
    os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "1")  # at 0.1 s it alone takes 3 % of a core
    os.environ.setdefault("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "5000")
    os.environ.setdefault("RAY_max_direct_call_object_size", str(4 << 20))  # above it a group goes around by the object store
    return start(cpus)


def _serve() -> Any:
    from ray import serve

    return serve


def _check_room(recipe: Recipe, replicas: Replicas) -> None:
    """Ray would wait for ever, and say nothing. A cluster that others made may grow; ours does not. Raises `BackendError`."""
    there = ray_module().cluster_resources()
    for kind, share in (("CPU", recipe.opening.threads), ("GPU", replicas.gpus)):
        taken, found = replicas.low * share, there.get(kind, 0)
        if found < taken:
            said = f"the workers take {taken:g} {kind} to begin with, and the cluster has {found:g}"
            if not joins():
                raise BackendError(f"{said}; ask for fewer --replicas, or a smaller share in --gpus")
            _LOG.warning("%s: waiting for more", said)


def _handle(recipe: Recipe, replicas: Replicas) -> Any:
    _check_room(recipe, replicas)
    serve = _serve()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    many: dict[str, Any] = {"num_replicas": replicas.low}
    if replicas.high > replicas.low:
        many = {"autoscaling_config": {
            "min_replicas": replicas.low, "max_replicas": replicas.high, "target_ongoing_requests": 1, "metrics_interval_s": 1,
            "look_back_period_s": 5, "upscale_delay_s": 3, "downscale_delay_s": replicas.calm_s,
        }}  # fmt: skip
    serve.start(proxy_location="Disabled", logging_config=quiet)
    deployment = serve.deployment(
        Replica, name=NAME, max_ongoing_requests=2, max_constructor_retry_count=1, logging_config=quiet,
        ray_actor_options={"num_cpus": recipe.opening.threads, "num_gpus": replicas.gpus}, **many,
    )  # fmt: skip
    try:
        return serve.run(deployment.bind(recipe), name=NAME, route_prefix=None).options(method_name="answer")
    except RuntimeError as error:
        raise BackendError(f"Ray Serve could not start the workers: {' '.join(str(error).split())[:1000]}") from error


__all__ = ["GROUP", "NAME", "TRIES", "RayEngine", "Replicas"]
