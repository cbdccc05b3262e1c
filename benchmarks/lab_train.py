"""Train every run of the laboratory: three codecs, the segmentation and classification cells, joint training and its control.

    python benchmarks/lab_train.py --camvid PATH --imagenet PATH --runs runs/lab [--workers 2] [--only REGEX] [--list]

Each run is one `percodec train` command, printed by --list and recorded in its folder. Finished runs are left alone and interrupted ones
continue, so the same command may be given again at any time. A worker is one process on one thread: small networks
gain nothing from a second. About five hours on two CPU cores; `lab_results.py` then measures and writes the tables.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

POINTS = {"0.635": 32, "0.330": 16, "0.0983": 8}
SHORT = {"segmentation": "seg", "classification": "cls"}
CELLS = (("resnet50", "decoded"), ("cresnet39", "latent"), ("cresnet51", "latent"))


@dataclass(frozen=True)
class Cell:
    """One run: its name, `percodec train` arguments (RUNS/name stands for another run), the runs it starts from."""

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = field(default=())

    @property
    def codec(self) -> bool:
        return self.words[0] == "codec"


def head(task: str, network: str, reads: str, point: str, seed: int, codec: str, name: str, *more: str) -> Cell:
    full = network + ("-d" if task == "segmentation" else "")
    sets = [f"head.name={full}", f"head.input={reads}", f"seed={seed}"]
    start: tuple[str, ...] = ()
    if reads != "original":
        sets.append(f"codec.channels={POINTS[point]}")
        start = ("--codec", f"RUNS/{codec}/best.pt")
    words = [task, "--config", f"lab-{task}"]
    for item in (*sets, *more):
        words += ["--set", item]
    return Cell(name, (*words, *start), () if reads == "original" else (codec,))


def cells() -> list[Cell]:
    """Every run, those others wait for first."""
    out = [Cell("codec-base", ("codec", "--config", "lab-codec"))]
    for name, before in (("warm", "base"), ("0.635", "warm")):
        words = ("codec", "--config", f"lab-codec-{name}", "--codec", f"RUNS/codec-{before}/best.pt")
        out.append(Cell(f"codec-{name}", words, (f"codec-{before}",)))
    for name in ("0.330", "0.0983-warm"):
        words = ("codec", "--config", f"lab-codec-{name.removesuffix('-warm')}", "--trunk", "RUNS/codec-0.635/best.pt")
        out.append(Cell(f"codec-{name}", words, ("codec-0.635",)))
    # The smallest latent pays too little for bits above its target to come down to it: a short stage that makes them dear.
    words = ("codec", "--config", "lab-codec-0.0983-rate", "--codec", "RUNS/codec-0.0983-warm/best.pt")
    out.append(Cell("codec-0.0983", words, ("codec-0.0983-warm",)))
    for seed in (1, 2):
        for task, short in SHORT.items():
            if seed == 1:
                out.append(head(task, "resnet50", "original", "", seed, "", f"{short}-original-resnet50-s{seed}"))
            for point in POINTS if seed == 1 else reversed(POINTS):
                for network, reads in CELLS:
                    if seed == 2 and (network == "cresnet39" or task == "classification"):
                        continue  # the claim is carried by equal operations: ResNet-50 on pictures, cResNet-51 on latents
                    name = f"{short}-{reads}-{network}-{point}-s{seed}"
                    out.append(head(task, network, reads, point, seed, f"codec-{point}", name))
        out += joint_cells(seed) + edge_cells(seed)
    out += edge_cells(3)
    out.append(head("segmentation", "resnet50", "original", "", 2, "", "seg-original-resnet50-s2"))
    return out


def of(run: str) -> str:
    return f"RUNS/{run}/best.pt"


def finetuned(
    name: str, codec: str, start: str, fresh: Cell, joint: tuple[str, ...], alone: tuple[str, ...], after: tuple[str, ...]
) -> list[Cell]:
    """Joint training of a `codec` and its head `start`, and the control (section 6): codec finetuned alone; on it a new head, trained, then
    finetuned as the joint one is. `joint`, `alone`, `after`: the settings of the three finetunings; `fresh`: the new head's own run.
    """
    control = f"control-codec-{name}"
    words = ("segmentation", "--config", "lab-joint-head", *after, "--codec", of(control), "--head", of(fresh.name))
    return [
        Cell(f"joint-{name}", ("joint", "--config", "lab-joint", *joint, "--codec", of(codec), "--head", of(start)), (codec, start)),
        Cell(control, ("codec", "--config", "lab-joint-control", *alone, "--codec", of(codec)), (codec,)),
        fresh,
        Cell(f"control-{name}", words, (control, fresh.name)),
    ]


def joint_cells(seed: int) -> list[Cell]:
    """Three times: distortion as in the paper, the squared error alone; the same for three times the steps, the joint run's rate matched to
    its control's on val; and with MS-SSIM in the distortion, as everywhere else here.
    """
    out, chosen = [], ("--set", f"seed={seed}")
    steps = ("--set", "schedule.steps=3000", "--set", "schedule.validate_every=1000")
    for tag, more, gamma, after in (
        ("", (), (), ()),
        ("long-", steps, ("--set", f"loss.bpp={(0.1021, 0.1016)[seed - 1]}"), steps),
        ("ssim-", ("--set", "loss.structure=4000"), ("--set", "loss.gamma=0.004", "--set", "loss.bpp=0.1"), ()),
    ):
        name = f"{tag}0.0983-s{seed}"
        fresh = head("segmentation", "cresnet51", "latent", "0.0983", seed, f"control-codec-{name}", f"control-head-{name}")
        start = f"seg-latent-cresnet51-0.0983-s{seed}"
        out += finetuned(name, "codec-0.0983", start, fresh, (*chosen, *more, *gamma), (*chosen, *more), (*chosen, *after))
    return out


EDGE = ("--set", "codec.name=edge")
FPN = (*EDGE, "--set", "codec.channels=8", "--set", "head.name=fpn", "--set", "head.width=1.0")


def edge_cells(seed: int) -> list[Cell]:
    """The same with the vehicle's networks, `edge` and `fpn`, heads trained four times as long, and 1,500 steps of finetuning.

    From a codec that has never seen the rate it is finetuned to, so that its control's new head begins with more bits than the joint
    run's; from that control's codec and head, with gamma and, per seed, the rate target chosen on val; at half the rate; there once
    more, for twice the steps, with a third seed; and so again from that control's codec and head.
    """
    schedule = ("steps=2500", "lr=0.0015", "final=0.05", "freeze_norm=800", "validate_every=1250")
    sets = [*EDGE, "--set", "loss.structure=0", "--set", "loss.beta=2500", "--set", "loss.bpp=0.1"]
    for item in schedule:
        sets += ["--set", f"schedule.{item}"]
    long = ("--set", "schedule.steps=3000", "--set", "schedule.validate_every=1000", "--set", "crops.views=8")
    steps = ("--set", "schedule.steps=1500", "--set", "schedule.validate_every=500", "--set", f"seed={seed}")
    twice = ("--set", "schedule.steps=3000", "--set", "schedule.validate_every=750", "--set", f"seed={seed}")

    def trained_head(name: str, codec: str) -> Cell:
        words = ("segmentation", "--config", "lab-segmentation", *FPN, *long, "--set", f"seed={seed}", "--codec", of(codec))
        return Cell(name, words, (codec,))

    def round_of(
        tag: str, codec: str, start: str, gamma: float, bpp: float, alone: float = 0.0995, steps: tuple[str, ...] = steps
    ) -> list[Cell]:
        name = f"{tag}-s{seed}"
        fresh = trained_head(f"control-head-{name}", f"control-codec-{name}")
        joint = (*FPN, *steps, "--set", f"loss.gamma={gamma}", "--set", f"loss.bpp={bpp}")
        return finetuned(name, codec, start, fresh, joint, (*EDGE, *steps, "--set", f"loss.bpp={alone}"), (*FPN, *steps))

    codec, start = "codec-edge-0.0983", f"head-edge-0.0983-s{seed}"
    low, low_start = "codec-edge-0.05", f"head-edge-0.05-s{seed}"
    first = [
        Cell(codec, ("codec", "--config", "lab-codec-0.0983", *sets)),
        Cell(low, ("codec", "--config", "lab-joint-control", *EDGE, *steps, "--set", "loss.bpp=0.05", "--codec", of(codec)), (codec,)),
    ]
    again = (f"control-codec-edge-0.0983-s{seed}", f"control-head-edge-0.0983-s{seed}")
    low_again = (f"control-codec-edge-long-0.05-s{seed}", f"control-head-edge-long-0.05-s{seed}")
    if seed > 2:
        return [trained_head(low_start, low), *round_of("edge-long-0.05", low, low_start, 0.003, 0.0503, 0.0503, twice)]
    return [
        *(first if seed == 1 else []),
        trained_head(start, codec),
        *round_of("edge-0.0983", codec, start, 0.006, 0.1007),
        *round_of("again-0.0983", *again, 0.003, (0.1016, 0.103)[seed - 1]),
        trained_head(low_start, low),
        *round_of("edge-0.05", low, low_start, 0.003, (0.0503, 0.0493)[seed - 1], 0.05),
        *round_of("edge-long-0.05", low, low_start, 0.003, 0.0503, 0.0503, twice),
        *round_of("edge-again-0.05", *low_again, 0.003, 0.0499, 0.0503, twice),
    ]


def command(cell: Cell, runs: Path, camvid: str, imagenet: str) -> list[str]:
    words = [w.replace("RUNS", str(runs)) for w in cell.words]
    data = ["--data", f"camvid={camvid}"]
    if cell.name.startswith("codec-"):
        data += ["--data", f"imagenet={imagenet}"]
    return ["train", *words, *data, "--out", str(runs / cell.name), "--views", str(runs / "views")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", default="PATH")
    parser.add_argument("--imagenet", default="PATH", help="any folder of photographs")
    parser.add_argument("--runs", type=Path, default=Path("runs/lab"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="runs whose name matches this expression")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    args = parser.parse_args()
    todo = [c for c in cells() if re.search(args.only, c.name)]
    if args.list:
        for cell in todo:
            print(shlex.join(["percodec", *command(cell, args.runs, args.camvid, args.imagenet)]))
        return 0
    if "PATH" in (args.camvid, args.imagenet):
        parser.error("give --camvid and --imagenet")
    lock, failed = threading.Lock(), []

    def done(name: str) -> bool:
        return (args.runs / name / "best.json").exists()

    def work() -> None:
        while True:
            with lock:
                ready = [c for c in todo if all(done(n) for n in c.needs)]
                if not todo or failed:
                    return
                cell = next(iter(ready), None)
                if cell is not None:
                    todo.remove(cell)
            if cell is None:
                time.sleep(2)
                continue
            if done(cell.name):
                continue
            print(f"{time.strftime('%H:%M:%S')} {cell.name}", flush=True)
            (args.runs / cell.name).mkdir(parents=True, exist_ok=True)
            words = [sys.executable, "-m", "percodec.sdk.cli", *command(cell, args.runs, args.camvid, args.imagenet)]
            with (args.runs / cell.name / "log.txt").open("a") as log:
                code = subprocess.run(words, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
            if code:
                failed.append(cell.name)
                print(f"{cell.name} failed ({code}): see {log.name}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work) for _ in range(args.workers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
