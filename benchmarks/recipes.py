"""Does a way of training a head hold on drives it has not seen? Two recipes, each drive of CamVid's `train` left out in turn.

    python benchmarks/recipes.py --camvid PATH --idd-lite PATH --runs runs/recipes [--steps 1500] [--first-steps 4000] [--record]

plain   CamVid and rendered roads, crops at random, light varied: how `road-edge` was trained
road    `--config road-first` once, on IDD Lite's coarse labels and rendered roads, which no drive of CamVid is in; from there each fold by
        `--config road`: CamVid, IDD Lite and rendered roads, crops around rare classes, bad light, weather and lenses before the encoder

One network (`fpn`) on latents of `refined-0.33`, one seed, the same number of crops in each fold; `road` has those of its first part more.
Codec and tables have seen all drives, without labels. Nothing is chosen on a left-out drive: a run keeps its last state. Finished runs are
left alone, interrupted ones go on.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import record
from left_out import DRIVES, percodec

from percodec.sdk.machine import machine_info

BUNDLE = Path(__file__).resolve().parent / "bundles" / "refined-0.33"
SETS = {
    "plain": '[["camvid:{{camvid}}:train/not-{drive}",0.8],["synthetic:400:1",0.2]]',
    "road": '[["camvid:{{camvid}}:train/not-{drive}",0.6],["idd_lite:{{idd_lite}}:train",0.25],["synthetic:600:3",0.15]]',
}
PLAIN = ("crops.weather=0", "crops.rare=0", "crops.mix=0", "crops.jitter=0.25", "loss.class_offset=1.05")


def run(out: Path, args: argparse.Namespace, config: str, steps: int, keys: Sequence[str], more: Sequence[str] = ()) -> Path:
    if not (out / "best.json").exists():
        print(out, flush=True)
        keys = [f"schedule.steps={steps}", f"schedule.validate_every={steps}", *keys]
        data = ["--data", f"camvid={args.camvid}", "--data", f"idd_lite={args.idd_lite}"]
        words = ["--config", config, "--codec", str(BUNDLE), *(w for key in keys for w in ("--set", key)), *data, *more]
        percodec("train", "segmentation", *words, "--out", str(out), "--threads", "1", "--json")
    return out / "best.pt"


def train(recipe: str, drive: str, args: argparse.Namespace) -> Path:
    keys = [f"data.train={SETS[recipe].format(drive=drive)}", f"data.val=camvid:{{camvid}}:train/{drive}", "schedule.ema=0.99"]
    if recipe == "plain":
        return run(args.runs / f"plain-{drive}", args, "road", args.steps, [*keys, "schedule.lr=0.002", *PLAIN])
    first = run(args.runs / "first", args, "road-first", args.first_steps, [])
    return run(args.runs / f"road-{drive}", args, "road", args.steps, keys, ["--head", str(first)])


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
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--first-steps", type=int, default=4000)
    record.add_arguments(parser)
    args = parser.parse_args()
    rows = [{"recipe": recipe} | judged([train(recipe, drive, args) for drive in DRIVES], args) for recipe in SETS]
    command = f"python benchmarks/recipes.py --camvid PATH --idd-lite PATH --steps {args.steps} --first-steps {args.first_steps}"
    result = {"benchmark": "recipes", "date": datetime.date.today().isoformat(), "command": command, "machine": machine_info()}
    result |= {"steps": args.steps, "first_steps": args.first_steps, "rows": rows}
    record.write_result(args, "recipes", result)
    for row in rows:
        print(f"{row['recipe']:6} {100 * row['miou']:.1f} ({row['interval']})", *(f"{d} {100 * row[f'miou {d}']:.1f}" for d in DRIVES))


if __name__ == "__main__":
    main()
