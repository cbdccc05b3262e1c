"""Where does a benchmark's result go? Into build/results, into `--out DIR`, or, with `--record`, into benchmarks/results.

The tables of the pages are made from benchmarks/results, and a test compares them: only what the pages are to show belongs there.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from percodec.sdk.machine import machine_info

HERE = Path(__file__).parent
RECORDED, OWN = HERE / "results", HERE.parent / "build" / "results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--out`, `--record` and `--machine`."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, default=OWN, metavar="DIR", help="folder of the result (default: build/results)")
    place.add_argument(
        "--record", dest="out", action="store_const", const=RECORDED, help="write benchmarks/results, which the pages' tables are made from"
    )
    parser.add_argument("--machine", help="name in the result's file name (default: the processor's)")


def result_path(args: argparse.Namespace, name: str, result: dict[str, Any]) -> Path:
    """NAME-MACHINE.json; the machine's name is the processor's, with its cores where the result counts them."""
    machine = result["machine"]
    called = args.machine or machine["cpu"] + (f" {machine['cores']}c" if "cores" in machine else "")
    return Path(args.out) / f"{name}-{slug_of(called)}.json"


def write_result(args: argparse.Namespace, name: str, result: dict[str, Any]) -> Path:
    """Write it to its `result_path`."""
    path = result_path(args, name, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")
    return path


def slug_of(text: str) -> str:
    """Small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    return str(machine_info()["cpu"])


__all__ = ["OWN", "RECORDED", "add_arguments", "cpu_name", "result_path", "slug_of", "write_result"]
