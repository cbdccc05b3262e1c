"""What do networks reach on drives they have not seen, from latents and from pictures in as many bytes?

    python benchmarks/left_out.py --camvid PATH --runs runs/left-out [--steps 1000] [--record]

Six trainings: for each drive of CamVid's `train` a head on latents of `refined-0.33` (12.5 kMAC a pixel) and a network on original
pictures (13.7), one schedule and the same crops for both. Then `percodec evaluate segmentation --protocol leave-one-drive-out`,
which also shows the second what JPEG, WebP and AVIF leave of a picture in the bytes of its packet. One seed. The recipe is small, two
hours of one core in all: it compares what networks are shown, and says nothing of what they reach when trained to the end. Codec and tables
have seen all drives, without labels. Nothing is chosen on a left-out drive: a run keeps its last state. Finished runs are left alone, and
interrupted ones go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import record

from percodec.sdk.machine import machine_info

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "benchmarks" / "bundles" / "refined-0.33"
DRIVES = ("0001TP", "0006R0", "0016E5")
NETWORKS = {
    "latent": ["head.name=fpn", "head.width=1.0", "codec.name=refined", "codec.channels=48", "codec.levels=255"],
    "original": ["head.name=resnet50-d", "head.width=0.17"],
}


def percodec(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "percodec.sdk.cli", *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.decode()


def train(reads: str, drive: str, args: argparse.Namespace) -> Path:
    out: Path = args.runs / f"{reads}-{drive}"
    if (out / "best.json").exists():
        return out / "best.pt"
    print(f"{out}", flush=True)
    data = [f'data.train=[["camvid:{{camvid}}:train/not-{drive}", 1.0]]', f"data.val=camvid:{{camvid}}:train/{drive}"]
    plan = [f"steps={args.steps}", f"validate_every={args.steps}", f"warmup={args.steps // 10}", "checkpoint_every=50"]
    keys = [f"head.input={reads}", *NETWORKS[reads], *data, *(f"schedule.{item}" for item in plan), "crops.jitter=0.3"]
    codec = ["--codec", str(BUNDLE)] if reads == "latent" else []
    words = ["--config", "lab-segmentation", *codec, *(w for key in keys for w in ("--set", key))]
    percodec("train", "segmentation", *words, "--data", f"camvid={args.camvid}", "--out", str(out), "--threads", "1", "--json")
    return out / "best.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/left-out"))
    parser.add_argument("--steps", type=int, default=1000)
    record.add_arguments(parser)
    args = parser.parse_args()
    runs = [train(reads, drive, args) for reads in NETWORKS for drive in DRIVES]
    words = ["--protocol", "leave-one-drive-out", "--data", f"camvid:{args.camvid}:train", "--bundle", str(BUNDLE)]
    words += [w for run in runs for w in ("--checkpoint", str(run))]
    result = json.loads(percodec("evaluate", "segmentation", *words, "--rivals", "jpeg,webp,avif", "--json"))
    command = "python benchmarks/left_out.py --camvid PATH" + (f" --steps {args.steps}" if args.steps != 1000 else "")
    result |= {"command": command, "machine": machine_info(), "steps": args.steps}
    record.write_result(args, "left_out", result)


if __name__ == "__main__":
    main()
