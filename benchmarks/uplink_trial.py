"""Does the archive have every packet of every vehicle, once, whatever was killed on the way?

Two vehicles, each with cameras that write logs in time; one of them is a live `percodec run`. At random moments one of broker, ingest,
agent and run is killed (-9) and started again; with `--forget` the broker loses all that it acknowledged. At the end the archive is
compared with the vehicles' logs, byte for byte.

    python benchmarks/uplink_trial.py --kills 20 --cameras 4        exit 1 where a packet is missing, differs or is there twice
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from uplink_rig import Fleet, compare

from percodec.runtime.session import DEFAULT_BUNDLE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cameras", type=int, default=4, help="of each vehicle")
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--every", type=float, default=2.0, help="mean seconds between kills")
    parser.add_argument("--forget", action="store_true", help="the broker forgets what it acknowledged")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--source", default="synthetic://road?frames=100000", help="of the live run")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        fleet = Fleet(Path(place), args.bundle)
        try:
            return trial(args, fleet, rng)
        finally:
            fleet.close()


def trial(args: argparse.Namespace, fleet: Fleet, rng: random.Random) -> int:
    begin = time.monotonic()
    frames = int(args.fps * (args.kills * args.every + 4))
    run = fleet.start_run("v1", 0, args.source)
    for name in fleet.names:
        for stream in range(name == "v1", args.cameras):
            fleet.start_camera(name, stream, args.fps, frames)
    kills: Counter[str] = Counter()
    time.sleep(2)
    for _ in range(args.kills):
        time.sleep(rng.uniform(0.5, 1.5) * args.every)
        victim = rng.choice(["broker", "ingest", "agent", "run"])
        kills[victim] += 1
        if victim == "broker":
            fleet.broker.kill(forget=args.forget)
            time.sleep(rng.uniform(0, 1))
            fleet.broker.start()
        elif victim == "ingest":
            number = rng.randrange(len(fleet.ingests))
            fleet.ingests[number].kill()
            fleet.ingests[number].wait()
            fleet.ingests[number] = fleet.start_ingest()
        elif victim == "agent":
            name = rng.choice(fleet.names)
            fleet.agents[name].kill()
            fleet.agents[name].wait()
            fleet.agents[name] = fleet.start_agent(name)
        else:
            run.kill()
            run.wait()
            run = fleet.start_run("v1", 0, args.source)
    for camera in fleet.cameras:
        camera.wait()
    run.terminate()
    run.wait()
    ended = time.monotonic()
    time.sleep(1.5)  # the agents look
    done = fleet.wait_stored(90)
    found = compare(fleet)
    counts = {name: fleet.status(name).get("records", {}) for name in fleet.names}
    resent = sum(one.get("resent", 0) for one in counts.values())
    print(
        f"{args.kills} kills ({', '.join(f'{k} {n}' for k, n in sorted(kills.items()))}) in {ended - begin:.0f} s: {found['packets']} "
        f"packets of {found['recordings']} recordings, {found['equal']} in the archive as they were, {found['missing']} missing, "
        f"{found['differ']} differ, {found['twice']} twice; {resent} resent, settled {time.monotonic() - ended:.0f} s after"
    )
    if not done:
        print(f"not settled: {counts}", file=sys.stderr)
    return 0 if done and found["equal"] == found["packets"] > 0 and not found["twice"] else 1


if __name__ == "__main__":
    sys.exit(main())
