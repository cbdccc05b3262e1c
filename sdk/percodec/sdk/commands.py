"""The ground floor's commands, by name; `percodec.sdk.cli` imports what a command needs when it is used."""

from __future__ import annotations

from percodec.sdk.cli import Command


def commands() -> list[Command]:
    """What the ground floor adds to `percodec`."""
    return [
        Command("inspect", "show what a bundle, packet or log says about itself", "percodec.sdk.inspect"),
        Command("verify-log", "prove with its key that a log is as it was written, and complete", "percodec.sdk.evidence"),
    ]


__all__ = ["commands"]
