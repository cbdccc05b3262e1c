"""Does kill -9 at a random moment ever lose an acknowledged frame?

Starts `percodec run`, waits for its first acknowledged frame, kills it after a random further time, then opens what is left: the log must
open, hold every frame whose JSON line says `"logged": true`, and every packet must decode to the latent named in its line.

    python benchmarks/kill_trial.py --trials 50 --bundle FOLDER        exit 1 and a line per fault if any trial fails
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.log import read_log

COMMAND = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())", "run"]
LONGEST_S = 0.6
START_TIMEOUT_S = 60.0


def trial(bundle: Path, out: Path, delay_s: float, source: str) -> tuple[int, int, list[str]]:
    """One kill. Returns (frames acknowledged, frames in the log, faults found)."""
    options = ["--bundle", str(bundle), "--out", str(out), "--no-overlay", "--no-sheet", "--no-selftest"]
    process = subprocess.Popen([*COMMAND, source, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = out / "frames.jsonl"
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (lines.exists() and lines.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            return 0, 0, [f"the run never acknowledged a frame: {process.communicate()[1].strip()}"]
        time.sleep(0.005)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    faults = [] if process.returncode == -signal.SIGKILL else [f"ended by itself with {process.returncode} before the kill"]
    return examine(bundle, out, faults)


def examine(bundle: Path, out: Path, faults: list[str]) -> tuple[int, int, list[str]]:
    """What a killed run left in `out`."""
    opened = Bundle.open(bundle)
    codec = PacketCodec(opened.entropy_model, *opened.latent_shape[1:])
    acknowledged = [json.loads(line) for line in (out / "frames.jsonl").read_bytes().split(b"\n")[:-1]]
    crcs = {}
    for record in read_log(out / "packets.mcap"):
        _, symbols = codec.decode(record.packet)
        crcs[record.frame_id] = f"{zlib.crc32(symbols):08x}"
    for line in acknowledged:
        if line["logged"] and crcs.get(line["frame_id"]) != line["latent_crc"]:
            faults.append(f"frame {line['frame_id']} was acknowledged and is {'altered' if line['frame_id'] in crcs else 'missing'}")
    return len(acknowledged), len(crcs), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--source", default="synthetic://road?frames=1000000&height=64&width=96")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    acknowledged = logged = failed = 0
    begin = time.monotonic()
    for k in range(args.trials):
        with tempfile.TemporaryDirectory() as folder:
            frames, packets, faults = trial(args.bundle, Path(folder) / "run", rng.uniform(0, LONGEST_S), args.source)
        acknowledged, logged, failed = acknowledged + frames, logged + packets, failed + bool(faults)
        for fault in faults:
            print(f"trial {k}: {fault}", file=sys.stderr)
    seconds = time.monotonic() - begin
    print(f"{args.trials} kills in {seconds:.0f} s: {acknowledged} frames acknowledged, {logged} in the logs, {failed} trials with a loss")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
