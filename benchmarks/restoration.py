"""Dataset restoration on CamVid: every command behind RESTORATION.md, in order, and its results.

    python benchmarks/restoration.py --camvid PATH --imagenet PATH --lab runs/lab --runs runs/restoration [--workers 2] [--list]
    python benchmarks/restoration.py --camvid PATH --runs runs/restoration --publish --record

`--lab` is what lab_train.py trained: the codecs at 0.2 and 0.4 bpp start from its codec at 0.330, its network on originals of seed 1 is the
frozen one, and its networks on originals are the matrix's (the same command but for names). Each command continues what an earlier
start of it left, so this one may be given again at any time. About eight hours on one core. `--publish` writes the results.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record
from PIL import Image, ImageDraw

from percodec.export.data.files import read_rgb

HERE = Path(__file__).parent
QUALITIES = ("1", "6", "16")  # JPEG at most 0.1 (its least is 0.108), 0.2 and 0.4 bpp on CamVid
POINTS = ("0.0983", "0.2", "0.4")
HYPERPRIOR = "hyperprior-hyperprior"
SHOWN = {"0016E5_08017.png": (130, 110), "0016E5_07997.png": (60, 220)}  # val picture -> top left corner of its crop
CROP = 176


def commands(camvid: str, imagenet: str, lab: str, runs: str) -> list[list[str]]:
    """`percodec` command lines (train_hyperprior.py's is a program's)."""
    twins, bundles, frozen = f"{runs}/shift/sets", {p: f"{runs}/lab-{p}" for p in POINTS}, f"{lab}/seg-original-resnet50-s1/best.pt"
    bundles["0.0983"] = str(HERE / "bundles" / "lab-0.0983")
    out: list[list[str]] = []
    data = ["--data", f"camvid={camvid}", "--data", f"imagenet={imagenet}"]
    for point in POINTS[1:]:
        sets = {"loss.bpp": point, "schedule.steps": 1200, "schedule.lr": 0.001, "schedule.freeze_norm": 0, "schedule.validate_every": 600}
        words = [w for k, v in sets.items() for w in ("--set", f"{k}={v}")]
        start = ["--codec", f"{lab}/codec-0.330/best.pt"]
        out.append(["train", "codec", "--config", "lab-codec-0.330", *words, *start, *data, "--out", f"{runs}/codec-{point}"])
        out.append(["export", f"{runs}/codec-{point}/best.pt", *data, "--out", bundles[point]])
    out.append(["hyperprior", "--camvid", camvid, "--imagenet", imagenet, "--out", f"{runs}/hyperprior"])
    codecs = [f"jpeg:q{q}" for q in QUALITIES] + [f"percodec:{bundles[p]}" for p in POINTS] + [f"hyperprior:{runs}/hyperprior/best.pt"]
    names = [f"jpeg-q{q}" for q in QUALITIES] + [f"percodec-lab-{p}" for p in POINTS] + [HYPERPRIOR]
    for codec, name in zip(codecs, names, strict=True):
        place = f"{twins}/{name}" if name != HYPERPRIOR else f"{runs}/shift-hyperprior/sets/{name}"
        out.append(["restore", "compress", camvid, f"{place}/compressed", "--codec", codec])
    restorers: list[str] = []
    for family, mine in (("jpeg", names[:3]), ("ours", names[3:6])):
        pairs = ["--clean", f"{camvid}/train", *(w for n in mine for w in ("--compressed", f"{twins}/{n}/compressed/train"))]
        start = ["--start", f"{runs}/restorers/{family}-l1/best.pt", "--network", frozen]
        more: dict[str, list[str]] = {"l1": [], "gan": start, "task": start, "corrector": ["--network", frozen]}
        for kind, words in more.items():
            place = f"{runs}/restorers/{family}-{kind}"
            out.append(["restore", "train", *pairs, "--config", f"restore-{kind}", *words, "--out", place])
            restorers += ["--restorer", f"{'restored' if kind == 'gan' else kind}={place}/restorer.onnx"]
    # One rate, and one restorer that goes on from ours.
    twin = f"{runs}/shift-hyperprior/sets/{HYPERPRIOR}/compressed/train"
    pairs = ["--clean", f"{camvid}/train", "--compressed", twin, "--set", "schedule.steps=400"]
    start = ["--start", f"{runs}/restorers/ours-l1/best.pt", "--network", frozen]
    out.append(["restore", "train", *pairs, "--config", "restore-gan", *start, "--out", f"{runs}/restorers/hyperprior-gan"])
    place = f"{runs}/restorers/ours-latent"
    latent = ["--clean", f"{camvid}/train", "--bundle", bundles["0.0983"], "--network", frozen, "--config", "restore-latent"]
    out.append(["restore", "train", *latent, "--out", place])
    restorers += ["--restorer", f"latent={place}/restorer.onnx"]
    data = ["--data", f"camvid:{camvid}", "--set", "head.name=resnet50-d"]
    matrix = [*(w for c in codecs[:6] for w in ("--codec", c)), *restorers, "--mixed", "--seeds", "1,2"]
    out.append(["shift", *data, *matrix, "--out", f"{runs}/shift"])
    matrix = ["--codec", codecs[6], "--restorer", f"restored={runs}/restorers/hyperprior-gan/restorer.onnx", "--seeds", "1"]
    out.append(["shift", *data, *matrix, "--out", f"{runs}/shift-hyperprior"])
    return out


def train(args: argparse.Namespace) -> int:
    for folder, seed in (("shift", 1), ("shift", 2), ("shift-hyperprior", 1)):
        place = args.runs / folder / "runs" / f"original-s{seed}"
        if not place.exists():
            shutil.copytree(Path(args.lab) / f"seg-original-resnet50-s{seed}", place)
    for words in commands(args.camvid, args.imagenet, args.lab, str(args.runs)):
        if words[0] == "export" and (Path(words[-1]) / "manifest.json").exists():
            continue
        if words[:2] in (["train", "codec"], ["restore", "train"]) and (Path(words[-1]) / "best.json").exists():
            continue
        program = [str(HERE / "train_hyperprior.py"), *words[1:]] if words[0] == "hyperprior" else ["-m", "percodec.sdk.cli", *words]
        more = ["--workers", str(args.workers)] if words[0] == "shift" else ["--threads", "1"] if words[:2] == ["restore", "train"] else []
        print(shlex.join(["percodec", *words]), flush=True)
        code = subprocess.run([sys.executable, *program, *more], check=False).returncode
        if code:
            return code
    return 0


def publish(args: argparse.Namespace) -> int:
    """The matrices without their classes' decimals, what the restorers reached, pictures."""
    for folder, name in (("shift", "restoration"), ("shift-hyperprior", "restoration_hyperprior")):
        result = json.loads((args.runs / folder / "shift.json").read_text())
        for cell in result["cells"]:
            cell["iou"] = [round(v, 4) for v in cell["iou"]]
        if folder == "shift":
            result["restorers"] = [described(place) for place in sorted((args.runs / "restorers").iterdir())]
        record.write_result(args, name, result)
    for name in ("matrix", "methods", "classes"):
        shutil.copy(args.runs / "shift" / f"shift-{name}.png", args.out / f"restoration_{name}.png")
    crops(Path(args.camvid), args.runs).save(args.out / "restoration_crops.png", optimize=True)
    return 0


