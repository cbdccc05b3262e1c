"""What does the uplink cost the vehicle, and what does it make of a narrow or broken link?

cost     CPU and memory of the agent while cameras log at 30 frames/s, in turn with a bare JetStream publisher of the same bytes
narrow   live delay and use of a link of 6 Mbit/s that also carries a backlog
cut      how long it takes to catch up after a link that passed nothing

    python benchmarks/bench_uplink.py --short        seconds instead of minutes; --record as usual
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from narrow_link import NarrowLink
from record import add_arguments, write_result
from uplink_rig import Fleet, compare, cpu_seconds, play, rss_mb

from percodec.runtime.session import DEFAULT_BUNDLE
from percodec.sdk.machine import machine_info, versions

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
    """CPU of agent and of bare publisher, ms a frame and share of a core; starting up is in neither."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=1, ingests=1, flush="2")
    agent_s, bare_s = [], []
    try:
        for _ in range(rounds):
            for camera in range(cameras):
                fleet.start_camera("v1", camera, FPS, int(FPS * (seconds + 4)), segment="64MB,10min")
            time.sleep(3)
            pid = fleet.agents["v1"].pid
            before, begin = cpu_seconds(pid), time.monotonic()
            time.sleep(seconds)
            agent_s.append((cpu_seconds(pid) - before) / (time.monotonic() - begin))
            rss = rss_mb(pid)
            for camera_ in fleet.cameras:
                camera_.wait()
            who = fleet.broker.vehicles["v1"]
            words = [fleet.broker.url, who.ca, who.certificate, who.key, cameras, seconds + 4]
            other = subprocess.Popen([sys.executable, __file__, "--bare", *map(str, words)])
            time.sleep(3)
            before, begin = cpu_seconds(other.pid), time.monotonic()
            time.sleep(seconds)
            bare_s.append((cpu_seconds(other.pid) - before) / (time.monotonic() - begin))
            bare_rss = rss_mb(other.pid)
            other.wait()
    finally:
        fleet.close()
    share, plain = statistics.median(agent_s), statistics.median(bare_s)
    figures = {"agent": (share, rss), "bare": (plain, bare_rss)}
    per = {
        name: {"core_percent": round(100 * s, 2), "ms_a_frame": round(1e3 * s / FPS / cameras, 3), "rss_mb": round(m)}
        for name, (s, m) in figures.items()
    }
    return {"cameras": cameras, "fps": FPS, "packet_bytes": PACKET, "seconds": seconds, "rounds": rounds, **per}


def narrow(place: Path, seconds: float, backlog_s: float, mbit: float = 6.0, cameras: int = 1) -> dict[str, Any]:
    """Live delay beside a backlog that never ends: from the last look that did not see a record yet, to its acknowledgement."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=1, ingests=1, flush="2")
    link = NarrowLink(fleet.broker.port, mbit * 1e6)
    try:
        fleet.agents["v1"].terminate()
        fleet.agents["v1"].wait()
        play(DEFAULT_BUNDLE, fleet.logs("v1") / "old", 9, 0, int(backlog_s * mbit * 1e6 / 8 / PACKET), "64MB,10min")
        fleet.agents["v1"] = fleet.start_agent("v1", f"nats://127.0.0.1:{link.port}")
        for camera in range(cameras):
            fleet.start_camera("v1", camera, FPS, int(FPS * (seconds + 4)), segment="64MB,10min")
        time.sleep(3)
        sent, begin = link.sent, time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        used = 8 * (link.sent - sent) / took / (mbit * 1e6)
        found = fleet.status("v1")
    finally:
        fleet.close()
        link.close()
    return {
        "mbit_per_s": mbit, "seconds": seconds, "cameras": cameras, "live_ack_ms": found["live_ack_ms"], "link_used": round(used, 3),
        "window_bytes": found["window_bytes"], "backlog_left": found["records"]["backlog"], "resent": found["records"]["resent"],
    }  # fmt: skip


def cut(place: Path, seconds: float, cameras: int = 4, mbit: float = 40.0) -> dict[str, Any]:
    """Two vehicles drive through a tunnel of so many seconds."""
    fleet = Fleet(place, DEFAULT_BUNDLE, vehicles=2, ingests=2)
    links = {name: NarrowLink(fleet.broker.port, mbit * 1e6) for name in fleet.names}
    try:
        for name, link in links.items():
            fleet.agents[name].terminate()
            fleet.agents[name].wait()
            fleet.agents[name] = fleet.start_agent(name, f"nats://127.0.0.1:{link.port}")
            for camera in range(cameras):
                fleet.start_camera(name, camera, FPS, int(FPS * (seconds + 12 + 0.5 * seconds)), segment="4MB,30s")
        time.sleep(4)
        for link in links.values():
            link.cut()
        time.sleep(seconds)
        for link in links.values():
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
        for camera_ in fleet.cameras:
            camera_.wait()
        time.sleep(1.5)
        done = fleet.wait_stored(60)
        found = compare(fleet)
        totals = [fleet.status(name)["records"] for name in fleet.names]
    finally:
        fleet.close()
        for link in links.values():
            link.close()
    sums = {key: sum(one[key] for one in totals) for key in ("found", "stored", "resent", "discarded")}
    return {
        "cut_s": seconds,
        "vehicles": 2,
        "cameras": cameras,
        "caught_up_s": round(caught_up, 1),
        "settled": done,
        **sums,
        "archive": found,
    }


def main() -> int:
    if sys.argv[1:2] == ["--bare"]:
        url, ca, certificate, key, cameras, seconds = sys.argv[2:]
        bare(url, ca, certificate, key, int(cameras), float(seconds))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--parts", default="cost,narrow,cut", help="which, of cost, narrow and cut")
    add_arguments(parser)
    args = parser.parse_args()
    parts, short = args.parts.split(","), args.short
    result: dict[str, Any] = {
        "benchmark": "bench_uplink", "date": datetime.date.today().isoformat(), "machine": machine_info(), "versions": versions(),
        "command": "python benchmarks/bench_uplink.py" + " --short" * short,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for part in parts:
            print(f"bench_uplink: {part}", file=sys.stderr)
            if part == "cost":
                found: Any = [cost(_new(work), cameras, 5 if short else 20, 1 if short else 3) for cameras in ((1,) if short else (1, 4))]
            elif part == "narrow":
                found = narrow(_new(work), 6 if short else 40, 14 if short else 60)
            else:
                found = [cut(_new(work), seconds) for seconds in ((4,) if short else (15, 120))]
            result[part] = found
            print(found, file=sys.stderr)
    write_result(args, "bench_uplink", result)
    return 0


def _new(work: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=work))


if __name__ == "__main__":
    sys.exit(main())
