"""A module of the tree, for the layout tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """One Python module of the package: its dotted name and its file."""

    name: str
    path: Path

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") and part != "__init__" for part in self.name.split("."))


__all__ = ["Module"]
