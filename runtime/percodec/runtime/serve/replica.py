"""`Replica`: what Ray Serve runs, once a worker: a session for each model, one frame at a time. The front is elsewhere and sends `Job`s.

An answer is a value also where it is a refusal: what is wrong with a request is no failure of the worker.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from percodec.runtime.serve.models import Model, model_of
from percodec.runtime.serve.predictor import Gone, Opening, Predictor, Tensor
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import Wanted, Work
from percodec.runtime.session import Demand, default_bundle, open_bundle

Outcome: TypeAlias = "list[Tensor] | Refusal"
_LOG = logging.getLogger("percodec.serve")


class Job(NamedTuple):
    """`Work` as it travels. `digest`: of the model's bundle. `seconds`: how long somebody waits for it, from now on."""

    model: str
    digest: str
    packets: tuple[bytes, ...]
    wanted: tuple[Wanted, ...]
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """What a worker opens, on whatever machine. `folders` and digests by model; "" is the bundle that comes with percodec."""

    folders: dict[str, tuple[str, str]]
    policy: str | None
    opening: Opening


class Replica:
    """Ray Serve makes it, asks it, and replaces it where it dies."""

    def __init__(self, recipe: Recipe) -> None:
        """Opens everything. Raises what `Session.open` raises."""
        _on_loopback_alone()
        self._predictors: dict[str, tuple[Model, Predictor]] = {}
        policy = None if recipe.policy is None else Path(recipe.policy)
        for name, (folder, digest) in recipe.folders.items():
            bundle = open_bundle(Path(folder) if folder else default_bundle(), Demand(policy, digest))
            model = model_of(name, bundle, recipe.opening.heads)
            self._predictors[name] = (model, Predictor(recipe.opening.session(bundle), model))
        self._one = ThreadPoolExecutor(1, thread_name_prefix="predict")  # Ray's loop stays free to be asked after its health

    async def answer(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Of each job. Where it is cancelled the work ends before its next frame."""
        gone, came = threading.Event(), time.monotonic()

        def work() -> list[Outcome]:
            return [self._outcome(job, gone, came + job.seconds) for job in jobs]

        try:
            return await asyncio.get_running_loop().run_in_executor(self._one, work)
        finally:
            gone.set()

    def _outcome(self, job: Job, gone: threading.Event, until: float) -> Outcome:
        if job.model not in self._predictors or self._predictors[job.model][0].digest != job.digest:
            return Refusal(Why.DEFECT, f"the workers serve another bundle than this server's {job.model}; one server a cluster")
        model, predictor = self._predictors[job.model]
        try:
            return predictor.answer(Work(model, job.packets, job.wanted), lambda: gone.is_set() or time.monotonic() > until)
        except Refusal as refusal:
            return refusal
        except Gone:
            return Refusal(Why.LATE, "its time was over before its last frame")
        except Exception:
            _LOG.exception("a request of %d packets of %s", len(job.packets), job.model)
            return Refusal(Why.DEFECT, "the server failed; its log says why")


def _on_loopback_alone() -> None:
    """Ray Serve has each replica listen on every interface for calls of other deployments. Here are none, so nobody else may either.

    Whoever reached that port could have code run: its calls are pickles.
    """
    import grpc.aio

    server: Any = grpc.aio._server.Server
    bind = server.add_insecure_port
    if not getattr(bind, "on_loopback", False):

        def on_loopback(self: Any, address: str) -> int:
            return int(bind(self, address.replace("[::]:", "127.0.0.1:").replace("0.0.0.0:", "127.0.0.1:")))

        on_loopback.on_loopback = True  # type: ignore[attr-defined]
        server.add_insecure_port = on_loopback


__all__ = ["Job", "Outcome", "Recipe", "Replica"]
