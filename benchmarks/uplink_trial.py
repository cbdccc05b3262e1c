"""Does the archive have every packet of every vehicle, once, whatever was killed on the way?

undisturbed   two vehicles, each with cameras that write logs in time; one of them is a live `percodec run`
kills         at random moments broker, ingest, agent or run is killed (-9) and started again, each of them as often
forgets       the same, and the broker loses all that it acknowledged

At the end the archive is compared with the vehicles' logs, byte for byte.

    python benchmarks/uplink_trial.py --record        exit 1 where a packet is missing, differs or is there twice
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from record import add_arguments, write_result
from uplink_rig import Fleet, compare

from percodec.runtime.session import DEFAULT_BUNDLE
from percodec.sdk import LogError, read_log
from percodec.sdk.machine import machine_info, versions

TRIALS = ("undisturbed", "kills", "forgets")
VICTIMS = ("broker", "ingest", "agent", "run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default=",".join(TRIALS), help=f"which of them (default {','.join(TRIALS)})")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cameras", type=int, default=4, help="of each vehicle")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="of the undisturbed drive")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--source", default="synthetic://road?frames=100000&height=120&width=160", help="of the live run")
    add_arguments(parser)
    args = parser.parse_args()
    found = []
    for name in args.trials.split(","):
        with tempfile.TemporaryDirectory() as place:
            fleet = Fleet(Path(place), args.bundle)
            try:
                found.append(trial(name, args, fleet))
            finally:
                fleet.close()
        print(found[-1], flush=True)
    write_result(
        args,
        "uplink_trial",
        {
            "benchmark": "uplink_trial", "date": datetime.date.today().isoformat(), "machine": machine_info(), "versions": versions(),
            "command": "python benchmarks/uplink_trial.py", "seed": args.seed, "trials": found,
        },
    )  # fmt: skip
    return 0 if all(map(whole, found)) else 1


def whole(found: dict[str, Any]) -> bool:
    archive = found["archive"]
    return bool(found["settled"] and archive["equal"] == archive["packets"] > 0 and not archive["twice"])


def trial(name: str, args: argparse.Namespace, fleet: Fleet) -> dict[str, Any]:
    load, begin, rng = os.getloadavg()[0], time.monotonic(), random.Random(args.seed)
    victims = [VICTIMS[k % len(VICTIMS)] for k in range(args.kills if name != "undisturbed" else 0)]
    rng.shuffle(victims)
    for vehicle in fleet.names:
        fleet.start_agent(vehicle)
    run, log = fleet.start_run("v1", 0, args.source)
    for vehicle in fleet.names:
        for stream in range(vehicle == "v1", args.cameras):
            fleet.start_camera(vehicle, stream, args.fps, 1 << 30)
    wait_written(log)
    time.sleep(0 if victims else args.seconds)
    for victim in victims:
        time.sleep(rng.uniform(0.5, 3))
        if victim == "broker":
            fleet.broker.kill(forget=name == "forgets")
            time.sleep(rng.uniform(0, 1))
            fleet.broker.start()
        elif victim == "ingest":
            fleet.kill_ingest(rng.randrange(len(fleet.ingests)))
        elif victim == "agent":
            vehicle = rng.choice(fleet.names)
            fleet.kill_agent(vehicle)
            fleet.start_agent(vehicle)
        else:
            wait_written(log)
            run.kill()
            run.wait()
            run, log = fleet.start_run("v1", 0, args.source)
    wait_written(log)
    run.terminate()
    run.wait()
    fleet.stop_cameras()
    ended = time.monotonic()
    settled = fleet.wait_stored(120)
    counts = [fleet.status(vehicle).get("records", {}) for vehicle in fleet.names]
    found = compare(fleet)
    return {
        "trial": name, "load_average": round(load, 1), "vehicles": len(fleet.names), "cameras": args.cameras, "fps": args.fps,
        "seconds": round(ended - begin), "killed": dict(sorted(Counter(victims).items())), "settled": settled,
        "settled_after_s": round(time.monotonic() - ended, 1), "resent": sum(one.get("resent", 0) for one in counts),
        "archive": found,
    }  # fmt: skip


def wait_written(log: Path) -> None:
    """Until a run has logged its first frames; a busy machine takes its time to start one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(LogError, OSError):
            if any(read_log(log, allow_damaged=True)):
                return
        time.sleep(0.2)
    raise SystemExit(f"{log}: the run has logged nothing")


if __name__ == "__main__":
    sys.exit(main())
