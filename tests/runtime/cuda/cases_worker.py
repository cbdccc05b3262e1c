"""FI-07 and FI-08 on the device: a GPU lost to its process, or one that never answers, costs a worker and some frames, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.cuda.engines import bundle_with_engines
from support.drive import Drive

COMMAND = (sys.executable, "-m", "support.cuda.worker")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cuGraphLaunch:700:60", "the GPU was lost to the worker"),
        ("cuEventSynchronize:719:120", "the GPU was lost to the worker"),
        ("hang:0:150", "no answer for"),
    ],
)
def test_a_lost_gpu_costs_a_worker(driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str) -> None:
    bundle_with_engines(tmp_path / "tiny")
    monkeypatch.setenv("PERCODEC_FAKE_FAULT", fault)
    monkeypatch.setenv("PERCODEC_FAKE_ONCE", str(tmp_path / "once"))
    run = Drive(tmp_path / "tiny", candidates=("tensorrt",), command=COMMAND, config={"selftest": False})
    run.pipeline.start()
    try:
        run.until(lambda: run.supervisor.restarts == 1)
        run.until(lambda: run.supervisor.about != {})
        run.more(10)
        counts = run.end()
    finally:
        run.pipeline.stop()
        run.supervisor.close()
    assert any(words in text for _, text in run.states), run.states
    assert str(run.health.status) == "READY"
    assert counts.dropped["engine"] > 0
    assert run.pipeline.error is None
    assert all(valid for _, _, valid in run.seen)
    # From the last answer to the notice: at once for an error, the patience for a hang.
    noticed = next(at for at, text in run.states if words in text)
    silent = noticed - max(at for at, _, _ in run.seen if at < noticed)
    assert silent < 5, silent
