"""Workers on Ray that come, go and are killed under load: every request has its answer, or a refusal that says why."""

from __future__ import annotations

import os
import random
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.ray_serving import ask, at_once, request, workers
from support.serving import Serving, serving

from percodec.runtime.serve.requests import Limits

if find_spec("ray") is None or find_spec("starlette") is None:
    pytest.skip("needs the ray extra", allow_module_level=True)

KILLS, CLIENTS, LONGEST_S = 10, 8, 120


@pytest.mark.long
def test_workers_come_go_and_die_under_load(bundle_folder: Path, server: Serving, packets: list[bytes], trials: dict[str, Any]) -> None:
    from percodec.runtime.serve.ray_engine import RayEngine, Replicas

    bodies = [request([packet], model="tiny") for packet in packets]
    expected = [ask(server, body) for body in bodies]
    outcomes: dict[str, int] = {}
    seen: list[int] = []
    over: list[bool] = []
    rng = random.Random(3)
    limits = Limits(packets=8, frames=64, timeout_s=LONGEST_S)
    with serving({"tiny": bundle_folder}, limits, engine=RayEngine, replicas=Replicas(1, 2, calm_s=5)) as on_ray:
        engine: Any = on_ray.engine

        def until(number: int) -> None:
            end = time.monotonic() + LONGEST_S
            while not seen or seen[-1] != number:
                assert time.monotonic() < end, f"never {number} workers: {seen}"
                if (now := engine.replicas) != (seen[-1] if seen else None):
                    seen.append(now)
                time.sleep(0.2)

        def both() -> list[int]:
            """For a while Ray says of a worker that was killed that it runs."""
            end = time.monotonic() + LONGEST_S
            while len(found := workers()) < 2:
                assert time.monotonic() < end, f"no second worker: {found}"
                time.sleep(0.2)
            return found

        def client() -> None:
            k = 0
            while not over:
                answer, k = ask(on_ray, bodies[k % len(bodies)]), k + 1
                good = answer == expected[(k - 1) % len(bodies)]
                name = "answered" if good else f"refused: {answer[0]}" if answer[0] != "OK" and answer[1] else "wrong"
                outcomes[name] = outcomes.get(name, 0) + 1

        def killer() -> None:
            try:
                until(2)
                for _ in range(KILLS):
                    os.kill(rng.choice(both()), signal.SIGKILL)
                    time.sleep(rng.uniform(0, 2))
                until(2)
            finally:
                over.append(True)

        until(1)
        at_once([killer, *[client] * CLIENTS], 1200)
        until(1)
    assert seen[:2] == [1, 2]
    assert seen[-1] == 1
    assert outcomes["answered"] > 100
    assert all(name == "answered" or name.startswith("refused") for name in outcomes), outcomes
    trials["kill -9 of workers on Ray"] = {"kills": KILLS, "clients": CLIENTS, "workers_seen": seen, "requests": outcomes}
