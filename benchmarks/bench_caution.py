"""What does caution cost: a start that checks all it reads, and engines in a process of their own?

    python benchmarks/bench_caution.py [--before CHECKOUT] [--rounds 15] [--record]

`start`: processor time of a process that opens the built-in bundle, this checkout against an earlier one (`git worktree add CHECKOUT
COMMIT`), in turn. The earlier one uses this one's compiled core, which did not change.

`isolation`: processor time a frame of 480x360, of both processes together, and time on the wall, against those of engines in this process,
in turn: in a loop over one slot, and in whole pipelines of a camera with 25 frames a second, coder included. The first frames of a loop are
left out on both sides: they find caches as the other side left them, and a run has one side only. What of it is this process's, the copy
out of the shared memory, and, for comparison, what it costs here that two processes without networks wake each other as often with as many
bytes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray

from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.engines.open import graph_specs
from percodec.runtime.pipeline.options import PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import HeadTask
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.session import DEFAULT_BUNDLE, Session
from percodec.runtime.supervise.health import Health
from percodec.runtime.supervise.supervisor import Supervisor
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec, _rans
from percodec.sdk.machine import machine_info
from percodec.sdk.types import Frame

HERE = Path(__file__).parents[1]
FRAMES, FIRST = 20, 4  # of a turn; those that do not count in a loop
SLOTS = 12
_OPEN = "import sys; sys.path[:0] = sys.argv[1:]; from percodec.runtime import Session; Session.open().close()"


def start_s(checkout: Path) -> float:
    """Processor seconds of a process that opens the built-in bundle, from this checkout alone (-S: no installed percodec)."""
    packages = str(Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-S", "-c", _OPEN, str(checkout / "sdk"), str(checkout / "runtime"), packages], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start(before: Path, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for name, source in (("before", before), ("now", HERE)):
            sides[name] = Path(folder) / name
            for part in ("sdk", "runtime"):
                shutil.copytree(source / part / "percodec", sides[name] / part / "percodec", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(_rans.__file__, sides[name] / "sdk" / "percodec" / "sdk" / "codec")
            start_s(sides[name])  # compiles
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, checkout in sides.items():
                found[name].append(start_s(checkout))
    ratios = [now / then for now, then in zip(found["now"], found["before"], strict=True)]
    medians = {f"{name}_ms": round(1000 * statistics.median(times), 1) for name, times in found.items()}
    commit = subprocess.run(
        ["git", "-C", str(before), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {"before": commit, "rounds": rounds, **medians, "ratio": round(statistics.median(ratios), 3)}


def process_s(pid: int) -> float:
    """Processor seconds of another process's threads so far, to the nanosecond: a tick of 10 ms is more than what is asked for."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def frames_s(slot: Slot, pid: int) -> tuple[float, float, float]:
    """Of a frame through one slot: processor seconds here and in process `pid`, of those here, and on the wall."""
    for k in range(FRAMES):
        if k == FIRST:
            here, there, wall = time.process_time(), process_s(pid) if pid else 0.0, time.monotonic()
        slot.encode()
        slot.ready()
        slot.predict()
    wall, here = time.monotonic() - wall, time.process_time() - here
    there = process_s(pid) - there if pid else 0.0
    return tuple(seconds / (FRAMES - FIRST) for seconds in (here + there, here, wall))


class Paced:
    """Pictures at 25 a second."""

    def __init__(self, frame: NDArray[np.uint8]) -> None:
        self.info = SourceInfo("paced", "fake", False, frame.shape[1], frame.shape[0], 25.0, FRAMES)
        self._pictures = [np.roll(frame, 3 * k, 1) for k in range(FRAMES)]
        self._next, self._began = 0, time.monotonic()

    def read(self) -> Frame | None:
        if self._next == FRAMES:
            return None
        time.sleep(max(0.0, self._began + 0.04 * self._next - time.monotonic()))
        self._next += 1
        return Frame(self._pictures[self._next - 1], self._next, time.monotonic_ns())

    def close(self) -> None:
        pass


