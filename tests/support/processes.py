"""Processes that this one began, and who can reach them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

LOOPBACK = {"tcp": ("0100007F",), "tcp6": ("0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")}


def children(root: int | None = None) -> set[int]:
    """A process and all below it; None: this one."""
    done = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split()[2:]
    pairs = {int(pid): int(parent) for pid, parent in zip(done[::2], done[1::2], strict=True)}
    found, new = {root or os.getpid()}, {root or os.getpid()}
    while new:
        new = {pid for pid, parent in pairs.items() if parent in new} - found
        found |= new
    return found


def command(pid: int) -> str:
    """What it was begun with, or calls itself; "" of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def listening(pids: set[int]) -> set[str]:
    """Addresses other than loopback that these processes listen on."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for kind, loopback in LOOPBACK.items():
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes and not words[1].startswith(loopback):
                found.add(words[1])
    return found


__all__ = ["children", "command", "listening"]
