"""Engines in a process of their own: real workers on the real ONNX Runtime, killed, stopped, replaced while frames keep coming."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.drive import PERIOD_S, Drive
from support.tiny_bundle import frames, make_bundle

from percodec.runtime.supervise import supervisor as module
from percodec.runtime.supervise.health import DEGRADED, FAULT, READY
from percodec.runtime.supervise.link import Link
from percodec.runtime.supervise.supervisor import COMMAND
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BackendError, BundleError


@pytest.fixture
def drive(bundle_folder: Path) -> Iterator[Callable[..., Drive]]:
    made: list[Drive] = []

    def make(**more: Any) -> Drive:
        made.append(Drive(more.pop("folder", bundle_folder), **more))
        made[-1].pipeline.start()
        return made[-1]

    yield make
    for one in made:
        one.pipeline.stop()
        one.pipeline.wait(5)
        one.supervisor.close()


def test_the_worker_computes_what_the_process_would(drive: Callable[..., Drive], bundle_folder: Path) -> None:
    from percodec.runtime.engines.open import open_slots

    run = drive(count=30, period_s=0)
    run.until(lambda: run.pipeline.wait(0.01))
    counts = run.end()
    assert counts.predicted == counts.coded == counts.captured == 30
    assert all(valid for _, _, valid in run.seen)
    bundle = Bundle.open(bundle_folder)
    slot = open_slots(bundle).make(1)[0]
    slot.image[0] = frames(16, bundle.frame_height, bundle.frame_width)[29 % 16]
    slot.encode()
    slot.predict()
    last = next(s for s in run.pipeline.ring.slots if s.frame_id == 29)
    assert np.array_equal(last.symbols, slot.symbols)
    assert np.array_equal(last.outputs["segmentation"]["labels"], slot.outputs["segmentation"]["labels"])
    assert run.health.status.state == READY


def test_fi07_a_worker_that_dies_is_replaced_and_the_camera_goes_on(drive: Callable[..., Drive]) -> None:
    run = drive()
    run.more()
    assert run.supervisor.about["backend"] == "ort"
    killed = time.monotonic()
    os.kill(run.supervisor.worker_pid, signal.SIGKILL)
    run.until(lambda: run.health.status.state == DEGRADED)
    run.until(lambda: run.health.status.state == READY)
    back = time.monotonic()
    run.more()
    counts = run.end()
    assert run.supervisor.restarts == 1
    assert counts.dropped["engine"] > 0
    captured = sum(killed < at < back for at in run.source.stamps)
    assert captured > 0.5 * (back - killed) / PERIOD_S, "capture waited for the worker"
    assert [frame for _, frame, _ in run.seen] == sorted({frame for _, frame, _ in run.seen})
    assert run.pipeline.error is None


def test_fi08_a_worker_that_hangs_is_killed_within_its_patience(drive: Callable[..., Drive]) -> None:
    run = drive()
    run.more()
    stopped = time.monotonic()
    os.kill(run.supervisor.worker_pid, signal.SIGSTOP)
    run.until(lambda: run.health.status.state == DEGRADED)
    noticed = time.monotonic() - stopped
    assert noticed < 5, noticed  # 300 ms, and the slack of a busy machine
    assert "no answer for" in str(run.health.status)
    run.until(lambda: run.health.status.state == READY)
    run.more()
    answered = [frame for at, frame, valid in run.seen if at < stopped + noticed and valid]
    assert all(run.source.stamps[frame] < stopped + 0.05 for frame in answered), "an old answer was called valid"
    run.end()


def test_no_frame_of_a_file_is_lost_by_a_restart_but_those_in_flight(drive: Callable[..., Drive]) -> None:
    run = drive(count=400, period_s=0)
    run.more(20)
    os.kill(run.supervisor.worker_pid, signal.SIGKILL)
    run.until(lambda: run.pipeline.wait(0.01), 30)
    counts = run.end()
    assert counts.captured == 400
    assert counts.predicted >= 400 - len(run.pipeline.ring.slots)


def test_a_frame_of_a_file_waits_where_the_pipe_breaks_before_the_end_is_noticed(
    drive: Callable[..., Drive], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks, broken = Link.ask, list[int]()

    def ask(link: Link, index: int, token: int) -> None:
        if len(broken) == 1:
            broken.append(token)
            link.process.kill()
            raise BrokenPipeError
        if not broken and token > 30:
            while any(a.link is not None and not a.settled for a in run.supervisor._answers if a.token < token):  # nothing in flight
                run.supervisor._cv.wait(0.01)
            broken.append(token)
            return ask(link, index, token)
        return asks(link, index, token)

    monkeypatch.setattr(Link, "ask", ask)
    run = drive(count=100, period_s=0)
    run.until(lambda: run.pipeline.wait(0.01), 30)
    assert len(broken) == 2
    assert run.end().predicted == 100


def test_a_backend_that_cannot_run_gives_way_to_the_next_at_once(drive: Callable[..., Drive]) -> None:
    run = drive(candidates=("tensorrt", "ort"))
    run.more()
    assert run.health.status.state == DEGRADED, "it runs, but not what was asked for"
    assert "tensorrt cannot run, ort runs instead: backend tensorrt cannot run here" in str(run.health.status)
    assert run.supervisor.about["backend"] == "ort"
    run.end()


def test_fi02_no_backend_at_all_is_a_fault_that_says_why(bundle_folder: Path) -> None:
    with pytest.raises(BackendError, match=r"^backend tensorrt cannot run here"):
        Drive(bundle_folder, candidates=("tensorrt",))


def test_a_worker_takes_no_other_bundle_than_the_one_that_is_logged(bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match="this is another bundle"):
        Drive(bundle_folder, config={"digest": "0" * 64})


def test_the_last_backend_gone_ends_the_run(drive: Callable[..., Drive], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", (0.01,))
    run = drive()
    for _ in range(3):
        run.until(lambda: run.supervisor.about != {})
        pid = run.supervisor.worker_pid
        os.kill(pid, signal.SIGKILL)
        run.until(lambda pid=pid: run.supervisor.about == {} or run.supervisor.worker_pid != pid)
    run.until(lambda: run.pipeline.wait(0.01))
    assert run.health.status.state == FAULT
    with pytest.raises(BackendError, match="ort failed 3 times"):
        run.pipeline.finish()
    assert run.pipeline.counts.balanced


def test_fi18_other_engines_are_loaded_beside_the_running_ones(drive: Callable[..., Drive], tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_bundle(other)
    run = drive()
    run.more(10)
    first = run.supervisor.worker_pid
    begin = time.monotonic()
    run.supervisor.switch("ort:fp32", bundle=str(other))
    run.until(lambda: run.supervisor.worker_pid != first)
    loaded = time.monotonic()
    run.more(10)
    counts = run.end()
    assert counts.dropped.get("engine", 0) == 0
    assert loaded - begin > 0.1, "a load that takes no time shows nothing"
    assert run.health.status.state == READY
    ids = [frame for at, frame, _ in run.seen if begin < at < loaded + 0.1]
    assert len(ids) > 0.2 * (loaded - begin) / PERIOD_S, "loading stalled the frames"


def test_engines_that_do_not_load_are_not_taken_over(drive: Callable[..., Drive], tmp_path: Path) -> None:
    run = drive()
    run.more()
    pid = run.supervisor.worker_pid
    run.supervisor.switch("ort", bundle=str(tmp_path / "nowhere"))
    run.until(lambda: run.health.status.state == DEGRADED)
    assert "was not taken over" in str(run.health.status)
    run.more()
    assert run.supervisor.worker_pid == pid
    run.end()


def test_the_worker_ends_with_its_owner(bundle_folder: Path) -> None:
    run = Drive(bundle_folder)
    pid = run.supervisor.worker_pid
    run.supervisor._link.retire()  # type: ignore[union-attr]
    run.until(lambda: not alive(pid))
    run.supervisor.close()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its owner does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or before it was read
        return False


def test_the_command_is_this_interpreter() -> None:
    assert COMMAND[0] == sys.executable


def test_the_worker_imports_nothing_from_where_it_was_started(tmp_path: Path) -> None:
    for name in ("queue", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(9)\n")
    done = subprocess.run([*COMMAND, "no json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "JSONDecodeError" in done.stderr, "it came as far as its own argument"
    assert not (tmp_path / "ran").exists()
