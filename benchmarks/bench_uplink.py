"""What does the uplink cost the vehicle, and what does it make of a narrow or broken link?

cost     CPU and memory of the agent while cameras log at 30 frames/s, in turn with a bare JetStream publisher of the same bytes
narrow   live delay and use of a link of 6 Mbit/s that also carries a backlog
cut      how long it takes to catch up after a link that passed nothing
disk     whether the logs stay below --max-disk in a tunnel that is too long for them

    python benchmarks/bench_uplink.py --short        seconds instead of minutes; --record as usual
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from narrow_link import broker_address, enter_depot, in_depot, links_of
from record import add_arguments, result_path, write_result
from uplink_rig import Fleet, archived_packets, compare, cpu_seconds, play, rss_mb

from percodec.runtime.session import DEFAULT_BUNDLE
from percodec.sdk.machine import machine_info, versions

PARTS = ("cost", "narrow", "cut", "disk")
FPS, PACKET = 30, 7000  # about what a packet of the built-in bundle has


def bare(url: str, ca: str, certificate: str, key: str, cameras: int, seconds: float) -> None:
    """Publish to JetStream what the cameras would, a message a packet, and wait for each acknowledgement."""
    from percodec.runtime.uplink.credentials import Credentials
    from percodec.runtime.uplink.nats_link import connect_nats

    async def work() -> None:
        link = await connect_nats(url, Credentials(Path(ca), Path(certificate), Path(key)), "v1", lambda data: None)
        begin, frame = time.monotonic(), 0
        while (now := time.monotonic()) < begin + seconds:
            for _ in range(cameras):
                await link.publish(bytes(PACKET), lambda refusal: None)
            frame += 1
            await asyncio.sleep(max(0.0, begin + frame / FPS - now))
        await link.close()

    asyncio.run(work())


def cost(place: Path, cameras: int, seconds: float, rounds: int) -> dict[str, Any]:
    """CPU of agent and of bare publisher in turn, ms a frame and share of a core; starting up is in neither."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=1, ingests=1, flush="2")
    agent_s, bare_s = [], []
    try:
        fleet.start_agent("v1")
        for _ in range(rounds):
            for camera in range(cameras):
                fleet.start_camera("v1", camera, FPS, int(FPS * (seconds + 4)), segment="64MB,10min")
            time.sleep(3)
            agent = fleet.agents["v1"].pid
            agent_s.append(_core_share(agent, seconds))
            rss = rss_mb(agent)
            fleet.wait_cameras()
            who = fleet.broker.vehicles["v1"]
            words = [fleet.broker.url, who.ca, who.certificate, who.key, cameras, seconds + 4]
            other = subprocess.Popen([sys.executable, __file__, "--bare", *map(str, words)])
            time.sleep(3)
            bare_s.append(_core_share(other.pid, seconds))
            bare_rss = rss_mb(other.pid)
            other.wait()
    finally:
        fleet.close()
    per = {
        name: {
            "core_percent": round(100 * statistics.median(shares), 2),
            "ms_a_frame": round(1e3 * statistics.median(shares) / FPS / cameras, 3),
            "rss_mb": round(memory),
        }
        for name, shares, memory in (("agent", agent_s, rss), ("bare", bare_s, bare_rss))
    }
    times = statistics.median(a / b for a, b in zip(agent_s, bare_s, strict=True))
    return {
        "cameras": cameras,
        "fps": FPS,
        "packet_bytes": PACKET,
        "seconds": seconds,
        "rounds": rounds,
        **per,
        "times_bare": round(times, 2),
    }


def _core_share(pid: int, seconds: float) -> float:
    before, begin = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - begin)


def narrow(place: Path, seconds: float, backlog_bytes: float, mbit: float = 6.0, cameras: int = 1) -> dict[str, Any]:
    """Live delay beside a backlog that never ends: from the last look that did not see a record yet, to its acknowledgement."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=1, ingests=1, flush="2", address=broker_address())
    (link,) = links_of(1, mbit * 1e6, fleet.broker.port)
    try:
        play(DEFAULT_BUNDLE, fleet.logs("v1") / "old", 9, 0, int(backlog_bytes / PACKET), "64MB,10min")
        for camera in range(cameras):
            fleet.start_camera("v1", camera, FPS, 1 << 30, segment="64MB,10min")
        fleet.start_agent("v1", link=link)
        fleet.wait_live("v1")
        time.sleep(5)
        sent, begin = link.sent, time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        used = 8 * (link.sent - sent) / took / (mbit * 1e6)
        found = fleet.status("v1")
    finally:
        fleet.close()
        link.close()
    return {
        "mbit_per_s": mbit, "seconds": seconds, "cameras": cameras, "backlog_bytes": backlog_bytes, "live_ack_ms": found["live_ack_ms"],
        "link_used": round(used, 3), "window_bytes": found["window_bytes"], "backlog_left": found["records"]["backlog"],
        "resent": found["records"]["resent"],
    }  # fmt: skip


def cut(place: Path, seconds: float, cameras: int = 4, mbit: float = 40.0) -> dict[str, Any]:
    """Two vehicles drive through a tunnel of so many seconds."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=2, ingests=2, address=broker_address())
    links = links_of(2, mbit * 1e6, fleet.broker.port)
    try:
        for name, link in zip(fleet.names, links, strict=True):
            fleet.start_agent(name, link=link)
            for camera in range(cameras):
                fleet.start_camera(name, camera, FPS, int(FPS * (seconds + 12 + 0.5 * seconds)), segment="4MB,30s")
        time.sleep(4)
        for link in links:
            link.cut()
        time.sleep(seconds)
        for link in links:
            link.mend()
        begin = time.monotonic()
        behind = 0
        while time.monotonic() < begin + 3 * seconds + 30:
            time.sleep(0.25)
            counts = [fleet.status(name).get("records", {"backlog": 1, "found": 1}) for name in fleet.names]
            behind = max(behind, sum(one["backlog"] for one in counts))
            if behind and time.monotonic() > begin + 1 and all(one["backlog"] < 2 * FPS * cameras / 10 for one in counts):
                break
        caught_up = time.monotonic() - begin
        fleet.wait_cameras()
        done = fleet.wait_stored(60)
        found = compare(fleet)
        totals = [fleet.status(name)["records"] for name in fleet.names]
    finally:
        fleet.close()
        for link in links:
            link.close()
    sums = {key: sum(one[key] for one in totals) for key in ("found", "stored", "resent", "discarded")}
    about = {"cut_s": seconds, "vehicles": 2, "cameras": cameras, "mbit_per_s": mbit}
    return {**about, "behind": behind, "caught_up_s": round(caught_up, 1), "settled": done, **sums, "archive": found}


