"""What do the results say? Writes the tables of README.md, LABORATORY.md, RESTORATION.md from benchmarks/results; `--check` compares.

    <!-- table NAME -->  ...  <!-- end table -->        is filled from results/NAME-*.json, one table per machine

A figure that no file holds does not get into either page.
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
    """Symbols per second next to other coders, from `bench_rans.py`."""
    rows = []
    for case in result["cases"]:
        speed, times, third = case["msymbols_per_s"], case["times_constriction"], case.get("times_compressai")
        row = [case["latent"], f"{case['packet_bytes']} ({case['ideal_bytes']:.0f})"]
        row += [f"{speed[f'percodec_{way}']:.0f} ({times[way]:.1f} x)" for way in ("encode", "decode")]
        row += [f"{case['kernels'][kernel]['encode']:.1f} / {case['kernels'][kernel]['decode']:.1f} x" for kernel in case["kernels"]]
        rows.append([*row, f"{third['encode']:.0f} / {third['decode']:.0f} x" if third else "-"])
    names = [f"{kernel}, encode / decode" for kernel in result["cases"][0]["kernels"]]
    head = ["latent", "packet (ideal), bytes", "encode, million symbols/s", "decode, million symbols/s", *names, "CompressAI's"]
    about = f"x: times the speed of constriction {result['versions']['constriction']}, and in the last column of CompressAI's rANS"
    return f"{_table(head, rows)}\n{about}. {result['machine']['cpu']}, one thread, {result['date']}: `{result['command']}`\n"


def precision(result: dict[str, Any]) -> str:
    """What each precision costs and saves on the CPU, from `bench_precision.py`."""
    rows = []
    for r in result["rows"]:
        if r["session"] == "fast":
            name = r["precision"]
            costs = [f"{100 * r['symbols_differ']:.2f} %", f"{100 * r['bpp_change']:+.2f} %", f"{r['psnr_drop']:.2f}"]
            times = [f"{result['cpu_ms_median'][name]:.1f}", f"{result['times_faster_than_fp32'][name]:.2f} x"]
            rows.append([name.upper(), f"{100 * r['miou']:.2f}", f"{round(-100 * r['miou_drop'], 2) + 0:+.2f}", *costs, *times])
    head = ["precision", "mIoU", "against FP32", "symbols that differ", "coded size", "PSNR lost, dB", "encoder + head, ms", "speed"]
    machine, calibration = result["machine"], result["calibration"]
    about = (
        f"ONNX Runtime on {machine['cpu']}, one thread, CPU time, medians of alternating runs; ranges from {calibration['frames']} frames"
    )
    return f"{_table(head, rows)}\n{about} of {calibration['data']}; {result['date']}: `{result['command']}`\n"


POINTS = ("0.635", "0.330", "0.0983")


def contexts(result: dict[str, Any]) -> str:
    """What entropy tables by neighbours save and cost, from `bench_contexts.py`."""
    rows = []
    for case in result["cases"]:
        sizes = [f"{s['bpp']['order0']:.3f} -> {s['bpp']['contexts']:.3f} (-{100 * s['saved']:.1f} %)" for s in case["sets"].values()]
        speed = case["speed_of_order0"]
        rows.append([case["bundle"], *sizes, f"{speed['encode']:.2f} x", f"{speed['decode']:.2f} x"])
    head = ["bundle", *(f"{name}, bpp" for name in result["cases"][0]["sets"]), "encode, of order 0's speed", "decode"]
    return f"{_table(head, rows)}\n{result['machine']['cpu']}, one thread, {result['date']}: `{result['command']}`\n"


def encoders(result: dict[str, Any]) -> str:
    """What an encoder costs on a 1080p picture and gives for it, from `bench_encoders.py`."""
    rows = []
    for row in result["rows"]:
        found = []
        for s in row["sets"].values():
            others = (f"{s['others'][c]['ms_ssim']:.3f}" if s["others"][c]["ms_ssim"] else "-" for c in ("jpeg", "webp", "avif"))
            found += [f"{s['bpp']:.3f}", f"**{s['ms_ssim']:.3f}** ({', '.join(others)})"]
        cost = f"{row['cpu_ms']:.1f} ({row['times_jpeg']:.2f} x)"
        rows.append([row["bundle"], f"{row['encoder']}, {row['kmac_per_pixel']:.2f}", cost, *found])
    sets = [h for name in result["rows"][0]["sets"] for h in (f"{name.replace('_', ' ')}, bpp", "MS-SSIM (JPEG, WebP, AVIF at that rate)")]
    head = ["bundle", "encoder, kMAC/pixel", "1080p picture to packet, ms (of JPEG's)", *sets]
    about = f"INT8, one thread, CPU time; JPEG: libjpeg-turbo, quality 80, {result['jpeg_q80_cpu_ms']:.1f} ms"
    return f"{_table(head, rows)}\n{about}. {result['machine']['cpu']}, {result['date']}: `{result['command']}`\n"


def video(result: dict[str, Any]) -> str:
    """What predicted packets save and cost, from `bench_video.py`."""
    rows = []
    for case in result["cases"]:
        size, saved, speed = case["bytes_per_frame"], case["saved"], case["speed_of_intra"]
        row = [case["bundle"], f"{size['intra']:.0f}", f"{size['stream']:.0f}"]
        row += [f"-{100 * saved[k]:.1f} %" for k in ("intra", "intra on the clip")]
        rows.append([*row, f"{speed['encode']:.2f} x", f"{speed['decode']:.2f} x"])
    head = ["bundle", "intra, bytes a frame", "stream", "saved", "of contexts learned on the clip", "encode, of intra's speed", "decode"]
    facts = (
        f"`{result['video']}`, a key packet every {result['key_every']} frames; {result['machine']['cpu']}, one thread, {result['date']}"
    )
    return f"{_table(head, rows)}\n{facts}: `{result['command']}`\n"


def lab_rd(result: dict[str, Any]) -> str:
    """Our three operating points and the other codecs at the same measured rate."""
    names = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000", "webp": "WebP", "avif": "AVIF", "hevc": "HEVC intra"}
    rows = []
    for line in result["comparisons"]:
        ours = f"**{line['ms_ssim']:.4f} / {line['psnr_db']:.2f}**"
        rows.append([line["point"], f"{line['bpp']:.4f}", ours, *(_pair(line[codec]) for codec in names)])
    head = ["point", "bpp, whole packets", "percodec, MS-SSIM / PSNR", *names.values()]
    about = f"{result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}: `{result['command']}`"
    return f"{_table(head, rows)}\n{about}. A dash: the codec has no file that small.\n"


def _pair(found: dict[str, Any]) -> str:
    return "-" if found["ms_ssim"] is None else f"{found['ms_ssim']:.4f} / {found['psnr_db']:.2f}"


def lab_segmentation(result: dict[str, Any]) -> str:
    return _cells(result, "miou")


def lab_classification(result: dict[str, Any]) -> str:
    return _cells(result, "map")


def _cells(result: dict[str, Any], metric: str) -> str:
    """One line per network and input, one column per operating point: every seed's figure, and the mean drop against original RGB."""
    rows, found = [], {}
    for row in result["rows"]:
        found.setdefault((row["network"], row["trained_on"], row["input"]), {}).setdefault(row["point"], []).append(row)
    bpp = {p: next(r["bpp"] for r in result["rows"] if r["point"] == p and "bpp" in r) for p in POINTS}
    for (network, trained, shown), cells in sorted(found.items(), key=lambda item: (item[0][1] == "original", item[0][2] != item[0][1])):
        line = [network, trained, shown]
        if "" in cells:
            line += [_scores(cells[""], metric, False)] + [""] * (len(POINTS) - 1)
        else:
            line += [_scores(cells.get(p, []), metric, True) for p in POINTS]
        rows.append(line)
    head = ["network", "trained on", "shown", *(f"{p} ({bpp[p]:.3f} bpp)" for p in POINTS)]
    return (
        f"{_table(head, rows)}\n{result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}: `{result['command']}`\n"
    )


