"""`percodec serve --engine ray`: the bytes of the one-process engine, also while workers die. Ray starts once, for all tests here."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.command import COMMAND
from support.processes import children, command, listening
from support.ray_serving import ask, at_once, request, workers
from support.serving import Serving, serving

from percodec.runtime.serve.requests import Limits
from percodec.sdk.cli import main

if find_spec("ray") is None or find_spec("starlette") is None:  # found, not imported: how Ray listens is decided as it is imported
    pytest.skip("needs the ray extra", allow_module_level=True)

LIMITS = Limits(packets=8, frames=64, body_bytes=1 << 20, timeout_s=120)


@pytest.fixture(scope="module")
def on_ray(bundle_folder: Path, rich_bundle: Path) -> Iterator[Serving]:
    """Models `tiny` and `rich`, one worker."""
    from percodec.runtime.serve.ray_engine import RayEngine

    with serving({"tiny": bundle_folder, "rich": rich_bundle}, LIMITS, engine=RayEngine) as made:
        yield made


def test_every_answer_and_refusal_is_that_of_one_process(on_ray: Serving, server: Serving, packets: list[bytes]) -> None:
    names = ("frame_id", "classes", "labels", "probabilities", "depth.depth", "latent", "reconstruction", "overlay")
    good = [request(packets), request(packets[:1], *names), request(packets[2:5], *names), request(packets, model="tiny")]
    bad = [request([packets[0], packets[1][:-1]]), request([packets[0][:40] + b"x" + packets[0][41:]]), request(packets, "nothing")]
    for body in (*good, *bad):
        expected = ask(server, body)
        assert (expected[0] == "OK") == (body in good)
        assert ask(on_ray, body) == expected


def test_what_waits_goes_together_and_a_bad_one_harms_no_other(on_ray: Serving, server: Serving, packets: list[bytes]) -> None:
    bodies = [request([packets[k % 6]], "latent") for k in range(30)]
    bodies[7] = bodies[20] = request([packets[0][:-1]], "latent")
    bodies[25] = request(packets[:1], "latent", timeout=1)  # a microsecond
    found = at_once([lambda body=body: ask(on_ray, body) for body in bodies])  # type: ignore[misc]
    assert found.pop(25)[0] == "DEADLINE_EXCEEDED"
    del bodies[25]
    assert found == [ask(server, body) for body in bodies]
    assert on_ray.engine.frames == 0


def test_a_defect_is_answered_too(on_ray: Serving, packets: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(jobs: object) -> None:
        raise ValueError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(on_ray.engine, "_called", broken)
        assert ask(on_ray, request(packets[:1])) == ("INTERNAL", "the server failed; its log says why")
    assert ask(on_ray, request(packets[:1]))[0] == "OK"


def test_it_listens_on_loopback_alone(on_ray: Serving) -> None:
    assert workers()
    assert not listening(children())


def test_what_nobody_reads_is_not_written(on_ray: Serving) -> None:
    running = " ".join(map(command, children()))
    assert "raylet" in running
    assert not [name for name in ("log_monitor.py", "dashboard.py", "monitor.py") if name in running]


def test_workers_for_which_there_is_no_room_are_refused(on_ray: Serving, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--engine", "ray", "--replicas", "1", "--gpus", "2", "--grpc", "127.0.0.1:0", "--http", "none"]
    assert main(["serve", str(bundle_folder), *words]) == 1
    assert "the workers take 2 GPU to begin with, and the cluster has 0" in capsys.readouterr().err


def test_a_worker_that_is_killed_costs_nobody_an_answer(on_ray: Serving, server: Serving, packets: list[bytes]) -> None:
    bodies = [request([packets[k]], "latent") for k in range(6)]
    expected = [ask(server, body) for body in bodies]
    (victim,), stop, found = workers(), threading.Event(), [0]

    def load() -> list[int]:
        """Numbers of the requests that were not answered as they should."""
        wrong, k = [], 0
        while not stop.is_set():
            if ask(on_ray, bodies[k % 6]) != expected[k % 6]:
                wrong.append(k)
            k += 1
            found[0] += 1
        return wrong

    def kill() -> list[int]:
        while found[0] < 20:
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
        before = found[0]
        while found[0] < before + 20 or victim in workers():
            time.sleep(0.01)
        stop.set()
        return []

    assert at_once([load, load, load, kill]) == [[]] * 4
    assert victim not in workers()
    assert len(workers()) == 1


def test_a_cluster_that_is_not_there_is_named(bundle_folder: Path) -> None:
    soon = {"RAY_py_gcs_connect_timeout_s": "1", "RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}  # Ray that runs here has set some
    environment = {**ours, **soon, "RAY_ADDRESS": "127.0.0.1:9"}
    words = [*COMMAND, "serve", str(bundle_folder), "--engine", "ray", "--grpc", "127.0.0.1:0", "--http", "none"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert "the cluster of RAY_ADDRESS=127.0.0.1:9 cannot be had" in last
    assert "set RAY_AUTH_MODE=token" in last


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--replicas", "2"], "--replicas goes with --engine ray"),
        (["--gpus", "0.5"], "--gpus goes with --engine ray"),
        (["--engine", "ray", "--workers", "2"], "on Ray it is --replicas"),
        (["--engine", "ray", "--replicas", "3..2"], "--replicas 3: must be a whole number from 1 to 2"),
        (["--engine", "ray", "--replicas", "..2"], "--replicas"),
    ],
)
def test_options_that_do_not_go_together_are_named(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    assert text in capsys.readouterr().err
