"""Does a way of training a head hold on drives it has not seen? Two recipes, each drive of CamVid's `train` left out in turn.

    python benchmarks/recipes.py --camvid PATH --idd-lite PATH --runs runs/recipes [--steps 1200] [--record]

plain   CamVid and rendered roads, crops at random, light varied: how `road-edge` was trained
road    `--config road`: IDD Lite's coarse labels too, crops around rare classes, bad light, weather and lenses before the encoder

One network (`fpn`) on latents of `balanced-0.330`, one schedule, one seed, the same number of crops. Codec and tables have seen all drives,
without labels. Nothing is chosen on a left-out drive: a run keeps its last state. Finished runs are left alone, interrupted ones go on.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import record
from left_out import BUNDLE, DRIVES, percodec

from percodec.sdk.machine import machine_info

SETS = {
    "plain": '[["camvid:{{camvid}}:train/not-{drive}",0.8],["synthetic:400:1",0.2]]',
    "road": '[["camvid:{{camvid}}:train/not-{drive}",0.5],["idd_lite:{{idd_lite}}:train",0.35],["synthetic:400:1",0.15]]',
}
RECIPES = {"plain": ["crops.weather=0", "crops.rare=0"], "road": []}


def train(recipe: str, drive: str, args: argparse.Namespace) -> Path:
    out: Path = args.runs / f"{recipe}-{drive}"
    if not (out / "best.json").exists():
        print(out, flush=True)
        keys = ["codec.name=balanced", "codec.channels=16", "codec.levels=6", f"data.train={SETS[recipe].format(drive=drive)}"]
        keys += [f"data.val=camvid:{{camvid}}:train/{drive}", f"schedule.steps={args.steps}", f"schedule.validate_every={args.steps}"]
        words = [w for key in (*keys, *RECIPES[recipe]) for w in ("--set", key)]
        data = ["--data", f"camvid={args.camvid}", "--data", f"idd_lite={args.idd_lite}"]
        words = ["--config", "road", "--codec", str(BUNDLE), *words, *data, "--out", str(out), "--threads", "1", "--json"]
        percodec("train", "segmentation", *words)
    return out / "best.pt"


def judged(runs: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    words = ["--protocol", "leave-one-drive-out", "--data", f"camvid:{args.camvid}:train", "--bundle", str(BUNDLE)]
    words += [w for run in runs for w in ("--checkpoint", str(run))]
    rows = json.loads(percodec("evaluate", "segmentation", *words, "--json"))["rows"]
    return dict(rows[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--idd-lite", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--steps", type=int, default=1200)
    record.add_arguments(parser)
    args = parser.parse_args()
    rows = [{"recipe": recipe} | judged([train(recipe, drive, args) for drive in DRIVES], args) for recipe in RECIPES]
    command = "python benchmarks/recipes.py --camvid PATH --idd-lite PATH" + (f" --steps {args.steps}" if args.steps != 1200 else "")
    result = {"benchmark": "recipes", "date": datetime.date.today().isoformat(), "command": command, "machine": machine_info()}
    result |= {"steps": args.steps, "rows": rows}
    record.write_result(args, "recipes", result)
    for row in rows:
        print(f"{row['recipe']:6} {100 * row['miou']:.1f} ({row['interval']})", *(f"{d} {100 * row[f'miou {d}']:.1f}" for d in DRIVES))


if __name__ == "__main__":
    main()
