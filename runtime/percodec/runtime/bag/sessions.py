"""Sessions for several pictures at a time: as many of each size as there are pictures under way, and the self-test once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle

Size = tuple[int, int] | None  # width, height of whole pictures; None: the bundle's frame


class Sessions:
    """`with sessions.borrow(size) as session:` from any thread. `heads`: as `Session.open` takes them."""

    def __init__(self, bundle: Bundle, backend: str = "ort", heads: tuple[str, ...] | None = ()) -> None:
        """Raises `BundleError`, `BackendError`, `SelfTestError`."""
        self.bundle, self._backend, self._heads = bundle, backend, heads
        self._lock = threading.Lock()
        self._idle: dict[Size, list[Session]] = {None: [Session.open(bundle, backend=backend, heads=heads)]}

    @contextlib.contextmanager
    def borrow(self, size: Size) -> Iterator[Session]:
        """A session of that size, for the caller alone. Raises `BundleError` where the bundle's graphs do not take it."""
        with self._lock:
            idle = self._idle.setdefault(size, [])
            session = idle.pop() if idle else None
        session = session or Session.open(self.bundle, backend=self._backend, heads=self._heads, selftest=False, size=size)
        try:
            yield session
        finally:
            with self._lock:
                self._idle[size].append(session)


__all__ = ["Sessions", "Size"]
