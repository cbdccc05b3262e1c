"""A narrow link carries live frames first and is used to the full; frames from a tunnel arrive after it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import quiet_environment

pytest.importorskip("nats", reason="needs the uplink extra")
pytest.importorskip("pyarrow", reason="needs the ingest extra")

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "bench_uplink.py"
narrow_link = runpy.run_path(str(SCRIPT.with_name("narrow_link.py")))


def measured(out: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), *words, "--out", str(out), "--machine", "here"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=quiet_environment())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((out / "bench_uplink-here.json").read_text())
    return found


def test_live_frames_pass_a_backlog(tmp_path: Path) -> None:
    """The backlog alone fills the link for 14 s; live frames wait for a fraction of that. In networks of their own where allowed."""
    result = measured(tmp_path, "--short", "--parts", "narrow")
    assert result["link"] == ("namespaces" if narrow_link["namespaces_allowed"]() else "proxy")
    (found,) = result["narrow"]["trials"]
    assert found["link_used"] > 0.6
    assert found["backlog_left"] > 0
    assert found["live_ack_ms"]["p50"] < 1000
    assert found["resent"] == 0


@pytest.mark.long
def test_a_tunnel_loses_nothing(tmp_path: Path, trials: dict[str, Any]) -> None:
    for found in measured(tmp_path, "--parts", "cut")["cut"]["trials"]:
        archive = found["archive"]
        assert archive["packets"] == archive["equal"] > 1000
        assert (archive["missing"], archive["twice"], found["discarded"]) == (0, 0, 0)
        trials[f"link cut for {found['cut_s']} s"] = found


@pytest.mark.long
def test_the_disk_stays_within_its_limit(tmp_path: Path) -> None:
    """A tunnel that is too long for it: what is given up is counted, and what is not is in the archive."""
    (found,) = measured(tmp_path, "--short", "--parts", "disk")["disk"]["trials"]
    assert found["settled"]
    assert found["found"] == found["written"] == found["stored"] + found["discarded"]
    assert found["discarded"] > 0
    assert found["in_the_archive"] >= found["stored"]
    assert found["largest_mb"] <= 1.2 * found["limit_mb"]  # an agent that gets no turn for a second is late