def _scores(rows: list[dict[str, Any]], metric: str, drop: bool) -> str:
    if not rows:
        return "-"
    text = " / ".join(f"{100 * r[metric]:.1f}" for r in sorted(rows, key=lambda r: int(r["seed"])))
    drops = [r["drop"] for r in rows if r["drop"] is not None]
    return f"{text} ({-100 * sum(drops) / len(drops):+.1f})" if drop and drops else text


def lab_joint(result: dict[str, Any]) -> str:
    """Before, control and joint, per seed."""
    role = {
        "before": "before: codec as trained, head on it",
        "control": "control: codec finetuned alone, new head on it",
        "joint": "joint: both finetuned together",
    }
    rows = []
    for r in sorted(result["rows"], key=lambda r: (r["distortion"], r["seed"], list(role).index(r["role"]))):
        figures = [f"{r['bpp_coded']:.4f}", f"{r['psnr_db']:.2f}", f"{r['ms_ssim']:.4f}", f"{100 * r['miou']:.2f}"]
        rows.append([r["distortion"] or "-", r["seed"], role[r["role"]], *figures])
    head = ["distortion", "seed", "run", "bpp, whole packets", "PSNR, dB", "MS-SSIM", "mIoU"]
    return (
        f"{_table(head, rows)}\n{result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}: `{result['command']}`\n"
    )


