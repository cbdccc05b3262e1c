"""For every test: what is made once a run, and no deadline for an example, as another process may have the core."""

from __future__ import annotations

import argparse
import datetime
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.once import Once

from percodec.sdk.machine import machine_info

settings.register_profile("percodec", deadline=None)
settings.load_profile("percodec")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="the long trials' figures go into benchmarks/results instead of build/results")


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the long trials found, by name; written when the last has ended."""
    found: dict[str, Any] = {}
    yield found
    if found:
        record = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "record.py"))
        out = record["RECORDED" if request.config.getoption("record") else "OWN"]
        about = {"command": "make test-long", "date": datetime.date.today().isoformat(), "machine": machine_info()}
        record["write_result"](argparse.Namespace(out=out, machine=None), "trials", {"benchmark": "trials", **about, "trials": found})


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    return Once(request.config, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_folder(once: Once) -> Path:
    """The tiny bundle, its self-test computed by ONNX Runtime. Copy it to damage it."""
    from support.tiny_bundle import make_bundle

    return once("tiny", make_bundle)
