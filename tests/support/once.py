"""What is made once a run, whatever the number of its workers."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest


class Once:
    """once(name, make): the folder `name`, filled by `make(folder)` in the worker that comes first. Nobody changes it later."""

    def __init__(self, config: pytest.Config, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        self._base = (base.parent if hasattr(config, "workerinput") else base) / "once"
        self._base.mkdir(exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        folder, done = self._base / name, self._base / f"{name}.done"
        with (self._base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder


__all__ = ["Once"]
