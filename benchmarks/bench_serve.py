"""What does serving cost over the bare loop, and does a good client notice bad ones?

groups   packets of a request in groups of 16, and alone, in turn with a loop that unpacks, predicts and counts the same packets itself:
         CPU of the server a frame, over the loop's
ray      the same of `--engine ray` with one worker, the CPU of all its processes; and what they take while nobody asks, which is part of it
bad      delays of a client that asks well, in turn with and without clients that send what is refused

    python benchmarks/bench_serve.py --rounds 3 --frames 64 --ray        --record as usual
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from record import add_arguments, write_result

from percodec.runtime import Session
from percodec.runtime.serve.messages import message
from percodec.runtime.serve.requests import bytes_of
from percodec.sdk.machine import machine_info, versions

GROUP = 16
PERCODEC = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class Serving:
    """`percodec serve` of the built-in bundle, one worker."""

    def __init__(self, *more: str) -> None:
        words = ["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json", "--no-selftest", *more]
        self.process = subprocess.Popen([*PERCODEC, *words], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.http, (self.name,) = said["http"], said["models"]
        self.channel = grpc.insecure_channel(said["grpc"])
        self._call = self.channel.unary_unary(METHOD)

    def ask(self, packets: list[bytes]) -> None:
        request = message("ModelInferRequest")(model_name=self.name)
        request.inputs.add(name="packet", datatype="BYTES", shape=[len(packets)])
        request.raw_input_contents.append(bytes_of(packets))
        self._call(request.SerializeToString(), timeout=120)

    def post(self, packet: bytes) -> int:
        host, _, port = self.http.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("POST", f"/v1/predict/{self.name}", packet)
        status = connection.getresponse().status
        connection.close()
        return status

    def cpu_s(self) -> float:
        return sum(map(cpu_seconds, tree(self.process.pid)))

    def close(self) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, and of its children that have ended; 0 where it has ended itself."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> set[int]:
    """A process and all below it."""
    words = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split()[2:]
    pairs = {int(child): int(parent) for child, parent in zip(words[::2], words[1::2], strict=True)}
    found, new = {pid}, {pid}
    while new:
        new = {child for child, parent in pairs.items() if parent in new} - found
        found |= new
    return found


def groups(server: Serving, session: Session, packets: list[bytes], rounds: int) -> dict[str, Any]:
    """Medians over rounds of CPU a frame, in ms, and of its ratio to the bare loop of the same round."""

    def bare() -> float:
        begin = time.process_time()
        for packet in packets:
            np.bincount(session.predict(session.unpack(packet)).labels.reshape(-1), minlength=256)
        return time.process_time() - begin

    def served(call: Any) -> float:
        begin = server.cpu_s()
        call()
        return server.cpu_s() - begin

    ways: dict[str, Any] = {
        "group": lambda: [server.ask(packets[k : k + GROUP]) for k in range(0, len(packets), GROUP)],
        "single_grpc": lambda: [server.ask([packet]) for packet in packets],
        "single_http": lambda: [server.post(packet) for packet in packets],
    }
    found: dict[str, list[float]] = {name: [] for name in ("bare", *ways)}
    for number in range(rounds + 1):  # the first warms up
        seconds = {"bare": bare()} | {name: served(call) for name, call in ways.items()}
        for name, value in seconds.items():
            if number:
                found[name].append(1000 * value / len(packets))
    ratios = {name: [a / b for a, b in zip(found[name], found["bare"], strict=True)] for name in ways}
    return {
        "cpu_ms": {name: round(statistics.median(values), 3) for name, values in found.items()},
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "ratio_range": {name: [round(min(values), 3), round(max(values), 3)] for name, values in ratios.items()},
    }


def idle(server: Serving, seconds: float = 20.0) -> dict[str, float]:
    """Share of a core that each process takes while nobody asks."""
    begin, before = time.monotonic(), {pid: cpu_seconds(pid) for pid in tree(server.process.pid)}
    time.sleep(seconds)
    passed, found = time.monotonic() - begin, {}
    for pid in before.keys() & tree(server.process.pid):
        name = "front" if pid == server.process.pid else name_of(pid)
        found[name] = found.get(name, 0.0) + (cpu_seconds(pid) - before[pid]) / passed
    return {name: round(share, 4) for name, share in sorted(found.items(), key=lambda item: -item[1])}


def name_of(pid: int) -> str:
    """`ray::ServeReplica`, `raylet`, `log_monitor.py`: of a process that Ray started."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    script = next((word for word in words[1:] if word.endswith(".py")), words[0])
    return re.findall(r"ray::\w+|[^/]+$", script.split()[0])[0]


