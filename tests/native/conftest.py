"""One CMake build of the core for all its tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.once import Once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def native(once: Once) -> Path:
    """build/native, up to date: the core, its tests and the example. Kept between runs."""
    folder = ROOT / "build" / "native"

    def make(_: Path) -> None:
        for words in (["-S", ROOT / "cmake", "-B", folder, "-G", "Ninja", "-DPERCODEC_WERROR=ON"], ["--build", folder]):
            done = subprocess.run(["cmake", *map(str, words)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]

    once("native", make)
    return folder
