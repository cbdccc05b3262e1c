"""Does a cluster that loses a node leave the same bytes? `percodec dataset predict` on a Ray cluster of two nodes, one of them killed.

    python benchmarks/fleet_trial.py [--shards 20] [--record]

Each node is a raylet of its own with one CPU, on loopback. The bundle is the tests' tiny one: 20,000 packets are affordable on a CPU, and
what is tried is the machinery, not the network. The driver's memory is read while it works: after the first shards, and at its end.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

PACKETS = 1000  # of a shard


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=20)
    record.add_arguments(parser)
    args = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}
    os.environ |= {"RAY_worker_niceness": "0"}  # its workers would wait for everybody else on the machine
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

    from percodec.sdk.machine import machine_info, versions

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, args.shards)
        plain = _predict(folder, "plain", args.shards, None)
        cluster = _cluster(folder, args.shards)
        same = _digests(folder / "plain") == _digests(folder / "ray")
    result: dict[str, Any] = {
        "bench": "fleet_trial",
        "machine": machine_info(),
        "versions": versions(),
        "command": f"python benchmarks/fleet_trial.py --shards {args.shards}",
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
        "note": "other work ran on the machine; times are wall-clock and say little",
        "packets": args.shards * PACKETS,
        "one_process": plain,
        "two_nodes_one_killed": cluster,
        "same_bytes": same,
    }
    print(result)
    record.write_result(args, "fleet_trial", result)
    return 0 if same else 1


def _write(folder: Path, shards: int) -> None:
    from support import fleet, tiny_bundle

    bundle = tiny_bundle.make_bundle(folder / "tiny")
    some = fleet.packets_of(bundle, fleet.latents(bundle, 50))
    for k in range(shards):
        fleet.write_log(folder / "logs" / f"{k:03d}.mcap", bundle, [some[(k + n) % 50] for n in range(PACKETS)])


def _predict(folder: Path, out: str, shards: int, cluster: Any) -> dict[str, Any]:
    """One command; with a cluster its second node is killed when a quarter is done."""
    words = [str(Path(sys.executable).with_name("percodec")), "dataset", "predict", str(folder / "logs"), str(folder / out)]
    options = ["--bundle", str(folder / "tiny"), "--json", *(["--workers", "ray"] if cluster else [])]
    environment = {**os.environ, **({"RAY_ADDRESS": cluster.address} if cluster else {})}
    begin = time.monotonic()
    with (folder / f"{out}.log").open("wb") as log:
        process = subprocess.Popen([*words, *options], stdout=log, stderr=log, env=environment)
    memory: list[tuple[int, int]] = []
    while process.poll() is None:
        done = len(list((folder / out).glob("*.parquet")))
        if done and (size := _kilobytes(process.pid)):
            memory.append((done, size))
        if cluster and cluster.doomed is not None and done >= shards // 4:
            cluster.remove_node(cluster.doomed, allow_graceful=False)
            cluster.doomed = None
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit((folder / f"{out}.log").read_text()[-2000:])
    early = [size for done, size in memory if done <= max(1, shards // 4)]
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "driver_mb_in_the_first_quarter": round(max(early, default=0) / 1000),
        "driver_mb_at_most": round(max((size for _, size in memory), default=0) / 1000),
    }


def _cluster(folder: Path, shards: int) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        found = _predict(folder, "ray", shards, cluster)
        return {**found, "nodes": 2, "killed": int(cluster.doomed is None)}
    finally:
        cluster.shutdown()


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _kilobytes(pid: int) -> int:
    """Resident memory of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    raise SystemExit(main())
