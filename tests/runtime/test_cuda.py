"""The GPU path without a GPU: the real providers over a driver that is not there (support/cuda), each in a process of its own.

A process that loaded the fake driver must not be the one that tests the rest: TensorRT would find it too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cuda.driver_build import build_driver, pycuda_path
from support.once import Once

HERE = Path(__file__).parent / "cuda"
CASES = sorted(path.name for path in HERE.glob("cases_*.py"))


@pytest.fixture(scope="session")
def driver_library(once: Once) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("the fake driver is compiled here, and there is no g++")
    return once("driver", build_driver) / "libcuda.so.1"


@pytest.fixture(scope="session")
def provider_path(driver_library: Path, once: Once):
    """Where a provider is imported from; skips with the reason where it cannot be had."""

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "found.json").write_text(json.dumps(pycuda_path(folder, driver_library)))

    def ask(provider: str) -> list[str]:
        if provider == "cuda-python" and importlib.util.find_spec("cuda.bindings") is None:
            pytest.skip("cuda-bindings is not installed (pip install percodec[cuda])")
        folders, why = json.loads((once("pycuda", make) / "found.json").read_text()) if provider == "pycuda" else ([], "")
        if why:
            pytest.skip(why)
        return folders

    return ask


def run_cases(names: list[str], provider: str, library: Path, folders: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*folders, str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    given = {"PERCODEC_FAKE_DRIVER": str(library), "PERCODEC_PROVIDER": provider, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *[str(HERE / name) for name in names], *more],
        env={**os.environ, **given, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip


# What a provider does is its contract; pipelines, workers and faults stand above it and are tried on one, the long way on both.
BRIEFLY = [
    pytest.param(
        cases, provider, marks=[] if provider == "cuda-python" or cases in ("cases_contract.py", "cases_run.py") else pytest.mark.long
    )
    for cases in CASES
    for provider in ("cuda-python", "pycuda")
]


@pytest.mark.parametrize(("cases", "provider"), BRIEFLY)
def test_cases(cases, provider, driver_library, provider_path):
    done = run_cases([cases], provider, driver_library, provider_path(provider))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("provider", ["cuda-python", "pycuda"])
def test_many_schedules(provider, driver_library, provider_path, trials, monkeypatch):
    """`cases_pipeline.py` draws 40 pipelines."""
    monkeypatch.setenv("PERCODEC_SCHEDULES", "5000")
    done = run_cases(["cases_pipeline.py"], provider, driver_library, provider_path(provider), "-k", "random_schedules", "-s")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) schedules, (\d+) frames predicted, (\d+) graph launches, (\d+) violations", done.stdout)
    assert found, done.stdout
    names = ("schedules", "frames_predicted", "graph_launches", "violations")
    trials[f"random schedules, {provider}"] = dict(zip(names, map(int, found.groups()), strict=True))
