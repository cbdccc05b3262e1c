"""The workstation's commands, by name; `percodec.sdk.cli` imports what a command needs when it is used."""

from __future__ import annotations

from percodec.sdk.cli import Command


def commands() -> list[Command]:
    """What this part adds to `percodec`."""
    here = "percodec.export.commands"
    costs = "what training on compressed pictures costs, and what restoring them brings back"
    return [
        Command("train", "train a codec, a head on a fixed codec, or both jointly", f"{here}.train", "export"),
        Command("evaluate", "rate-distortion, perception, storage and compute tables", f"{here}.evaluate", "export"),
        Command("export", "turn a trained checkpoint into a bundle a vehicle can run", f"{here}.export", "export"),
        Command("build", "write a precision into a bundle's graphs and build engines for a target", f"{here}.engines", "build"),
        Command("dataset", "encode, predict, restore and count whole data sets of packets, on many machines", f"{here}.dataset", "fleet"),
        Command("restore", "undo in a training set what compression did to it", f"{here}.restore", "export"),
        Command("shift", costs, f"{here}.shift", "export"),
        Command("verify", "judge each precision of a bundle against FP32 on real frames", f"{here}.engines", "build"),
    ]


__all__ = ["commands"]
