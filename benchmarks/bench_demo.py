"""What does `percodec demo` print on this machine? Runs it in a process of its own and keeps its report.

python benchmarks/bench_demo.py [--frames 300] [--record]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import record

COMMAND = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())", "demo"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="length of the drive (default 300)")
    record.add_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*COMMAND, "--frames", str(args.frames), "--out", folder], check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            return done.returncode
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    record.write_result(args, "bench_demo", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
