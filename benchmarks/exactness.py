"""Do all kernels, compilers and processors at hand write and read the same bytes?

    python benchmarks/exactness.py [--symbols 100000000] [--seed 1] [--jobs 2] [--record]

tests/native/test_exactness.cpp, built by every compiler found, plain, optimised and with the sanitizers, and for 64-bit Arm where its
compiler and qemu-user are installed. Each build codes the same random tables, shapes, lanes and symbols by every kernel of its processor;
a kernel whose bytes or symbols differ ends it, and all builds must come to one checksum of all packets.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import record
from bench_rans import KERNELS

HERE = Path(__file__).parent
ROOT = HERE.parent
FLAGS = {"-O0": ["-O0"], "-O3": ["-O3"], "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]}
ARM = "aarch64-linux-gnu-g++"


def compilers() -> dict[str, list[str]]:
    found = [c for c in ("g++", "clang++", *(f"clang++-{v}" for v in range(21, 12, -1))) if shutil.which(c)]
    builds = {f"{c} {name}": [c, *flags] for c in found for name, flags in FLAGS.items()}
    if shutil.which(ARM) and shutil.which("qemu-aarch64"):
        builds[f"{ARM} -O3, qemu"] = [ARM, "-O3", "-static"]
    return builds


def build(words: list[str], out: Path) -> None:
    native = ROOT / "sdk" / "native"
    sources = [*sorted((native / "src").glob("*.cpp")), ROOT / "tests" / "native" / "test_exactness.cpp"]
    command = [*words, "-std=c++17", f"-I{native / 'include'}", *map(str, sources), "-o", str(out)]
    subprocess.run(command, check=True)


def measure(name: str, words: list[str], folder: Path, symbols: int, seed: int) -> dict[str, Any]:
    program = folder / name.replace(" ", "_").replace(",", "")
    build(words, program)
    began = time.monotonic()
    run = ["qemu-aarch64"] if words[0] == ARM else []
    arguments = [str(program), str(ROOT / "tests" / "conformance" / "packets"), str(symbols), str(seed)]
    done = subprocess.run([*run, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    row = {"build": name, "said": done.stdout.strip(), "seconds": round(time.monotonic() - began, 1)}
    print(f"{row['build']}: {row['said']}, {row['seconds']} s", flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=100_000_000, help="per build and kernel (default 10^8)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="builds run at a time (default 2)")
    record.add_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(measure, n, w, Path(folder), args.symbols, args.seed) for n, w in compilers().items()]
        rows = [job.result() for job in jobs]
    said = {row["said"] for row in rows}
    result = {
        "benchmark": "exactness",
        "command": f"python benchmarks/exactness.py --symbols {args.symbols}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": {"cpu": record.cpu_name(), "kernels": [k.name.lower() for k in KERNELS]},
        "builds": rows,
        "differing_bytes": 0 if len(said) == 1 else None,
    }
    if len(said) > 1:
        raise SystemExit("the builds do not agree:\n" + "\n".join(sorted(said)))
    print(f"{len(rows)} builds, {said.pop()}, no byte differs")
    record.write_result(args, "exactness", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
