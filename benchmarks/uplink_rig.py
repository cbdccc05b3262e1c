"""A fleet on loopback: vehicles that write logs, their agents, a broker, ingests; every part a process that can be killed.

For `uplink_trial.py` and `bench_uplink.py`. By itself it plays one camera:

    python benchmarks/uplink_rig.py BUNDLE LOG STREAM FPS FRAMES SEGMENT
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from narrow_link import Link

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.loopback import LoopbackBroker
from percodec.sdk import Bundle, PacketCodec, SegmentedLogWriter, SegmentLimits, read_log

PERCODEC = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]


def play(bundle_path: Path, log: Path, stream: int, fps: float, frames: int, segment: str) -> None:
    """Write a live log in time, as a camera's run would: the bundle's self-test latents, shifted from frame to frame. SIGTERM ends it."""
    bundle = Bundle.open(bundle_path)
    coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:], stream_id=stream)
    latents = bundle.selftest().symbols
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    begin = time.monotonic()
    with SegmentedLogWriter(log, bundle, SegmentLimits.from_text(segment), stream_id=stream, live=True) as writer:
        for frame in range(frames):
            if fps:
                time.sleep(max(0.0, begin + frame / fps - time.monotonic()))
            if ended:
                break
            now = time.monotonic_ns()
            symbols = np.ascontiguousarray(np.roll(latents[frame % len(latents)], frame % 8, axis=2))
            writer.append(coder.encode(symbols, frame, now), frame, now)


class Fleet:
    """Vehicles v1, v2, ... in `folder`, each with its folder of logs, one agent each, and `ingests`."""

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        vehicles: int = 2,
        ingests: int = 2,
        flush: str = "0.5",
        ack_wait: str = "3",
        resend: str = "6",
        address: str = "127.0.0.1",
    ) -> None:
        self.folder, self.bundle = folder, bundle
        self.names = [f"v{k + 1}" for k in range(vehicles)]
        self.broker = LoopbackBroker(folder / "broker", self.names, address=address)
        self.archive = folder / "archive"
        self.flush, self.ack_wait, self.resend = flush, ack_wait, resend
        self.ingests = [self.start_ingest() for _ in range(ingests)]
        for name in self.names:
            self.logs(name).mkdir()
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.cameras: list[subprocess.Popen[bytes]] = []
        self.runs = itertools.count()

    def logs(self, vehicle: str) -> Path:
        return self.folder / vehicle

    def start_ingest(self) -> subprocess.Popen[bytes]:
        words = ["ingest", "--from", self.broker.url, "--archive", str(self.archive), "--flush", self.flush, "--ack-wait", self.ack_wait]
        return self._start([*words, "--stream-size", "1GB", *tls(self.broker.ingest)], "ingest")

    def start_agent(self, vehicle: str, *more: str, link: Link | None = None) -> None:
        """`link`: what lies between the vehicle and the broker; None for nothing."""
        url, where = (self.broker.url, []) if link is None else (link.url, link.where)
        words = ["uplink", str(self.logs(vehicle)), "--to", url, "--resend-after", self.resend, *more]
        self.agents[vehicle] = self._start([*words, *tls(self.broker.vehicles[vehicle])], f"agent-{vehicle}", where)

    def kill_ingest(self, number: int) -> None:
        """Kill one, and start another in its place."""
        self.ingests[number].kill()
        self.ingests[number].wait()
        self.ingests[number] = self.start_ingest()

    def kill_agent(self, vehicle: str) -> None:
        self.agents[vehicle].kill()
        self.agents[vehicle].wait()

    def start_camera(self, vehicle: str, stream: int, fps: float, frames: int, segment: str = "1MB,5s") -> Path:
        log = self.logs(vehicle) / f"camera-{stream}-{next(self.runs)}"
        words = [sys.executable, __file__, str(self.bundle), str(log), str(stream), str(fps), str(frames), segment]
        self.cameras.append(subprocess.Popen(words, stdin=subprocess.DEVNULL))
        return log

    def start_run(self, vehicle: str, stream: int, source: str, *more: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A live `percodec run` with a segmented log, and the folder of it."""
        out = self.logs(vehicle) / f"run-{stream}-{next(self.runs)}"
        words = [
            "run",
            source,
            "--out",
            str(out),
            "--realtime",
            "--log-segment",
            "1MB,5s",
            "--stream-id",
            str(stream),
            "--no-overlay",
            "--no-sheet",
        ]
        return self._start([*words, "--no-selftest", "--bundle", str(self.bundle), *more], f"run-{vehicle}"), out / "packets"

    def status(self, vehicle: str) -> dict[str, Any]:
        """What its agent says; {} before it says anything."""
        try:
            found: dict[str, Any] = json.loads((self.logs(vehicle) / ".uplink" / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def wait_live(self, vehicle: str) -> None:
        """Until the first live frames were acknowledged; a busy machine takes its time to start cameras."""
        deadline = time.monotonic() + 120
        while not self.status(vehicle).get("live_ack_ms"):
            if time.monotonic() > deadline:
                raise SystemExit(f"{vehicle}: no live frame is acknowledged; see {self.folder}")
            time.sleep(0.1)

    def wait_stored(self, seconds: float) -> bool:
        """Whether everything found is stored or given up, within that time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [self.status(name) for name in self.names]
            counts = [one["records"] for one in found if one.get("records")]
            if len(counts) == len(self.names) and all(c["found"] == c["stored"] + c["discarded"] for c in counts):
                return True
            time.sleep(0.25)
        return False

    def stop_cameras(self) -> None:
        for camera in self.cameras:
            camera.terminate()
        self.wait_cameras()

    def wait_cameras(self) -> None:
        """Until each has written its last frame, and the agents had a look."""
        for camera in self.cameras:
            camera.wait()
        time.sleep(1.5)

    def close(self) -> None:
        for process in [*self.agents.values(), *self.ingests, *self.cameras]:
            if process.poll() is None:
                process.terminate()
        for process in [*self.agents.values(), *self.ingests, *self.cameras]:
            process.wait()
        self.broker.close()

    def _start(self, words: list[str], name: str, where: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*where, *PERCODEC, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def tls(who: Credentials) -> list[str]:
    return ["--ca", str(who.ca), "--cert", str(who.certificate), "--key", str(who.key)]


def compare(fleet: Fleet) -> dict[str, Any]:
    """The vehicles' logs with the archive: packets, times and order, byte for byte; and whether the index tells each packet once."""
    import pyarrow.parquet

    found: dict[str, Any] = {"recordings": 0, "packets": 0, "equal": 0, "missing": 0, "differ": 0, "twice": 0}
    for name in fleet.names:
        for log in sorted({path.parent for path in fleet.logs(name).rglob("*.mcap")}):
            here = read_log(log, allow_damaged=True)
            ours = [(r.sequence, r.timestamp_ns, r.packet) for r in here]
            if not ours:
                continue
            folder = fleet.archive / name / here.metadata["recording"]
            theirs = {}
            if folder.is_dir():
                there = read_log(folder, allow_damaged=True)
                theirs = {r.sequence: (r.sequence, r.timestamp_ns, r.packet) for r in there}
                rows = [
                    row
                    for path in folder.glob("*.parquet")
                    for row in pyarrow.parquet.read_table(path, columns=["segment", "sequence"]).to_pylist()
                ]
                found["twice"] += len(rows) - len({(row["segment"], row["sequence"]) for row in rows})
                found["missing"] += max(0, len(theirs) - len(rows))  # of the index
            found["recordings"] += 1
            found["packets"] += len(ours)
            found["equal"] += sum(theirs.get(one[0]) == one for one in ours)
            found["missing"] += sum(one[0] not in theirs for one in ours)
            found["differ"] += sum(one[0] in theirs and theirs[one[0]] != one for one in ours)
    return found


def archived_packets(fleet: Fleet) -> int:
    """Rows of the index; each packet has one."""
    import pyarrow.parquet

    return sum(pyarrow.parquet.read_metadata(path).num_rows for path in fleet.archive.rglob("*.parquet"))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    bundle_, log_, stream_, fps_, frames_, segment_ = sys.argv[1:]
    play(Path(bundle_), Path(log_), int(stream_), float(fps_), int(frames_), segment_)

__all__ = ["PERCODEC", "Fleet", "archived_packets", "compare", "cpu_seconds", "play", "rss_mb", "tls"]
