"""The tables of LABORATORY.md and RESTORATION.md, one function per kind of result; `tables.py` puts them into the pages."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

POINTS = ("0.635", "0.330", "0.0983")


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def lab_rd(result: dict[str, Any]) -> str:
    """Our three operating points and the other codecs at the same measured rate."""
    names = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000", "webp": "WebP", "avif": "AVIF", "hevc": "HEVC intra"}
    rows = []
    for line in result["comparisons"]:
        ours = f"**{line['ms_ssim']:.4f} / {line['psnr_db']:.2f}**"
        rows.append([line["point"], f"{line['bpp']:.4f}", ours, *(_pair(line[codec]) for codec in names)])
    head = ["point", "bpp, whole packets", "percodec, MS-SSIM / PSNR", *names.values()]
    about = f"{result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}: `{result['command']}`"
    return f"{table(head, rows)}\n{about}. A dash: the codec has no file that small.\n"


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
        f"{table(head, rows)}\n{result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}: `{result['command']}`\n"
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
        f"{table(head, rows)}\n{result['data']['name']}, {result['data']['pictures']} pictures, {result['date']}: `{result['command']}`\n"
    )


def lab_joint_gain(result: dict[str, Any]) -> str:
    """Joint minus control, per round and seed, and how many seeds show the paper's gain: mIoU and MS-SSIM up at the rate."""
    found: dict[str, dict[int, dict[str, dict[str, Any]]]] = {}
    for r in result["rows"]:
        found.setdefault(r["distortion"], {}).setdefault(r["seed"], {})[r["role"]] = r
    rows = []
    for name, seeds in sorted(found.items()):
        pairs = [(s["control"], s["joint"]) for _, s in sorted(seeds.items()) if {"control", "joint"} <= s.keys()]
        if not pairs:
            continue
        rate = [100 * (joint["bpp_coded"] / control["bpp_coded"] - 1) for control, joint in pairs]
        gain = {key: [joint[key] - control[key] for control, joint in pairs] for key in ("psnr_db", "ms_ssim", "ssim", "miou")}
        shown = sum(m > 0 and s > 0 and r <= 0.5 for m, s, r in zip(gain["miou"], gain["ms_ssim"], rate, strict=True))
        forms = ((rate, "+.1f"), (gain["psnr_db"], "+.2f"), (gain["ms_ssim"], "+.4f"), (gain["ssim"], "+.4f"))
        cells = [" / ".join(format(value, form) for value in values) for values, form in forms]
        rows.append([name, *cells, " / ".join(f"{100 * value:+.1f}" for value in gain["miou"]), f"{shown} of {len(pairs)}"])
    head = ["round", "bits, %", "PSNR, dB", "MS-SSIM", "SSIM", "mIoU", "seeds that gain in both"]
    return f"{table(head, rows)}\n{result['data']['name']}, {result['machine']['cpu']}, {result['date']}: `{result['command']}`\n"


def lab_runs(result: dict[str, Any]) -> str:
    """The codecs' training: how long, how many crops, and whether the curve still rises."""
    rows = []
    for r in result["rows"]:
        if r["task"] == "codec":
            last = [f"{float(v['ms_ssim']):.4f} / {float(v['psnr']):.2f} ({v['step']})" for v in r["val"][-3:]]
            rows.append([r["run"], r["steps"], r["crops"], r["crop"], f"{r['minutes']:.0f}", " -> ".join(last)])
    head = ["run", "steps", "crops", "crop side", "minutes", "MS-SSIM / PSNR on CamVid val (step)"]
    machine = result["machine"]
    return f"{table(head, rows)}\n{machine['cpu']}, {machine['cores']} cores, no GPU; {result['date']}.\n"


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
    return f"{table(head, rows)}\n{about}: `{result['command']}`\n"


