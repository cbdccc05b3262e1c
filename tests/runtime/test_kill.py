"""kill -9 of a live run: every acknowledged frame is in the log."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import quiet_environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_trial.py"


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.long)])
def test_a_killed_run_loses_no_acknowledged_frame(tiny_folder: Path, trials: dict[str, Any], count: int) -> None:
    command = [sys.executable, str(SCRIPT), "--trials", str(count), "--bundle", str(tiny_folder), "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100 * count, env=quiet_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) kills in \d+ s: (\d+) frames acknowledged, (\d+) in the logs, (\d+) trials with a loss", done.stdout)
    assert found, done.stdout
    kills, acknowledged, logged, losses = map(int, found.groups())
    assert (kills, losses) == (count, 0)
    assert acknowledged > 0
    if count >= 100:
        trials["kill -9 of a run"] = {"kills": kills, "frames_acknowledged": acknowledged, "frames_logged": logged, "losses": losses}
