"""What the layout tests look at: the repository's own files, its modules, and environments made for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.once import Once
from support.tree import Module

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("sdk", "export", "runtime")
NOT_SOURCE = {".git", ".venv", "build", "dist", "runs", "percodec-demo", "percodec-out", "__pycache__"}


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
def wheel(once: Once) -> Path:
    """The wheel that `pip install .` would install, its C++ not optimised. Without isolation where the build tools are at hand."""

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
        command += ["--config-settings=cmake.build-type=Debug", str(ROOT)]
        ready = subprocess.run([sys.executable, "-c", "import scikit_build_core, nanobind"], capture_output=True, check=False)
        command += ["--no-build-isolation"] if ready.returncode == 0 else []
        built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert built.returncode == 0, built.stdout + built.stderr

    (path,) = once("wheel", make).glob("percodec-*.whl")
    return path
