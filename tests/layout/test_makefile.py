"""The Makefile explains itself, and says in one line what a machine lacks before it starts anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TARGETS = ("help", "demo", "uplink-demo", "serve-demo", "test", "test-long", "test-ros", "lint", "bench", "clean")


def _make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], capture_output=True, text=True, check=False, cwd=root, env=plain, stdin=subprocess.DEVNULL)


def test_help_is_the_default_and_lists_every_target(root: Path) -> None:
    done = _make(root)
    assert done.returncode == 0, done.stderr
    for target in TARGETS:
        assert f"  make {target}" in done.stdout


@pytest.mark.parametrize(
    ("version", "setting", "message"),
    [
        (None, "PYTHON=python-that-is-not-there", "no python-that-is-not-there on this machine"),
        ("3.9.2", "PYTHON={python}", "is too old: percodec needs 3.10 or newer"),
    ],
)
def test_an_unsuitable_python_is_named(root: Path, tmp_path: Path, version: str | None, setting: str, message: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit 0\nexit 1\n', encoding="utf-8")
    python.chmod(0o755)
    done = _make(root, "demo", setting.format(python=python), f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_compiler_is_named_with_its_package(root: Path, tmp_path: Path) -> None:
    done = _make(root, "demo", "CXX=compiler-that-is-not-there", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "sudo apt install g++" in done.stderr


def test_without_the_wheels_of_ros_its_tests_skip_with_the_reason(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = _make(root, "test-ros", f"VENV={tmp_path}/venv")
    assert done.returncode == 0, done.stderr
    assert "test-ros: skipped: ERROR: No matching distribution found for ros-" in done.stdout


def test_the_gate_is_executable(root: Path) -> None:
    assert os.access(root / ".ci" / "run", os.X_OK)