def described(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    last = json.loads((folder / "best.json").read_text())
    with (folder / "train.csv").open() as f:
        seconds = [float(line.split(",")[3]) for line in f.readlines()[1:]]
    row = {"restorer": folder.name, "steps": len(seconds), "crops": len(seconds) * config["crops"]["batch"], "minutes": sum(seconds) / 60}
    return {**row, "psnr_db": last["psnr"], "ms_ssim": last["ms_ssim"], "config": config}


def crops(camvid: Path, runs: Path) -> Image.Image:
    """Original, compressed and restored, a row per codec and rate."""
    names = [*(f"jpeg-q{q}" for q in QUALITIES), *(f"percodec-lab-{p}" for p in POINTS), HYPERPRIOR]
    sets = {n: runs / ("shift-hyperprior" if n == HYPERPRIOR else "shift") / "sets" / n for n in names}
    names = [n for n in names if (sets[n] / "restored").exists()]
    kinds = ("original", "compressed", "restored", "l1", "latent")
    side, label = CROP, 18
    columns = [kind for kind in kinds if kind == "original" or any((sets[n] / kind).exists() for n in names)]
    page = Image.new("RGB", (len(SHOWN) * len(columns) * (side + 4), len(names) * (side + label)), "white")
    draw = ImageDraw.Draw(page)
    for row, name in enumerate(names):
        for column, (picture, (top, left)) in enumerate(SHOWN.items()):
            for k, kind in enumerate(columns):
                place = (camvid if kind == "original" else sets[name] / kind) / "val" / picture
                if not place.exists():
                    continue
                piece = np.ascontiguousarray(read_rgb(place)[top : top + CROP, left : left + CROP])
                x, y = (column * len(columns) + k) * (side + 4), row * (side + label)
                page.paste(Image.fromarray(piece), (x, y + label))
                draw.text((x + 2, y + 3), f"{name.removeprefix('percodec-')}: {kind}" if kind != "original" else kind, fill="black")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", default="PATH")
    parser.add_argument("--imagenet", default="PATH", help="any folder of photographs")
    parser.add_argument("--lab", default="runs/lab", help="the runs of lab_train.py")
    parser.add_argument("--runs", type=Path, default=Path("runs/restoration"))
    parser.add_argument("--workers", type=int, default=2, help="networks of the matrix trained at a time")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--publish", action="store_true", help="write the results of what is trained")
    record.add_arguments(parser)
    args = parser.parse_args()
    if args.list:
        for words in commands(args.camvid, args.imagenet, args.lab, str(args.runs)):
            print(
                shlex.join(["python", "benchmarks/train_hyperprior.py", *words[1:]] if words[0] == "hyperprior" else ["percodec", *words])
            )
        return 0
    if args.publish:
        return publish(args)
    if "PATH" in (args.camvid, args.imagenet):
        parser.error("give --camvid and --imagenet")
    return train(args)


if __name__ == "__main__":
    raise SystemExit(main())