def disk(place: Path, seconds: float, limit_mb: int, cameras: int = 4, mbit: float = 40.0) -> dict[str, Any]:
    """A tunnel that is too long for the disk. The logs' size is looked at all the time; what is given up is counted."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=1, ingests=1, address=broker_address())
    (link,) = links_of(1, mbit * 1e6, fleet.broker.port)
    frames, largest = int(FPS * (seconds + 14)), 0
    try:
        fleet.start_agent("v1", "--max-disk", f"{limit_mb}MB", link=link)
        for camera in range(cameras):
            fleet.start_camera("v1", camera, FPS, frames, segment="200kB,5s")
        fleet.wait_live("v1")
        begin = time.monotonic()
        for until, then in ((4.0, link.cut), (seconds + 4, link.mend), (math.inf, link.mend)):
            while time.monotonic() < begin + until and any(camera_.poll() is None for camera_ in fleet.cameras):
                largest = max(largest, _logs_bytes(fleet.logs("v1")))
                time.sleep(0.05)
            then()
        time.sleep(1.5)
        done = fleet.wait_stored(60)
        found = fleet.status("v1")["records"]
        archived = archived_packets(fleet)
    finally:
        fleet.close()
        link.close()
    return {
        "cut_s": seconds, "cameras": cameras, "limit_mb": limit_mb, "largest_mb": round(largest / 1e6, 2), "written": cameras * frames,
        **{key: found[key] for key in ("found", "stored", "discarded")}, "in_the_archive": archived, "settled": done,
    }  # fmt: skip


def _logs_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*.mcap"):
        with contextlib.suppress(FileNotFoundError):  # just deleted
            total += path.stat().st_size
    return total


def main() -> int:
    if sys.argv[1:2] == ["--bare"]:
        url, ca, certificate, key, cameras, seconds = sys.argv[2:]
        bare(url, ca, certificate, key, int(cameras), float(seconds))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of them (default {','.join(PARTS)})")
    parser.add_argument("--link", choices=("namespaces", "proxy"), default="namespaces", help="namespaces: where they are allowed")
    add_arguments(parser)
    args = parser.parse_args()
    if args.link == "namespaces":
        enter_depot()
    parts, short = args.parts.split(","), args.short
    result: dict[str, Any] = {
        "benchmark": "bench_uplink", "date": datetime.date.today().isoformat(), "machine": machine_info(), "versions": versions(),
        "command": "python benchmarks/bench_uplink.py" + " --short" * short, "link": "namespaces" if in_depot() else "proxy",
    }  # fmt: skip
    work_of: dict[str, Callable[[Path], Any]] = {
        "cost": lambda place: [
            cost(_new(place), cameras, 5 if short else 20, 1 if short else 5) for cameras in ((1,) if short else (1, 4))
        ],
        "narrow": lambda place: narrow(place, *((6, 18e6) if short else (40, 45e6))),
        "cut": lambda place: [cut(_new(place), seconds) for seconds in ((4,) if short else (15, 120))],
        "disk": lambda place: disk(place, *((8, 4) if short else (60, 20))),
    }
    with tempfile.TemporaryDirectory() as place:
        for part in parts:
            print(f"bench_uplink: {part}", file=sys.stderr)
            load = os.getloadavg()[0]
            found = work_of[part](_new(Path(place)))
            result[part] = {"load_average": round(load, 1), "nice": os.nice(0), "trials": found if isinstance(found, list) else [found]}
            print(result[part], file=sys.stderr)
    recorded = result_path(args, "bench_uplink", result)
    if recorded.exists() and set(parts) < set(PARTS):  # the parts that were not asked for stay as they were
        before = json.loads(recorded.read_text())
        result |= {part: before[part] for part in PARTS if part in before and part not in parts}
    write_result(args, "bench_uplink", result)
    return 0


def _new(work: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=work))


if __name__ == "__main__":
    sys.exit(main())
