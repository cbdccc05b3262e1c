"""`Desk`: what both protocols do with a request once it is in words: look up, check, have it done, and say who is ready."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from percodec.runtime.serve.engine import Engine
from percodec.runtime.serve.metrics import Entry, Metrics
from percodec.runtime.serve.models import INPUT, RAW, Model
from percodec.runtime.serve.predictor import Tensor
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import Asked, Given, Limits, Work, model_named, work_of

NAME = "percodec"
MAX_OPEN = 256  # requests of one protocol that are open at the same time


class Desk:
    """`closing` is set when the server drains: no request begins then, those that have begun end."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.metrics = Metrics(list(engine.models), lambda: engine.frames)
        self.closing = asyncio.Event()
        self._open = 0

    @property
    def ready(self) -> bool:
        return not self.closing.is_set()

    def model(self, name: str, version: str = "") -> Model:
        """Raises `Refusal`."""
        return model_named(self.engine.models, name, version)

    @contextlib.asynccontextmanager
    async def request(self, protocol: str) -> AsyncIterator[Entry]:
        """Around one request for predictions. Raises `Refusal`, and turns what nobody foresaw into one."""
        with self.metrics.request(protocol) as entry:
            if not self.ready:
                raise Refusal(Why.CLOSING, "the server is closing; ask another one")
            if self._open >= MAX_OPEN:
                raise Refusal(Why.BUSY, f"{self._open} requests are open; try again later")
            self._open += 1
            try:
                yield entry
            finally:
                self._open -= 1

    async def infer(
        self, entry: Entry, name: str, version: str, inputs: Sequence[Given], asked: Sequence[Asked], seconds: float | None
    ) -> tuple[Model, list[Tensor]]:
        """Raises `Refusal`."""
        model = self.model(name, version)
        entry.model = model.name
        return model, await self.work(entry, work_of(model, inputs, asked, self.limits), seconds)

    async def work(self, entry: Entry, work: Work, seconds: float | None) -> list[Tensor]:
        """`seconds`: what the client gives it, None for the server's own limit. Raises `Refusal`."""
        entry.model, entry.frames = work.model.name, len(work.packets)
        limit = self.limits.timeout_s if seconds is None else min(seconds, self.limits.timeout_s)
        if limit <= 0:
            raise Refusal(Why.LATE, "its time was over when it came")
        begun = time.monotonic()
        answer = await self.engine.answer(work, limit)
        if time.monotonic() - begun > limit:  # a job may end before its timer is looked at
            raise Refusal(Why.LATE, f"no answer within {limit:.3g} s")
        return answer

    def metadata(self, model: Model) -> dict[str, Any]:
        """As the protocol's JSON has it; the gRPC message has the same fields."""
        outputs = []
        for one in model.outputs.values():
            raw = one.encodings[0] == RAW
            outputs.append({"name": one.name, "datatype": one.datatype if raw else "BYTES", "shape": [-1, *(one.shape if raw else ())]})
        return {
            "name": model.name, "versions": [model.version], "platform": "percodec_bundle", "properties": model.properties(),
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}], "outputs": outputs,
        }  # fmt: skip


def server_metadata() -> dict[str, Any]:
    """As the protocol's JSON has it."""
    from importlib.metadata import version

    return {"name": NAME, "version": version("percodec"), "extensions": ["binary_tensor_data"]}


def seconds_of(microseconds: object) -> float | None:
    """The parameter `timeout` of a request. Raises `Refusal`."""
    if microseconds is None or microseconds == 0:
        return None
    if not isinstance(microseconds, int) or isinstance(microseconds, bool) or not 0 < microseconds < 1 << 62:
        raise Refusal(Why.INVALID, "the parameter timeout is a whole number of microseconds")
    return microseconds / 1e6


__all__ = ["MAX_OPEN", "NAME", "Desk", "seconds_of", "server_metadata"]
