"""A server of `percodec serve` in this process: the real fronts and the real engine, in a loop of their own thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from percodec.runtime.serve.engine import Engine, ThreadEngine
from percodec.runtime.serve.models import model_of
from percodec.runtime.serve.predictor import Opening
from percodec.runtime.serve.requests import Limits
from percodec.runtime.serve.server import Addresses, Server
from percodec.runtime.serve.tls import Tls
from percodec.sdk import Bundle


class Serving:
    """`grpc` and `http` are its addresses. `drain` begins to, and `wait` until it has."""

    def __init__(self, engine: Engine, limits: Limits, tls: Tls | None = None) -> None:
        self.engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server: Server = self.do(self._made(engine, limits, tls))
        self.addresses: Addresses = self.do(self.server.start())
        self.grpc, self.http = str(self.addresses.grpc), str(self.addresses.http)

    @staticmethod
    async def _made(engine: Engine, limits: Limits, tls: Tls | None) -> Server:
        return Server(engine, limits, Addresses("127.0.0.1:0", "127.0.0.1:0"), tls)

    def do(self, work: Any) -> Any:
        """A coroutine, in the server's loop."""
        return self.begin(work).result(60)

    def begin(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self.do(self.server.drain())
        self.do(self.engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def serving(
    folders: dict[str, Path], limits: Limits | None = None, workers: int = 2, tls: Tls | None = None, engine: Any = None, **more: Any
) -> Iterator[Serving]:
    """Bundles by the names of their models. `engine`: the class of another one, and `more` for it."""
    limits = limits or Limits(packets=8, frames=32, body_bytes=1 << 20, drain_s=20)
    bundles = {name: Bundle.open(folder) for name, folder in folders.items()}
    models = {name: model_of(name, bundle, ["all"]) for name, bundle in bundles.items()}
    kind, options = (ThreadEngine, {"workers": workers}) if engine is None else (engine, more)
    made = kind(bundles, models, limits, Opening(), **options)
    server = Serving(made, limits, tls)
    try:
        yield server
    finally:
        server.close()


__all__ = ["Serving", "serving"]
