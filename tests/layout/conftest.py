"""What the layout tests look at: the repository's own files, its modules, and environments made for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("sdk", "export", "runtime")
NOT_SOURCE = {".git", ".venv", "build", "dist", "runs", "percodec-demo", "percodec-out", "__pycache__"}


@dataclass(frozen=True)
class Module:
    """One Python module of the package: its dotted name and its file."""

    name: str
    path: Path

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") and part != "__init__" for part in self.name.split("."))


def _listed_by_git() -> list[Path] | None:
    """Tracked files and new files that git does not ignore; None where this is not a git checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=False)
    if listed.returncode != 0:
        return None
    return [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in NOT_SOURCE or path.name.endswith((".egg-info", "_cache")) or path.suffix in {".so", ".pyc"}:
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file of the repository that is, or is about to be, committed."""
    listed = _listed_by_git()
    return sorted(path for path in (listed if listed is not None else _walk(ROOT)) if path.is_file())


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """Every module of the three portions."""
    found = []
    for portion in PORTIONS:
        base = ROOT / portion
        for path in sorted((base / "percodec" / portion).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path))
    assert len(found) > 10
    return found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` would install. Built without isolation where the build tools are at hand, else with it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    ready = subprocess.run([sys.executable, "-c", "import scikit_build_core, nanobind"], capture_output=True, check=False).returncode == 0
    command += ["--no-build-isolation", str(ROOT)] if ready else [str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("percodec-*.whl")
    return path
