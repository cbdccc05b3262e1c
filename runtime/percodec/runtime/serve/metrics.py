"""What Prometheus reads: requests by outcome, frames, seconds, what waits. Each server has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from percodec.runtime.serve.refusal import Refusal

_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """`models`: names that may stand in a label; whatever else is asked for counts under the empty one."""

    def __init__(self, models: list[str], waiting: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._models = set(models)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "percodec_serve_requests", "Requests, by how they ended", ["model", "protocol", "outcome"], registry=self._registry
        )
        self._frames = Counter("percodec_serve_frames", "Frames predicted", ["model"], registry=self._registry)
        self._seconds = Histogram(
            "percodec_serve_request_seconds", "From a request to its answer", ["model"], buckets=_BUCKETS, registry=self._registry
        )
        Gauge("percodec_serve_waiting_frames", "Frames waiting and in work", registry=self._registry).set_function(waiting)
        self.requests = self.frames = self.refused = 0

    @contextmanager
    def request(self, protocol: str) -> Iterator[Entry]:
        """Around one request. The entry's `model` and `frames` are set as they become known."""
        entry, begin = Entry(), time.monotonic()
        outcome = "gone"
        try:
            yield entry
            outcome = "answered"
        except Refusal as refusal:
            outcome = refusal.why.name.lower()
            raise
        except Exception:
            outcome = "defect"
            raise
        finally:
            model = entry.model if entry.model in self._models else ""
            self._requests.labels(model, protocol, outcome).inc()
            self.requests += 1
            if outcome == "answered":
                self._frames.labels(model).inc(entry.frames)
                self._seconds.labels(model).observe(time.monotonic() - begin)
                self.frames += entry.frames
            else:
                self.refused += 1

    def text(self) -> tuple[bytes, str]:
        """The page and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class Entry:
    """One request, as far as it is known."""

    model, frames = "", 0


__all__ = ["Entry", "Metrics"]
