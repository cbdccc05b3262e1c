"""kill -9 of broker, ingest, agent and run at random: the archive has every packet once, also of a broker that forgets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import quiet_environment

pytest.importorskip("nats", reason="needs the uplink extra")
pytest.importorskip("pyarrow", reason="needs the ingest extra")

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "uplink_trial.py"
SHORT = ["--kills", "4", "--cameras", "2", "--seed", "11", "--trials", "forgets"]
SMALL = ["--source", "synthetic://road?frames=100000&height=64&width=96"]


def lost_nothing(out: Path, words: list[str], seconds: float) -> list[dict[str, Any]]:
    """The trials' results."""
    command = [sys.executable, str(SCRIPT), *words, "--out", str(out), "--machine", "here"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=quiet_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads((out / "uplink_trial-here.json").read_text())["trials"]
    for one in found:
        archive = one["archive"]
        assert archive["packets"] == archive["equal"] > 100
        assert (archive["missing"], archive["differ"], archive["twice"]) == (0, 0, 0)
    return found


def test_each_of_them_killed_once_and_the_broker_forgets(tiny_folder: Path, tmp_path: Path) -> None:
    (found,) = lost_nothing(tmp_path, [*SHORT, *SMALL, "--bundle", str(tiny_folder)], 300)
    assert found["killed"] == {"agent": 1, "broker": 1, "ingest": 1, "run": 1}


@pytest.mark.long
def test_nothing_is_lost_and_nothing_is_there_twice(tmp_path: Path, trials: dict[str, Any]) -> None:
    for found in lost_nothing(tmp_path, [], 1200):
        trials[f"between vehicle and archive: {found['trial']}"] = found