def lab_runs(result: dict[str, Any]) -> str:
    """The codecs' training: how long, how many crops, and whether the curve still rises."""
    rows = []
    for r in result["rows"]:
        if r["task"] == "codec":
            last = [f"{float(v['ms_ssim']):.4f} / {float(v['psnr']):.2f} ({v['step']})" for v in r["val"][-3:]]
            rows.append([r["run"], r["steps"], r["crops"], r["crop"], f"{r['minutes']:.0f}", " -> ".join(last)])
    head = ["run", "steps", "crops", "crop side", "minutes", "MS-SSIM / PSNR on CamVid val (step)"]
    machine = result["machine"]
    return f"{_table(head, rows)}\n{machine['cpu']}, {machine['cores']} cores, no GPU; {result['date']}.\n"


def lab_storage(result: dict[str, Any]) -> str:
    rows = []
    for r in result["rows"]:
        figures = [
            f"{r['ratio']:.1f}",
            f"{r['gb_of_total']:.1f}",
            f"{r['bpp']:.3f}",
            f"{r['mb_per_minute']:.1f}",
            f"{r['kbit_per_s']:,.0f}",
        ]
        rows.append([r["stored_as"], *figures])
    head = ["stored as", "times smaller", "of 144 GB, GB", "bpp", "MB/min per camera", "kbit/s per camera"]
    about = f"{result['data']['pictures']} {result['data']['name']}; a camera of 1920x1080 at 10 frames/s, {result['date']}"
    return f"{_table(head, rows)}\n{about}: `{result['command']}`\n"


def lab_compute(result: dict[str, Any]) -> str:
    rows = [
        [r["network"], f"{r['gmac']:.3f}", f"{r['kmac_per_pixel']:.1f}", f"{r['parameters']:,}", f"{r['cpu_ms']:.0f}"]
        for r in result["rows"]
    ]
    head = ["network, full width", "GMAC", "kMAC/pixel", "parameters", "ms"]
    about = f"{result['data']['name']}; {result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}"
    return f"{_table(head, rows)}\n{about}: `{result['command']}`\n"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def runtime(result: dict[str, Any]) -> str:
    """percodec beside bare ONNX Runtime, from `bench_runtime.py`."""
    rows = [
        [f"a call beyond ONNX Runtime's own I/O binding, {name}", f"{found['overhead_us']:.1f} us on {found['bare_us']:.0f} us"]
        for name, found in result["overhead"].items()
    ]
    flow, memory = result["throughput"], result["memory"]
    rows.append(
        ["frames per second against 1 / slowest stage", f"{flow['efficiency']:.2f} ({flow['fps']:.1f} /s, {flow['slowest_stage']})"]
    )
    rows.append([f"growth of resident memory over {memory['frames']} frames", f"{memory['growth_bytes_per_frame']:.1f} bytes per frame"])
    rows.append(["CPU of a pipeline that waits for its camera", f"{result['idle']['cpu_percent']:.2f} % of a core"])
    command = f"{result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}: `{result['command']}`"
    return f"{_table(['what', 'measured'], rows)}\n{command}\n"


def profile_paths(result: dict[str, Any]) -> str:
    """The paths side by side of a `percodec profile --backends ...,decode-first,rgb`."""
    found, rows = result["paths"], []
    for name, path in found["paths"].items():
        steps = ", ".join(f"{step} {f['p50']:.1f}" for step, f in path["steps_ms"].items() if f["p50"] >= 0.05)
        rows.append(
            [name, path["precision"], f"{path['total_ms']['p50']:.1f}", f"{path['cpu_ms_per_frame']:.1f}", f"{path['ratio']:.2f}", steps]
        )
    head = ["path", "precision", "ms, median", "CPU ms", "ratio", "steps, ms"]
    machine = f"{result['machine']['cpu']}, one thread per network, {found['frames']} frames in turn, {result['date'][:10]}"
    return f"{_table(head, rows)}\n`{result['bundle']['name']}`; RGB network `{found['rgb']}`; {machine}.\n"


def restoration(result: dict[str, Any]) -> str:
    """The matrix: mIoU of each pair of letters, means over seeds, seeds behind them where there are several."""
    cells, rows = result["cells"], []

    def cell(codec: str | None, matrix: str, method: str | None = None) -> str:
        found = [100 * c["miou"] for c in cells if (c["codec"], c["matrix"]) == (codec, matrix) and method in (None, c["method"])]
        if not found:
            return ""
        mean = f"{sum(found) / len(found):.1f}"
        return mean if len(found) == 1 else f"{mean} ({' / '.join(f'{v:.1f}' for v in found)})"

    for r in result["rows"]:
        if r.get("method") == "restored":
            split = [f"{100 * r['information']:+.1f}", f"{100 * r['shift']:+.1f}"]
            letters = [cell(r["codec"], m) for m in ("CC", "OC", "CO")] + [cell(r["codec"], m, "restored") for m in ("RO", "RR")]
            rows.append([r["codec"], f"{r['bpp']:.3f}", *letters, cell(r["codec"], "OR"), *split, f"{100 * r['gap_closed']:.0f} %"])
    head = ["codec", "bpp", "CC", "OC", "CO", "RO", "RR", "OR", "information lost", "lost by shift", "of CO to OO brought back"]
    facts = f"OO {cell(None, 'OO')}. {result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}"
    return f"{_table(head, rows)}\n{facts}: `{result['command']}`\n"


