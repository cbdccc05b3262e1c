"""Does a frame cost more with the built-in bundle than with `road-edge`, which was built in before?

    python benchmarks/bench_road.py [--rounds 60] [--record]

Picture to symbols and symbols to labels, in INT8 as the bundles ship, one thread a network, frames of the synthetic road, the two in turn:
CPU time, medians, and the median of the ratios of paired rounds.
"""

from __future__ import annotations

import argparse
import datetime
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import record

from percodec.runtime import Session, default_bundle
from percodec.sdk.machine import machine_info
from percodec.sdk.synthetic.road import RoadScene

BEFORE = Path(__file__).resolve().parent / "bundles" / "road-edge"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    record.add_arguments(parser)
    args = parser.parse_args()
    spent: list[list[float]] = []
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session.open(path)) for path in (BEFORE, default_bundle())]
        names = [f"{s.bundle.name}@{s.bundle.digest[:12]}" for s in sessions]
        for k in range(args.rounds + 5):
            picture, row = RoadScene(k, 360, 480).render(0)[0], []
            for session in sessions:
                begin = time.process_time_ns()
                latent = session.encode(picture)
                encoded = time.process_time_ns()
                session.predict(latent)
                row += [(encoded - begin) / 1e6, (time.process_time_ns() - encoded) / 1e6]
            spent.append(row)
    table = np.array(spent[5:])
    totals = table.reshape(-1, 2, 2).sum(2)
    medians = np.median(table, 0).round(2).tolist()
    rows = [{"bundle": n, "encode_ms": medians[2 * k], "predict_ms": medians[2 * k + 1]} for k, n in enumerate(names)]
    ratios = totals[:, 1] / totals[:, 0]
    result = {"benchmark": "bench_road", "date": datetime.date.today().isoformat(), "command": "python benchmarks/bench_road.py"}
    result |= {"machine": machine_info(), "rounds": args.rounds, "rows": rows, "ratio": round(float(np.median(ratios)), 3)}
    print(rows, result["ratio"])
    record.write_result(args, "bench_road", result)


if __name__ == "__main__":
    main()
