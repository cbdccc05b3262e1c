"""The engines of a run: in this process, or with `isolate` in one of their own that is watched and replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.engine import BACKENDS
from percodec.runtime.engines.open import graph_specs
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.run.settings import RunSettings
from percodec.runtime.session import Session
from percodec.runtime.supervise.health import Health
from percodec.runtime.supervise.supervisor import Supervisor
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BackendError
from percodec.sdk.types import Latent


class Engines(Protocol):
    """The engines of a run, in this process or in one of their own. `prepare` comes before `make`, which is called once."""

    selftest: dict[str, Any] | None
    about: dict[str, Any]

    @property
    def restarts(self) -> int: ...
    def prepare(self, policy: str) -> None: ...
    def decode(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
    def make(self, count: int) -> list[Slot]: ...
    def close(self) -> None: ...


class _Inside:
    def __init__(self, settings: RunSettings, bundle: Bundle, heads: tuple[str, ...]) -> None:
        self._session = Session.open(
            bundle, backend=settings.backend, heads=heads, threads=settings.threads, provider=settings.provider, camera=settings.camera,
            transfer=settings.transfer, selftest=settings.selftest,
        )  # fmt: skip
        self.selftest, self.about = self._session.selftest, self._session.about
        self.close = self._session.close

    @property
    def restarts(self) -> int:
        return 0

    def prepare(self, policy: str) -> None:
        """Everything is there."""

    def decode(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._session.decode(Latent(symbols, 0, 0))

    def make(self, count: int) -> list[Slot]:
        return self._session.slots(count)


class _Supervised:
    selftest: dict[str, Any] | None = None

    def __init__(self, settings: RunSettings, bundle: Bundle, heads: tuple[str, ...], health: Health) -> None:
        for backend in (settings.backend, *settings.fallback):
            if backend.partition(":")[0] not in BACKENDS:
                raise BackendError(f"unknown backend {backend!r}; this version knows {', '.join(BACKENDS)}")
        self._settings, self._bundle = settings, bundle
        self._session: Session | None = None  # for the contact sheet's pictures only
        image, (symbols,) = graph_specs(bundle, "encoder")
        outputs = {name: graph_specs(bundle, f"head_{name}")[1] for name in heads}
        self._supervisor = Supervisor(
            settings.bundle, (image, symbols), outputs, (settings.backend, *settings.fallback), health,
            config={
                "threads": settings.threads, "provider": settings.provider, "transfer": settings.transfer, "selftest": settings.selftest,
                "digest": bundle.digest, "engines": None if bundle.engines is None else dict(bundle.engines),
            },
        )  # fmt: skip
        self.close = self._supervisor.close
        self.about: dict[str, Any] = {}

    def decode(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._session is None:
            self._session = self._opened()
        return self._session.decode(Latent(symbols, 0, 0))

    def _opened(self) -> Session:
        """On the first backend that runs here: the others took over from those before."""
        settings, why = self._settings, BackendError("no backend is named")
        for backend in (settings.backend, *settings.fallback):
            try:
                return Session.open(self._bundle, backend=backend, heads=(), threads=settings.threads, selftest=False)
            except BackendError as error:
                why = error
        raise why

    def prepare(self, policy: str) -> None:
        self._supervisor.waits = policy == "block"

    def make(self, count: int) -> list[Slot]:
        slots = self._supervisor.make(count)
        about = self._supervisor.about
        self.selftest = about.pop("selftest", None)
        self.about.update(about, isolated=True)
        return slots

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts


def open_engines(settings: RunSettings, bundle: Bundle, heads: Sequence[str], health: Health) -> Engines:
    """Encoder and `heads` as the settings say. Raises what `Session.open` raises; a process of its own fails in `make`."""
    return _Supervised(settings, bundle, tuple(heads), health) if settings.isolate else _Inside(settings, bundle, tuple(heads))


__all__ = ["Engines", "open_engines"]
