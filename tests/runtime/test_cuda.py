"""The GPU path without a GPU: the real providers over a driver that is not there (cuda/fake_cuda.cpp), each in a process of its own.

A process that loaded the fake driver must not be the one that tests the rest: TensorRT would find it too.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "cuda"
CASES = sorted(path.name for path in HERE.glob("cases_*.py"))


@pytest.fixture(scope="session")
def driver_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("the fake driver is compiled here, and there is no g++")
    sys.path.append(str(HERE))
    from driver_build import build_driver

    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def provider_path(driver_library: Path, tmp_path_factory: pytest.TempPathFactory):
    """Where a provider is imported from; skips with the reason where it cannot be had."""
    found: dict[str, tuple[list[str], str]] = {}

    def ask(provider: str) -> list[str]:
        if provider == "cuda-python" and importlib.util.find_spec("cuda.bindings") is None:
            pytest.skip("cuda-bindings is not installed (pip install percodec[cuda])")
        if provider == "pycuda" and provider not in found:
            from driver_build import pycuda_path

            found[provider] = pycuda_path(tmp_path_factory.mktemp("pycuda"), driver_library)
        folders, why = found.get(provider, ([], ""))
        if why:
            pytest.skip(why)
        return folders

    return ask


def run_cases(names: list[str], provider: str, library: Path, folders: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    given = {"PERCODEC_FAKE_DRIVER": str(library), "PERCODEC_PROVIDER": provider, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *[str(HERE / name) for name in names], *more],
        env={**os.environ, **given, **({"PYTHONPATH": path} if path else {})}, capture_output=True, text=True, check=False, timeout=7200,
    )  # fmt: skip


@pytest.mark.parametrize("provider", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("cases", CASES)
def test_cases(cases, provider, driver_library, provider_path):
    done = run_cases([cases], provider, driver_library, provider_path(provider))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
