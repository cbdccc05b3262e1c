"""A benchmark's result goes where it is told, and by itself never among those that the pages are made from."""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def record(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "benchmarks" / "record.py"))


@pytest.mark.parametrize(
    ("words", "place"), [([], "build/results"), (["--record"], "benchmarks/results"), (["--out", "elsewhere"], "elsewhere")]
)
def test_a_place_for_results(record: dict[str, Any], root: Path, words: list[str], place: str) -> None:
    parser = argparse.ArgumentParser()
    record["add_arguments"](parser)
    assert parser.parse_args(words).out in (root / place, Path(place))


def test_results_are_named_after_their_machine(record: dict[str, Any], tmp_path: Path) -> None:
    for machine, called, name in (
        ({"cpu": "AMD EPYC"}, None, "bench-amd-epyc.json"),
        ({"cpu": "Intel(R) Xeon(R)", "cores": 2}, None, "bench-intel-r-xeon-r-2c.json"),
        ({"cpu": "AMD EPYC", "cores": 2}, "My laptop", "bench-my-laptop.json"),
    ):
        path = record["write_result"](argparse.Namespace(out=tmp_path / "new", machine=called), "bench", {"machine": machine})
        assert path == tmp_path / "new" / name
        assert json.loads(path.read_text()) == {"machine": machine}


def test_nothing_else_chooses_the_place(root: Path) -> None:
    others = [p for p in (root / "benchmarks").glob("*.py") if p.name not in ("record.py", "tables.py")]
    assert len(others) > 15
    assert not [p.name for p in others if '"results"' in p.read_text(encoding="utf-8")]


def test_the_pipeline_can_be_measured(root: Path, tmp_path: Path) -> None:
    words = ["--frames", "6", "--rounds", "1", "--workers", "1", "--out", str(tmp_path), "--machine", "here"]
    done = subprocess.run(
        [sys.executable, str(root / "benchmarks" / "bench_pipeline.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench_pipeline-here.json").read_text())
    assert found["workers"]["1"]["last"]["frames"] == {"captured": 6, "predicted": 6, "logged": 6, "balanced": True}