def lab_compute(result: dict[str, Any]) -> str:
    rows = [
        [r["network"], f"{r['gmac']:.3f}", f"{r['kmac_per_pixel']:.1f}", f"{r['parameters']:,}", f"{r['cpu_ms']:.0f}"]
        for r in result["rows"]
    ]
    head = ["network, full width", "GMAC", "kMAC/pixel", "parameters", "ms"]
    about = f"{result['data']['name']}; {result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}"
    return f"{table(head, rows)}\n{about}: `{result['command']}`\n"


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
    return f"{table(head, rows)}\n{facts}: `{result['command']}`\n"


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
    return f"{table(head, rows)}\n"


def restorers(result: dict[str, Any]) -> str:
    """What each restorer is and took, and PSNR, which nothing was chosen by."""
    rows = []
    for r in result["restorers"]:
        config = r["config"]["restorer"]
        terms = ", ".join(f"{config[k]:g} {k}" for k in ("l1", "features", "adversarial", "task") if config[k])
        figures = [f"{r['steps']:,}", f"{r['minutes']:.0f}", f"{r['psnr_db']:.2f}", f"{r['ms_ssim']:.4f}"]
        rows.append([r["restorer"], config["network"], terms, *figures])
    return f"{table(['restorer', 'network', 'loss', 'steps', 'minutes', 'PSNR, dB', 'MS-SSIM'], rows)}\n"