def restoration_methods(result: dict[str, Any]) -> str:
    """Every remedy at each codec's lowest rate: mIoU on originals, on what the fleet sends, and how much of the gap came back."""
    rows, seen = [], set()
    for r in result["rows"]:
        if r.get("method") not in (None, "restored"):
            seen.add(r["codec"])
    for r in result["rows"]:
        if r["codec"] in seen:
            own, seeds = "" if r["to_own"] is None else f"{100 * r['to_own']:.1f}", ", ".join(str(s) for s in r["of_seeds"])
            change = f"{100 * (r['to_original'] - r['nothing_done']):+.1f}"
            if not any(line[0] == r["codec"] for line in rows):
                rows.append([r["codec"], "compressed (nothing done)", "1, 2", f"{100 * r['CO']:.1f}", "", f"{100 * r['CC']:.1f}", "0 %"])
            rows.append([r["codec"], r["method"], seeds, f"{100 * r['to_original']:.1f}", change, own, f"{100 * r['gap_closed']:.0f} %"])
    head = ["codec", "trained on", "seeds", "on originals", "of the same seeds' CO", "on its own kind", "of CO to OO brought back"]
    return f"{_table(head, rows)}\n"


def restorers(result: dict[str, Any]) -> str:
    """What each restorer is and took, and PSNR, which nothing was chosen by."""
    rows = []
    for r in result["restorers"]:
        config = r["config"]["restorer"]
        terms = ", ".join(f"{config[k]:g} {k}" for k in ("l1", "features", "adversarial", "task") if config[k])
        figures = [f"{r['steps']:,}", f"{r['minutes']:.0f}", f"{r['psnr_db']:.2f}", f"{r['ms_ssim']:.4f}"]
        rows.append([r["restorer"], config["network"], terms, *figures])
    return f"{_table(['restorer', 'network', 'loss', 'steps', 'minutes', 'PSNR, dB', 'MS-SSIM'], rows)}\n"


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "bench_demo": demo,
    "bench_bundle": bundle,
    "bench_pipeline": pipeline,
    "bench_rans": rans,
    "bench_contexts": contexts,
    "bench_video": video,
    "bench_encoders": encoders,
    "bench_precision": precision,
    "bench_runtime": runtime,
    "profile_paths": profile_paths,
    "lab_rd_kodak": lab_rd,
    "lab_rd_camvid_val": lab_rd,
    "lab_segmentation": lab_segmentation,
    "lab_classification": lab_classification,
    "lab_joint": lab_joint,
    "lab_runs": lab_runs,
    "lab_storage": lab_storage,
    "lab_compute": lab_compute,
    "restoration": restoration,
    "restoration_hyperprior": restoration,
    "restoration_methods": restoration_methods,
    "restorers": restorers,
}


FILES = {"restoration_methods": "restoration", "restorers": "restoration"}  # tables of a file that has another's name


def filled(text: str, results: Path) -> str:
    """`text` with every region rendered anew; a region without a result becomes empty."""

    def render(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in RENDERERS:
            raise SystemExit(f"no table is called {name!r}; there are {', '.join(RENDERERS)}")
        found = sorted(results.glob(f"{FILES.get(name, name)}-*.json"))
        body = "\n".join(RENDERERS[name](json.loads(path.read_text(encoding="utf-8"))) for path in found)
        return f"{match[1]}{body}{match[4]}"

    return REGION.sub(render, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the README is not what the results say")
    args = parser.parse_args()
    stale = False
    for page in (ROOT / "README.md", ROOT / "benchmarks" / "LABORATORY.md", ROOT / "benchmarks" / "RESTORATION.md"):
        before = page.read_text(encoding="utf-8")
        after = filled(before, ROOT / "benchmarks" / "results")
        if before == after:
            continue
        stale = True
        if args.check:
            print(f"{page.name}: the tables are not those of benchmarks/results; run: python benchmarks/tables.py", file=sys.stderr)
        else:
            page.write_text(after, encoding="utf-8")
            print(f"{page.name}: tables refreshed")
    return int(args.check and stale)


if __name__ == "__main__":
    raise SystemExit(main())