def bad(server: Serving, packet: bytes, rounds: int, requests: int) -> dict[str, Any]:
    """Delays of the good client, ms. Two bad clients send ten requests a second each, of six kinds in turn."""
    host, _, port = server.http.rpartition(":")
    infer = f"/v2/models/{server.name}/infer"
    predict = f"/v1/predict/{server.name}"
    kinds = [
        (predict, packet[:-1]), (predict, packet[:100] + b"x" + packet[101:]), (predict, bytes(5 << 20)), ("/v1/predict/none", packet),
        (infer, b"{"), (infer, b"[" * 100_000),
    ]  # fmt: skip
    stop, sent, odd = threading.Event(), [0], [0]

    def misbehave() -> None:
        while not stop.is_set():
            path, body = kinds[sent[0] % len(kinds)]
            sent[0] += 1
            try:
                connection = http.client.HTTPConnection(host, int(port), timeout=60)
                connection.request("POST", path, body)
                odd[0] += connection.getresponse().status not in (400, 404, 413)
                connection.close()
            except OSError:
                pass  # it did not even read on
            stop.wait(0.1)

    def delays() -> list[float]:
        found = []
        for _ in range(requests):
            begin = time.monotonic()
            server.ask([packet])
            found.append(1000 * (time.monotonic() - begin))
        return found

    alone: list[list[float]] = []
    beside: list[list[float]] = []
    for _ in range(rounds):
        alone.append(delays())
        stop.clear()
        threads = [threading.Thread(target=misbehave) for _ in range(2)]
        for thread in threads:
            thread.start()
        beside.append(delays())
        stop.set()
        for thread in threads:
            thread.join()
    p99 = {name: float(np.percentile(np.concatenate(values), 99)) for name, values in (("alone", alone), ("beside", beside))}
    p50 = {name: float(np.percentile(np.concatenate(values), 50)) for name, values in (("alone", alone), ("beside", beside))}
    return {
        "p50_ms": {k: round(v, 1) for k, v in p50.items()}, "p99_ms": {k: round(v, 1) for k, v in p99.items()},
        "p99_ratio": round(p99["beside"] / p99["alone"], 2), "bad_requests": sent[0], "answered_as_good": odd[0],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--ray", action="store_true", help="also on Ray (extra ray)")
    parser.add_argument("--requests", type=int, default=150, help="of the good client, a round and way")
    add_arguments(parser)
    args = parser.parse_args()
    begin = os.getloadavg()[0]
    with Session.open(selftest=False) as session:
        frames = session.bundle.selftest().frames
        packets = [session.pack(session.encode(np.roll(frames[k % len(frames)], 8 * k, axis=1))) for k in range(args.frames)]
        server = Serving("--workers", "1")
        try:
            found = {
                "groups": groups(server, session, packets, args.rounds),
                "bad_clients": bad(server, packets[0], args.rounds, args.requests),
            }
        finally:
            server.close()
        if args.ray:
            server = Serving("--engine", "ray")
            try:
                found["ray"] = groups(server, session, packets, args.rounds)
                by_process = idle(server)
                found["ray"] |= {"idle_cores": round(sum(by_process.values()), 3), "idle_cores_by_process": by_process}
            finally:
                server.close()
    about = {"frames": args.frames, "rounds": args.rounds, "group": GROUP}
    load = {"before": round(begin, 1), "after": round(os.getloadavg()[0], 1)}
    note = "The machine was shared with other work, so that only ratios count." if max(load.values()) > 1.5 else ""
    result = {
        "benchmark": "bench_serve", "command": " ".join(["python", "benchmarks/bench_serve.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(), "machine": machine_info(), "versions": versions(), "load": load, "note": note,
        **about, **found,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    write_result(args, "bench_serve", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
