"""What do the results say? Writes the README's tables from the JSON files in benchmarks/results; `--check` only compares.

    <!-- table NAME -->  ...  <!-- end table -->        is filled from results/NAME-*.json, one table per machine

A figure that no file holds does not get into the README.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REGION = re.compile(r"(<!-- table (?P<name>[a-z_]+) -->\n)(?P<body>.*?)(<!-- end table -->)", re.DOTALL)


def demo(result: dict[str, Any]) -> str:
    """The table `percodec demo` prints, from `bench_demo.py`."""
    from percodec.runtime.report import render_table

    return f"```text\n{render_table(result).rstrip()}\n```\n"


def bundle(result: dict[str, Any]) -> str:
    """Rate, reconstruction and segmentation on real pictures, from `bench_bundle.py`."""
    found = result["result"]
    row = [found["pictures"], f"{found['bpp_coded']:.3f}", f"{found['packet_bytes_mean'] / 1000:.2f}"]
    row += [f"{found['psnr_db']:.2f}", f"{found['ms_ssim']:.3f}", f"{100 * found['miou']:.1f}"]
    table = _table(["pictures", "coded, bpp", "packet, kB", "PSNR, dB", "MS-SSIM", "mIoU, 11 classes"], [row])
    return f"{table}\nBundle `{result['bundle']['name']}` {result['bundle']['digest'][:12]}, {result['date']}: `{result['command']}`\n"


def pipeline(result: dict[str, Any]) -> str:
    """Frames per second from memory, from `bench_pipeline.py`."""
    rows = []
    for workers, runs in result["workers"].items():
        last = runs["last"]
        stages = [f"{last['stages_ms'][stage]['p50']:.2f}" for stage in ("encode", "predict", "code")]
        rows.append([workers, f"{runs['fps_median']:.1f}", *stages, f"{last['rate']['bpp']:.3f}", f"{result['peak_rss_mb']:.0f}"])
    head = ["workers", "frames/s", "encode, ms", "predict, ms", "code, ms", "bpp", "peak RSS, MB"]
    machine, frame = result["machine"], result["bundle"]["frame"]
    return f"{_table(head, rows)}\n{machine['cpu']}, {machine['cores']} cores; {frame[1]}x{frame[0]}, stages as medians.\n"


def rans(result: dict[str, Any]) -> str:
    """Symbols per second next to constriction, from `bench_rans.py`."""
    rows = []
    for case in result["cases"]:
        speed, times = case["msymbols_per_s"], case["times_constriction"]
        row = [case["latent"], f"{case['packet_bytes']} ({case['ideal_bytes']:.0f})"]
        row += [f"{speed[f'percodec_{way}']:.0f} ({times[way]:.1f} x constriction)" for way in ("encode", "decode")]
        rows.append(row)
    head = ["latent", "packet (ideal), bytes", "encode, million symbols/s", "decode, million symbols/s"]
    versions = f"constriction {result['versions']['constriction']}, {result['date']}"
    return f"{_table(head, rows)}\n{result['machine']['cpu']}, one thread; {versions}: `{result['command']}`\n"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "bench_demo": demo,
    "bench_bundle": bundle,
    "bench_pipeline": pipeline,
    "bench_rans": rans,
}


def filled(text: str, results: Path) -> str:
    """`text` with every region rendered anew; a region without a result becomes empty."""

    def render(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in RENDERERS:
            raise SystemExit(f"README.md: no table is called {name!r}; there are {', '.join(RENDERERS)}")
        found = sorted(results.glob(f"{name}-*.json"))
        body = "\n".join(RENDERERS[name](json.loads(path.read_text(encoding="utf-8"))) for path in found)
        return f"{match[1]}{body}{match[4]}"

    return REGION.sub(render, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the README is not what the results say")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = filled(before, ROOT / "benchmarks" / "results")
    if args.check:
        if before != after:
            print("README.md: the tables are not those of benchmarks/results; run: python benchmarks/tables.py", file=sys.stderr)
        return int(before != after)
    if before != after:
        readme.write_text(after, encoding="utf-8")
        print("README.md: tables refreshed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
