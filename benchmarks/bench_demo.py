"""What does `percodec demo` print on this machine? Runs it in a process of its own and keeps its report.

python benchmarks/bench_demo.py [--frames 300]        writes benchmarks/results/bench_demo-MACHINE.json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())", "demo"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="length of the drive (default 300)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*COMMAND, "--frames", str(args.frames), "--out", folder], check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            return done.returncode
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    machine = report["machine"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cores']}c".lower()).strip("-")
    path = Path(__file__).parent / "results" / f"bench_demo-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"wrote    {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
