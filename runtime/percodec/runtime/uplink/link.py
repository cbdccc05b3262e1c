"""`Link`: one connection of a vehicle to a broker, whichever it is. Three calls and an event; a link that is lost stays lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Unreachable(Exception):
    """Nobody answers: no network, no broker. Trying again later may help."""


class Link(Protocol):
    """`lost` is set as soon as the connection is gone; what was not acknowledged by then may or may not have arrived."""

    lost: asyncio.Event

    async def publish(self, body: bytes, done: Callable[[str], None]) -> None:
        """Hand a message over. `done("")` when the broker has it, `done(reason)` where it refuses; neither where the link is lost."""

    async def close(self) -> None:
        """Idempotent."""


def log_subject(vehicle: str) -> str:
    """What a vehicle publishes to; "*" for all."""
    return f"pk.{vehicle}.log"


def stored_subject(vehicle: str) -> str:
    """What a vehicle listens to."""
    return f"pk.{vehicle}.stored"


def live_subject(vehicle: str) -> str:
    """Where the broker tells what a vehicle published once more, for whoever predicts from it."""
    return f"pk.{vehicle}.live"


def predicted_subject(vehicle: str) -> str:
    """What is published of its packets."""
    return f"pk.{vehicle}.predicted"


__all__ = ["Link", "Unreachable", "live_subject", "log_subject", "predicted_subject", "stored_subject"]