def pipeline_s(bundle: Bundle, slots: list[Slot], pid: int) -> float:
    """Processor seconds of a frame through a pipeline, here and in process `pid`."""
    pipeline = Pipeline(
        Paced(bundle.selftest().frames[0]), Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit), lambda count: slots,
        PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), levels=bundle.levels,
        heads={"segmentation": HeadTask("segmentation", len(bundle.labels))}, options=PipelineOptions(slots=len(slots)),
    )  # fmt: skip
    here, there = time.process_time(), process_s(pid) if pid else 0.0
    counts = pipeline.run()
    if not counts.predicted == counts.coded == FRAMES:
        raise SystemExit(f"frames were lost: {counts}")
    return (time.process_time() - here + (process_s(pid) - there if pid else 0.0)) / FRAMES


_ECHO = """
import os, sys, time
spent, clock = 0, time.thread_time_ns
def timed(call, *words):
    global spent
    begin = clock()
    done = call(*words)
    spent += clock() - begin
    return done
while timed(os.read, 0, 12):
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end: pass
    timed(os.write, 1, bytes(9))
print(spent, file=sys.stderr)
"""


def bare_s(work_s: float) -> float:
    """Processor seconds, on both sides, of a request and its answer after so long a work, of two bare processes."""
    words = [sys.executable, "-S", "-c", _ECHO, str(work_s)]
    with subprocess.Popen(words, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stderr is not None
        spent = 0.0
        for _ in range(FRAMES):
            begin = time.thread_time()
            other.stdin.write(bytes(12))
            other.stdout.read(9)
            spent += time.thread_time() - begin
        other.stdin.close()
        return (spent + int(other.stderr.read()) / 1e9) / FRAMES


def isolation(rounds: int) -> dict[str, Any]:
    bundle = Bundle.open(DEFAULT_BUNDLE)
    image, (symbols,) = graph_specs(bundle, "encoder")
    heads = {"segmentation": graph_specs(bundle, "head_segmentation")[1]}
    supervisor = Supervisor(DEFAULT_BUNDLE, (image, symbols), heads, ("ort",), Health(), waits=True, patience_s=60)
    with Session.open(bundle) as session:
        ours, theirs = session.slots(SLOTS), supervisor.make(SLOTS)
        inside, apart = ours[0], theirs[0]
        inside.image[:] = apart.image[:] = bundle.selftest().frames[0]
        rows, bare, pipelines = [], [], []
        for _ in range(rounds):
            rows.append((frames_s(inside, 0), frames_s(apart, supervisor.worker_pid)))
            bare.append(bare_s(rows[-1][0][2]))
            pipelines.append((pipeline_s(bundle, ours, 0), pipeline_s(bundle, theirs, supervisor.worker_pid)))
        shared = [apart.symbols.copy(), *(a.copy() for a in apart.outputs["segmentation"].values())]
        own = [array.copy() for array in shared]
        begin = time.process_time()
        for _ in range(1000):
            for mine, theirs in zip(own, shared, strict=True):
                mine[:] = theirs
        copy_ms = time.process_time() - begin
    supervisor.close()
    ms = {
        "inside_ms": [plain[0] for plain, _ in rows],
        "inside_wall_ms": [plain[2] for plain, _ in rows],
        "apart_costs_ms": [other[0] - plain[0] for plain, other in rows],
        "apart_costs_wall_ms": [other[2] - plain[2] for plain, other in rows],
        "of_it_in_this_process_ms": [other[1] for _, other in rows],
        "bare_processes_ms": bare,
        "pipeline_inside_ms": [plain for plain, _ in pipelines],
        "pipeline_apart_costs_ms": [other - plain for plain, other in pipelines],
    }
    return {
        "frame": f"{bundle.frame_width}x{bundle.frame_height}", "rounds": rounds, "frames_a_round": FRAMES - FIRST,
        **{name: round(1000 * statistics.median(values), 3) for name, values in ms.items()}, "copying_out_ms": round(copy_ms, 4),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier checkout to compare the start with")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of each comparison (default 15)")
    record.add_arguments(parser)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "benchmark": "bench_caution",
        "command": f"python benchmarks/bench_caution.py{' --before CHECKOUT' if args.before else ''} --rounds {args.rounds}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine_info(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "isolation": isolation(args.rounds),
        **({"start": start(args.before.resolve(), args.rounds)} if args.before else {}),
    }
    print(result["isolation"], result.get("start", ""))
    record.write_result(args, "bench_caution", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
