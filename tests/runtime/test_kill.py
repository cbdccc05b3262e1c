"""kill -9 of a live run: every acknowledged frame is in the log. `benchmarks/kill_trial.py --trials 50` is the long form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.command import quiet_environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_trial.py"
TRIALS = 8


def test_a_killed_run_loses_no_acknowledged_frame(bundle_folder: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--trials", str(TRIALS), "--bundle", str(bundle_folder), "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=quiet_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TRIALS} kills" in done.stdout
    assert " 0 trials with a loss" in done.stdout
    assert " 0 frames acknowledged" not in done.stdout
