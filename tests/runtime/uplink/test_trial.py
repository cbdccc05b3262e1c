"""kill -9 of broker, ingest, agent and run at random: the archive has every packet once, also of a broker that forgets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import quiet_environment

pytest.importorskip("nats", reason="needs the uplink extra")
pytest.importorskip("pyarrow", reason="needs the ingest extra")

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "uplink_trial.py"
SHORT = [
    "--kills",
    "4",
    "--cameras",
    "2",
    "--every",
    "1.2",
    "--seed",
    "11",
    "--source",
    "synthetic://road?frames=100000&height=64&width=96",
]
LONG = ["--kills", "20", "--cameras", "4"]


@pytest.mark.parametrize(
    ("words", "forget"),
    [(SHORT, True), pytest.param(LONG, False, marks=pytest.mark.long), pytest.param(LONG, True, marks=pytest.mark.long)],
)
def test_nothing_is_lost_and_nothing_is_there_twice(tiny_folder: Path, trials: dict[str, Any], words: list[str], forget: bool) -> None:
    command = [sys.executable, str(SCRIPT), *words, *(["--bundle", str(tiny_folder)] if words is SHORT else []), *["--forget"] * forget]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=quiet_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(
        r"(\d+) kills .* s: (\d+) packets of .*, (\d+) in the archive as they were, (\d+) missing.* (\d+) twice; (\d+) resent", done.stdout
    )
    assert found, done.stdout
    kills, packets, equal, missing, twice, resent = map(int, found.groups())
    assert (missing, twice) == (0, 0)
    assert packets == equal > 100
    if words is LONG:
        name = "kill -9 between vehicle and archive" + ", the broker forgets" * forget
        trials[name] = {"kills": kills, "packets": packets, "in_the_archive": equal, "twice": twice, "resent": resent}
