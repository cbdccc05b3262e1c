"""What does a precision cost and save on the CPU? Accuracy on CamVid val, and time of encoder and head side by side.

    python benchmarks/bench_precision.py --camvid PATH [--bundle FOLDER] [--rounds 60]

Calibrates on training frames, judges on validation frames (reference and fast sessions), then times FP32, FP16 and INT8 alternating in
one run: one thread, CPU time, medians. Needs the build extra.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import statistics
import time
from pathlib import Path

import record

PRECISIONS = ("fp32", "fp16", "int8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True, type=Path, help="CamVid folder")
    parser.add_argument("--bundle", type=Path, default=None, help="bundle folder (default: road)")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--frames", type=int, default=64, help="calibration frames")
    record.add_arguments(parser)
    args = parser.parse_args()

    from percodec.export.data import load_camvid
    from percodec.export.engines.build import Calibration, default_graphs, explicit_graph, plan_for
    from percodec.export.engines.graph_function import graph_function
    from percodec.export.engines.verify import broken, compare, limits_of, run_chain
    from percodec.runtime.session import DEFAULT_BUNDLE
    from percodec.sdk.bundle import Bundle
    from percodec.sdk.machine import machine_info, versions
    from percodec.sdk.targets import target

    bundle = Bundle.open(args.bundle or DEFAULT_BUNDLE)
    train, val = load_camvid(args.camvid, "train"), load_camvid(args.camvid, "val")
    frames = [train.images[k * len(train) // args.frames] for k in range(args.frames)]
    calibration = Calibration(bundle, frames)
    graphs = default_graphs(bundle)
    base = run_chain(bundle, {g: bundle.graph(g) for g in graphs}, val.images, val.labels, reference=True)
    made, rows = {}, []
    for precision in PRECISIONS:
        plan = plan_for(target("host"), precision)
        made[precision] = {g: explicit_graph(bundle, g, plan, calibration).data for g in graphs}
        for name in ("reference", "fast"):
            row = compare(precision, name, run_chain(bundle, made[precision], val.images, val.labels, reference=name == "reference"), base)
            rows.append({**row, "broken": broken(row, limits_of(bundle, precision))})
            print(rows[-1], flush=True)
    runs = {p: (graph_function(made[p]["encoder"]), graph_function(made[p]["head_segmentation"])) for p in PRECISIONS}
    times: dict[str, list[float]] = {p: [] for p in PRECISIONS}
    for k in range(args.rounds):
        for precision, (encode, predict) in runs.items():
            began = time.process_time()
            predict(encode(val.images[k % len(val)][None]))
            times[precision].append(1000 * (time.process_time() - began))
    medians = {p: statistics.median(v) for p, v in times.items()}
    result = {
        "bench": "precision",
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "machine": machine_info(),
        "versions": versions(),
        "command": shlex.join(["python", "benchmarks/bench_precision.py", "--camvid", "PATH"]),
        "date": datetime.date.today().isoformat(),
        "pictures": len(val),
        "calibration": {"frames": args.frames, "method": calibration.method, "data": train.name},
        "rows": rows,
        "cpu_ms_median": medians,
        "times_faster_than_fp32": {p: medians["fp32"] / v for p, v in medians.items()},
    }
    print({p: round(v, 2) for p, v in result["times_faster_than_fp32"].items()}, medians)
    record.write_result(args, "bench_precision", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
