"""`Refusal`: why a request gets no answer, in the words of both protocols."""

from __future__ import annotations

from enum import Enum


class Why(Enum):
    """(name of the gRPC status, HTTP status)."""

    INVALID = ("INVALID_ARGUMENT", 400)
    UNKNOWN = ("NOT_FOUND", 404)
    TOO_LARGE = ("RESOURCE_EXHAUSTED", 413)
    BUSY = ("RESOURCE_EXHAUSTED", 429)
    DEFECT = ("INTERNAL", 500)
    CLOSING = ("UNAVAILABLE", 503)
    LATE = ("DEADLINE_EXCEEDED", 504)

    @property
    def grpc(self) -> str:
        return self.value[0]

    @property
    def http(self) -> int:
        return self.value[1]


class Refusal(Exception):
    """A request that is not answered. The text goes to whoever asked, so it names nothing of this machine."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why

    def __reduce__(self) -> tuple[type[Refusal], tuple[Why, str]]:
        return Refusal, (self.why, str(self))


__all__ = ["Refusal", "Why"]
