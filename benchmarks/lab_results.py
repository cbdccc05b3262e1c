"""Measure what lab_train.py trained: bundles, rate-distortion, segmentation, classification, joint training; JSON, plots and tables.

    python benchmarks/lab_results.py --runs runs/lab --camvid PATH --kodak PATH --imagenet PATH [--stages bundles,rd,...]

Writes lab_*.json and *.png and, once, benchmarks/bundles/lab-*; with `--record`, `tables.py` then fills LABORATORY.md from the JSON.
Every figure is of exported graphs and whole packets except where a row names a run instead of a bundle.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import re
from pathlib import Path
from typing import Any

import record
from lab_train import CELLS, POINTS, SHORT, cells

from percodec.export.bundles.from_checkpoint import export_bundle
from percodec.export.data.sets import load
from percodec.export.data.small_sets import load_folder
from percodec.export.evaluate.any_size import crop8
from percodec.export.evaluate.codecs import codec_of
from percodec.export.evaluate.compute import compute_table
from percodec.export.evaluate.perception import rows_of_checkpoint, rows_of_metrics, what_arrives
from percodec.export.evaluate.plots import plot
from percodec.export.evaluate.rd import at_rate, bundle_point, curve
from percodec.export.evaluate.report import report
from percodec.export.evaluate.storage import measure_storage
from percodec.export.train.checkpoint import load_checkpoint
from percodec.sdk.bundle import Bundle

HERE = Path(__file__).parent
BUNDLES = HERE / "bundles"
CODECS = ("jpeg", "jpeg2000", "webp", "avif", "hevc")
# Of joint training and its control, by what stands in a run's name.
DISTORTIONS = {
    "0.0983": "squared error",
    "long-0.0983": "squared error, 3,000 steps",
    "ssim-0.0983": "squared error, MS-SSIM",
    "edge-0.0983": "squared error; edge and fpn, 1,500 steps",
    "again-0.0983": "squared error; edge and fpn, 1,500 steps more",
    "edge-0.05": "squared error; edge and fpn at half the rate, 1,500 steps",
    "edge-long-0.05": "squared error; edge and fpn at half the rate, 3,000 steps",
    "edge-again-0.05": "squared error; edge and fpn at half the rate, 3,000 steps more",
}


def bundle_of(point: str) -> Bundle:
    return Bundle.open(BUNDLES / f"lab-{point}")


def make_bundles(args: argparse.Namespace) -> None:
    """Codec, three segmentation and two classification heads per operating point, all of seed 1: what 30 MB hold."""
    for point in POINTS:
        if (BUNDLES / f"lab-{point}").exists():
            continue
        first = f"seg-latent-cresnet51-{point}-s1"
        names = [f"{short}-{reads}-{network}-{point}-s1" for short in SHORT.values() for network, reads in CELLS]
        names.remove(f"cls-latent-cresnet39-{point}-s1")
        more = tuple(args.runs / n / "best.pt" for n in sorted(names, key=lambda n: "cresnet51" not in n) if n != first)
        places = {"camvid": args.camvid}
        export_bundle(args.runs / first / "best.pt", BUNDLES / f"lab-{point}", f"lab-{point}", places, 360, 480, "crop", more=more)


def rate_distortion(args: argparse.Namespace) -> None:
    sets = {"kodak": load_folder(Path(args.kodak), 1 << 16).images, "camvid-val": load(f"camvid:{args.camvid}:val").images}
    for name, images in sets.items():
        pictures = [crop8(p) for p in images]
        rows: list[dict[str, Any]] = []
        for codec in CODECS:
            kept = args.runs / f"rd-{name}-{codec}.json"
            if not kept.exists():
                print(f"{name}: {codec}", flush=True)
                kept.write_text(json.dumps(curve(codec_of(codec), pictures, most_bpp=0.9, every=2 if name == "kodak" else 3)))
            rows += json.loads(kept.read_text())
        if args.classical:
            continue
        for point in POINTS:
            bundle = bundle_of(point)
            exported = bundle.manifest["metrics"]  # measured on this very set, frame by frame
            if exported["data"] == "camvid/val" and name == "camvid-val":
                row = {k: exported[k] for k in ("psnr_db", "ssim", "ms_ssim")}
                row |= {"codec": f"percodec {bundle.name}", "bundle": bundle.digest, "quality": bundle.latent_shape[0]}
                rows.append({**row, "bpp": exported["bpp_coded"], "point": point})
            else:
                rows.append({**bundle_point(bundle, pictures), "point": point})
        comparisons = []
        for ours in [r for r in rows if "bundle" in r]:
            line = {"point": ours["point"], **{k: ours[k] for k in ("bpp", "psnr_db", "ssim", "ms_ssim")}}
            for codec in CODECS:
                mine = [r for r in rows if r["codec"] == codec]
                line[codec] = {key: at_rate(mine, ours["bpp"], key) for key in ("psnr_db", "ssim", "ms_ssim")}
            comparisons.append(line)
        words = " ".join(f"--bundle benchmarks/bundles/lab-{p}" for p in POINTS)
        command = f"percodec evaluate rd --images PATH {words}"
        result = report("rd", command, {"name": name, "pictures": len(pictures)}, rows)
        record.write_result(args, f"lab_rd_{name.replace('-', '_')}", {**result, "comparisons": comparisons})
        plot("rd", rows, args.out / f"lab_rd_{name.replace('-', '_')}.png", f"{name}, {len(pictures)} pictures")


def perception(args: argparse.Namespace) -> None:
    data = load(f"camvid:{args.camvid}:val")
    bundles = [bundle_of(p) for p in POINTS]
    shown = what_arrives(data, bundles, ("jpeg", "resize"))
    for kind, short in SHORT.items():
        metric = {"segmentation": "miou", "classification": "map"}[kind]
        original = args.runs / f"{short}-original-resnet50-s1" / "best.pt"
        rows = rows_of_checkpoint(original, data, kind, lambda: shown)
        for point, bundle in zip(POINTS, bundles, strict=True):
            rows += [{**row, "point": point, "seed": 1} for row in rows_of_metrics(bundle, kind, bundle.manifest["metrics"])]
        for row in rows:
            if "point" not in row:
                row |= {"point": row["bundle"].removeprefix("lab-") if "bundle" in row else "", "seed": 1}
        for cell in cells():
            if (
                not re.fullmatch(rf"{short}-.*-s2|cls-latent-cresnet39-.*", cell.name)
                or not cell.name.startswith(short)
                or not (args.runs / cell.name / "best.json").exists()
            ):
                continue
            config = json.loads((args.runs / cell.name / "config.json").read_text())
            best = json.loads((args.runs / cell.name / "best.json").read_text())  # its last validation, on the same pictures
            row = {"network": config["head"]["name"], "input": config["head"]["input"], "trained_on": config["head"]["input"]}
            row[metric] = best[metric]
            point = next((p for p in POINTS if f"-{p}-" in cell.name), "")
            if point:
                row["bpp"] = bundle_of(point).manifest["metrics"]["bpp_coded"]  # one codec per point, whatever the head's seed
            rows.append({**row, "point": point, "seed": int(cell.name[-1]), "run": cell.name})
        base = {r["seed"]: r[metric] for r in rows if r["input"] == "original"}
        for row in rows:
            row["drop"] = base[row["seed"]] - row[metric] if row["seed"] in base else None
        command = f"percodec evaluate {kind} --bundle benchmarks/bundles/lab-POINT --data camvid:PATH:val"
        record.write_result(
            args, f"lab_{kind}", report(kind, command, {"name": data.name, "pictures": len(data), "sha256": data.digest}, rows)
        )
        plot(kind, rows, args.out / f"lab_{kind}.png", f"{data.name}, {len(data)} pictures")


def joint(args: argparse.Namespace) -> None:
    """Joint training against its control, both exported and measured alike."""
    data, rows = load(f"camvid:{args.camvid}:val"), []
    todo = [("seg-latent-cresnet51-0.0983", "before", "")]
    for tag, distortion in DISTORTIONS.items():
        if tag.startswith("edge-"):
            todo.append((f"head-{tag}", "before", distortion))
        todo += [(f"{role}-{tag}", role, distortion) for role in ("control", "joint")]
    for seed in (1, 2, 3):
        for name, role, distortion in todo:
            run = args.runs / f"{name}-s{seed}"
            if not (run / "best.json").exists():
                continue
            shipped = name.startswith("seg-") and seed == 1
            kept = BUNDLES / "lab-0.0983" if shipped else args.runs / f"bundle-{name}-s{seed}"
            if not kept.exists():
                export_bundle(run / "best.pt", kept, name, {"camvid": args.camvid}, 360, 480, "crop", say=lambda text: None)
            found = Bundle.open(kept).manifest["metrics"]
            keys = ("bpp_coded", "psnr_db", "ssim", "ms_ssim", "miou")
            rows.append({"run": f"{name}-s{seed}", "role": role, "distortion": distortion, "seed": seed, **{k: found[k] for k in keys}})
            print(rows[-1], flush=True)
    record.write_result(
        args,
        "lab_joint",
        report("joint", "python benchmarks/lab_results.py --stages joint", {"name": data.name, "pictures": len(data)}, rows),
    )


def runs(args: argparse.Namespace) -> None:
    """What was trained: configuration, command, steps, crops, the validation curve's end, minutes."""
    rows = []
    for cell in cells():
        folder = args.runs / cell.name
        if not (folder / "best.json").exists():
            continue
        with (folder / "train.csv").open() as f:
            seconds = [float(r["seconds"]) for r in csv.DictReader(f)]
        with (folder / "val.csv").open() as f:
            val = list(csv.DictReader(f))
        state = load_checkpoint(folder / "best.pt")
        config = state["config"]
        row = {"run": cell.name, "task": config["task"], "seed": config["seed"], "step": state["step"], "steps": len(seconds)}
        row |= {"crops": len(seconds) * config["crops"]["batch"], "crop": config["crops"]["size"], "minutes": sum(seconds) / 60}
        notes = folder / "notes.txt"
        row |= {"val": val, "config": config, "command": (folder / "command.txt").read_text().strip()}
        rows.append(row | ({"notes": notes.read_text().strip()} if notes.exists() else {}))
    record.write_result(
        args,
        "lab_runs",
        report("runs", "python benchmarks/lab_train.py --camvid PATH --imagenet PATH", {"name": "CamVid and photographs"}, rows),
    )


