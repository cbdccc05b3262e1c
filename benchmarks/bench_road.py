"""Does a frame cost more with the built-in bundle than with `road-edge`, which was built in before?

    python benchmarks/bench_road.py [--rounds 60] [--record]

Picture to symbols and symbols to labels, in INT8 as the bundles ship, one thread a network, frames of the synthetic road, the two in turn:
CPU time, medians, and the median of the ratios of paired rounds.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import record
from bench_encoders import in_turn, paired

from percodec.runtime import Session, default_bundle
from percodec.sdk.machine import machine_info
from percodec.sdk.synthetic.road import RoadScene

BEFORE = Path(__file__).resolve().parent / "bundles" / "road-edge"


def each(step: Callable[[Any], object], given: list[Any]) -> Callable[[int], object]:
    """`step` of one of `given`, another in each round."""
    return lambda k: step(given[k % len(given)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    record.add_arguments(parser)
    args = parser.parse_args()
    pictures = [RoadScene(k, 360, 480).render(0)[0] for k in range(8)]
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session.open(path)) for path in (BEFORE, default_bundle())]
        names = [f"{s.bundle.name}@{s.bundle.digest[:12]}" for s in sessions]
        latents = [[session.encode(picture) for picture in pictures] for session in sessions]
        ways: dict[str, Callable[[int], object]] = {}
        for name, session, known in zip(names, sessions, latents, strict=True):
            ways |= {f"{name} encode": each(session.encode, pictures), f"{name} predict": each(session.predict, known)}
        times = in_turn(ways, args.rounds)
    rows = [
        {"bundle": name, **{f"{part}_ms": round(statistics.median(times[f"{name} {part}"]), 2) for part in ("encode", "predict")}}
        for name in names
    ]
    before, now = ([a + b for a, b in zip(times[f"{n} encode"], times[f"{n} predict"], strict=True)] for n in names)
    ratio = round(paired(now, before), 3)
    result = {"benchmark": "bench_road", "date": datetime.date.today().isoformat(), "command": "python benchmarks/bench_road.py"}
    result |= {"machine": machine_info(), "rounds": args.rounds, "rows": rows, "ratio": ratio}
    print(rows, result["ratio"])
    record.write_result(args, "bench_road", result)


if __name__ == "__main__":
    main()