def left_out(result: dict[str, Any]) -> str:
    """Rows of `percodec evaluate segmentation --protocol leave-one-drive-out`, from `left_out.py`."""
    drives = sorted(key.removeprefix("miou ") for key in result["rows"][0] if key.startswith("miou "))

    def points(text: str) -> str:
        return " to ".join(f"{100 * float(part):.1f}" for part in text.split(" to "))

    rows = [
        [
            row["network"], row["input"], "-" if row["bpp"] is None else f"{row['bpp']:.3f}", f"{100 * row['miou']:.1f}",
            points(row["interval"]), *(f"{100 * row[f'miou {d}']:.1f}" for d in drives),
            f"{100 * row['latent_lead']:+.1f} ({points(row['lead_interval'])})" if "latent_lead" in row else "",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["network", "shown", "bpp", "mIoU, mean of drives", "95 %", *(f"{d} left out" for d in drives), "the latent's lead"]
    about = f"{result['data']['pictures']} pictures, {result['steps']} steps, one seed, {result['date']}: `{result['command']}`"
    return f"{table(head, rows)}\n{about}\n"


def recipes(result: dict[str, Any]) -> str:
    """Ways of training one head, each drive left out in turn, from `recipes.py`; of rare classes the mean over drives."""
    drives = sorted(key.removeprefix("miou ") for key in result["rows"][0] if key.startswith("miou "))
    rare = {"Pole": 2, "SignSymbol": 6, "Fence": 7, "Pedestrian": 9, "Bicyclist": 10}
    rows = []
    for row in result["rows"]:
        seen = [[v for d in drives if (v := row["iou"][d][k]) is not None] for k in rare.values()]
        low, high = (100 * float(part) for part in row["interval"].split(" to "))
        figures = [*(100 * row[f"miou {d}"] for d in drives), *(100 * sum(v) / max(1, len(v)) for v in seen)]
        rows.append([row["recipe"], f"{100 * row['miou']:.1f} ({low:.1f} to {high:.1f})", *(f"{v:.1f}" for v in figures)])
    head = ["recipe", "mIoU, mean of drives (95 %)", *(f"{d} left out" for d in drives), *rare]
    about = f"{result['steps']} steps of 10 crops of 224 pixels, `road` after {result['first_steps']} others, one seed, {result['date']}: "
    about += f"`{result['command']}`"
    return f"{table(head, rows)}\n{about}\n"


def road(result: dict[str, Any]) -> str:
    """The built-in bundle beside the one before it, from `bench_road.py`."""
    rows = [[row["bundle"], f"{row['encode_ms']:.2f}", f"{row['predict_ms']:.2f}"] for row in result["rows"]]
    about = f"Both together: {result['ratio']:.2f} times. INT8, one thread, CPU time, {result['rounds']} rounds in turn, "
    about += f"{result['machine']['cpu']}, {result['date']}: `{result['command']}`"
    return f"{table(['bundle', 'encode, ms', 'predict, ms'], rows)}\n{about}\n"


def large(result: dict[str, Any]) -> str:
    """What a 1080p frame costs, from `bench_large.py`."""
    names = {
        "ours": "picture to labels and packet, " + result["bundle"],
        "rgb small": "JPEG decoded, 480x360, RGB network",
        "rgb whole": "JPEG decoded, RGB network on the whole picture",
    }
    rows = [
        [names[name], f"{1000 / found['wall_ms']:.1f}", f"{found['wall_ms']:.1f}", f"{found['cpu_ms']:.1f}"]
        for name, found in result["times"].items()
    ]
    machine = result["machine"]
    said = f"Labels are those of the small frame in {100 * result['agreement']:.1f} % of the pixels. A packet has "
    said += f"{result['packet_bytes'] / 1000:.1f} kB, a JPEG of quality 80 {result['jpeg_bytes'] / 1000:.1f} kB."
    about = f"{result['frames']} frames in turn, two threads, {machine['cpu']}, {result['date']}: `{result['command']}`"
    return f"{table(['way, INT8', 'frames/s', 'ms', 'ms of CPU'], rows)}\n{said}\n{about}\n"


def flicker(result: dict[str, Any]) -> str:
    """Labels that change where the picture does not, from `flicker.py`."""
    rows = []
    for row in result["rows"]:
        cells = []
        for kind in ("labels", "held"):
            miou = row.get(f"miou {kind}")
            cells += [f"{100 * row[kind]:.2f} %", "-" if miou is None else f"{100 * miou:.1f}"]
        rows.append([row["bundle"], *cells])
    head = ["bundle", "labels that change", "mIoU, CamVid val", "held: that change", "held: mIoU"]
    about = f"`{result['video']}`, {result['rows'][0]['frames']} frames, {result['date']}: `{result['command']}`"
    return f"{table(head, rows)}\n{about}\n"


def kept(result: dict[str, Any]) -> str:
    """Heads between two, from `kept.py`: mIoU, and the share of pixels that are right where pictures are changed."""
    changes = list(dict.fromkeys(name.split()[0] for name in result["rows"][0]["changed"]))
    rare = {"Pole": 2, "SignSymbol": 6, "Pedestrian": 9}
    rows = []
    for row in result["rows"]:
        means = [statistics.mean(v for name, v in row["changed"].items() if name.split()[0] == change) for change in changes]
        figures = [row["miou"], *(row["iou"][k] for k in rare.values()), row["scenes"], *means]
        rows.append([f"{row['share']:g}", *(f"{100 * v:.1f}" for v in figures)])
    head = ["share of the head before", "mIoU, CamVid val", *rare, "mIoU, rendered roads", *(f"right, {change}" for change in changes)]
    return f"{table(head, rows)}\n{' and '.join(result['bundles'])}, {result['date']}: `{result['command']}`\n"


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "bench_large": large,
    "bench_road": road,
    "flicker": flicker,
    "kept": kept,
    "lab_rd_kodak": lab_rd,
    "lab_rd_camvid_val": lab_rd,
    "lab_segmentation": lab_segmentation,
    "lab_classification": lab_classification,
    "lab_joint": lab_joint,
    "lab_joint_gain": lab_joint_gain,
    "lab_runs": lab_runs,
    "left_out": left_out,
    "recipes": recipes,
    "lab_storage": lab_storage,
    "lab_compute": lab_compute,
    "restoration": restoration,
    "restoration_hyperprior": restoration,
    "restoration_methods": restoration_methods,
    "restorers": restorers,
}


def blocks(result: dict[str, Any]) -> str:
    """What codecs with a step for each channel cost and give, from `bench_blocks.py`: a row for each bundle, set and decoder."""
    names = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL"}
    others = result["others"]
    rows, also = [], []
    for row in result["rows"]:
        cost = f"{row['cpu_ms']:.1f} ({row['times_jpeg']:.2f})" + ("" if row.get("integer", True) else ", FP32")
        for name, found in row["sets"].items():
            for decoder, ours in found["decoders"].items():
                line = [row["bundle"], cost, name.replace("_", " "), f"{found['bpp']:.3f}", decoder]
                for metric, form in (("psnr_db", ".2f"), ("ms_ssim", ".4f")):
                    theirs = (found["others"][c][metric] for c in others)
                    line.append(f"**{ours[metric]:{form}}** ({', '.join('-' if v is None else format(v, form) for v in theirs)})")
                rows.append(line)
        also.append(f"The coder of `{row['bundle']}` {_speed(row['coder'])}, with AVX2 on one core.\n")
        if (held := row.get("coarsened_camvid_val")) is not None:
            also.append(
                f"`{row['bundle']}` held to {held['bpp']:.3f} bpp on CamVid val by dropping small symbols: {held['psnr_db']:.2f} dB, "
                f"{held['ms_ssim']:.4f}.\n"
            )
    shown = ", ".join(names[c] for c in others)
    head = ["bundle", "1080p picture to packet, ms (times JPEG's)", "set", "bpp", "graph", f"PSNR, dB ({shown})", f"MS-SSIM ({shown})"]
    about = f"INT8 unless said, one thread, CPU time, at a load of {result['load']:.0f} on two cores; JPEG: libjpeg-turbo, quality 80, "
    machine = ", ".join(result["machine"][key] for key in ("cpu", "integers") if key in result["machine"])
    about += f"{result['jpeg_q80_cpu_ms']:.1f} ms. {machine}, {result['date']}: `{result['command']}`"
    return "\n".join([table(head, rows), *also, about]) + "\n"


def _speed(coder: dict[str, Any]) -> str:
    said = []
    for way in ("encode", "decode"):
        median, quickest = (coder[key][f"avx2_{way}"] for key in ("milliseconds", "quickest_milliseconds"))
        symbols = math.prod(coder["latent"]) / 1e6
        said.append(f"{way}s {symbols / median:.2f} Gsymbol/s ({symbols / quickest:.2f} in the quickest of the rounds)")
    return f"{' and '.join(said)} of a 1080p latent of {coder['bpp']:.2f} bpp"


def familiarity(result: dict[str, Any]) -> str:
    """What a bundle flags of scenes that it was not made for, and the candidates of a distance, from `familiarity.py`."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    kinds = [
        [
            row["kind"], "" if row["severity"] is None else row["severity"], row["frames"], percent(row["pixel accuracy"]),
            row["must be flagged"], percent(row["of these flagged"]), percent(row["flagged"]), row["AUROC"] if row["AUROC"] else "-",
        ]
        for row in result["kinds"]
    ]  # fmt: skip
    candidates = [
        [
            row["candidate"], row["judged on"], f"{percent(row['false alarms'])} of {row['frames']}",
            f"{percent(row['IDD false alarms'])} of {row['IDD frames']}", f"{percent(row['flagged'])} of {row['of']}", row["AUROC"],
        ]
        for row in result["candidates"]
    ]  # fmt: skip
    head = ["frames", "severity", "count", "pixel accuracy", "below 60 %, or no road", "of these flagged", "flagged", "AUROC"]
    other = ["told from", "judged on", "false alarms there", "on IDD Lite", "flagged of what must be", "AUROC"]
    cost, machine = result["cost"], result["machine"]
    about = f"`{result['bundle']['name']}`, {result['frames']} frames; a distance takes {cost['distance ms']:.3f} ms of CPU beside "
    about += f"{cost['encode ms']:.0f} ms of encoding and {cost['predict ms']:.0f} ms of predicting in FP32, {machine['cpu']}, busy, "
    about += f"{result['date']}: `{result['command']}`"
    return f"{table(head, kinds)}\n{table(other, candidates)}\n{about}\n"