def storage(args: argparse.Namespace) -> None:
    """The 144 GB table: what ImageNet's files would shrink to at the ratio of a sample of them."""
    rows = measure_storage(Path(args.imagenet), [bundle_of(p) for p in POINTS], total_gb=144)
    words = " ".join(f"--bundle benchmarks/bundles/lab-{p}" for p in POINTS)
    command = f"percodec evaluate storage --images PATH --total-gb 144 {words}"
    record.write_result(
        args, "lab_storage", report("storage", command, {"name": "ImageNet photographs", "pictures": rows[0]["pictures"]}, rows)
    )


def compute(args: argparse.Namespace) -> None:
    rows = compute_table()
    record.write_result(
        args,
        "lab_compute",
        report("compute", "percodec evaluate compute", {"name": "224x224 pixels, latent 28x28x32, batch 1, FP32"}, rows),
    )


STAGES = {
    "bundles": make_bundles,
    "rd": rate_distortion,
    "perception": perception,
    "joint": joint,
    "runs": runs,
    "storage": storage,
    "compute": compute,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--imagenet", default="", help="storage: folder of ImageNet files")
    parser.add_argument("--stages", default=",".join(STAGES))
    record.add_arguments(parser)
    parser.add_argument("--classical", action="store_true", help="rd: only prepare the curves of the other codecs")
    args = parser.parse_args()
    for stage in args.stages.split(","):
        if stage not in STAGES:
            parser.error(f"no stage {stage!r}; there are {', '.join(STAGES)}")
        print(f"{datetime.datetime.now():%H:%M:%S} {stage}", flush=True)
        STAGES[stage](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
