"""Do heads read linear latents as well as learned ones, on drives they have not seen?

    python benchmarks/lab_gate.py --camvid PATH --images PATH [--inputs klt,balanced] [--folds 0006R0] [--seeds 1] [--runs runs/gate]

One head, one schedule, and the same crops for every input, which all stand at 1/8 of the picture's sides:

    klt        symbols of the closed-form transform (`block`, `percodec train codec --init klt`), at the rate of `balanced`
    balanced   symbols of benchmarks/bundles/balanced-0.330
    decoded    that bundle's pictures, in patches of 8x8
    rgb        the pictures themselves, in patches of 8x8

CamVid's `train` holds three drives. A fold leaves one out; the head is judged on it, and on `val`, which shares a drive with `train`.
`klt` has its transform from the other drives and from photographs. Every input is brought to zero mean and unit variance, channel by
channel, on the fold's training pictures. Finished runs are left alone. The rate of `klt` is an ideal length under static contexts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor
from torch.nn import functional as F

from percodec.export.data.dataset import DataSet
from percodec.export.data.small_sets import load_camvid, load_folder
from percodec.export.metrics.scores import Confusion
from percodec.export.models import Autoencoder, LatentFPN, block
from percodec.export.train.arithmetic import training_arithmetic
from percodec.export.train.checkpoint import bundle_checkpoint
from percodec.export.train.from_config import build_model
from percodec.export.train.klt import contexts_bpp, klt_start, order0_bpp
from percodec.export.train.tasks import class_weights
from percodec.export.train.validate import as_batch
from percodec.export.train.views import ViewCrops, Views
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.machine import machine_info

BUNDLE = Path(__file__).resolve().parent / "bundles" / "balanced-0.330"
INPUTS = ("klt", "balanced", "decoded", "rgb")
DRIVES = ("0001TP", "0006R0", "0016E5")
CLASSES, CROP, BATCH, VARIANTS = 11, 192, 12, 4
SCALE, JITTER, RATE = (0.7, 1.4), 0.25, 2e-3


def part(data: DataSet, drive: str, inside: bool, names: list[str]) -> DataSet:
    """The pictures of one drive, or of all others."""
    keep = [k for k, name in enumerate(names) if name.startswith(drive) == inside]
    said = f"{data.name} {'' if inside else 'without '}{drive}"
    return replace(data, name=said, images=[data.images[k] for k in keep], labels=[data.labels[k] for k in keep], digest=data.digest + said)


def balanced() -> tuple[Autoencoder, Bundle]:
    bundle = Bundle.open(BUNDLE)
    state = bundle_checkpoint(bundle)
    model = build_model(state["config"])
    model.load_state_dict(state["model"])
    assert model.codec is not None
    return model.codec.eval(), bundle


@torch.no_grad()
def packet_bpp(codec: Autoencoder, bundle: Bundle, data: DataSet) -> float:
    """Whole packets with the bundle's tables."""
    bits, pixels = 0, 0
    for image in data.images:
        symbols = codec.quantizer.symbols(codec.analyse(as_batch(image)))[0].numpy()
        bits += 8 * len(PacketCodec(bundle.entropy_model, *symbols.shape[1:]).encode(symbols, 0, 0))
        pixels += 64 * symbols.shape[1] * symbols.shape[2]
    return bits / pixels


@torch.no_grad()
def klt_bpp(codec: Autoencoder, data: DataSet) -> tuple[float, float]:
    """(order 0, contexts), ideal lengths."""
    steps = [codec.encode(as_batch(image)).evidence for image in data.images]
    return order0_bpp(steps), contexts_bpp(codec.quantizer, steps)  # type: ignore[arg-type]


class Reader:
    """What a head reads of `Batch.inputs` or of one picture's view: patches of pictures, normalised by channel."""

    def __init__(self, patches: bool) -> None:
        self.patches = patches
        self.mean, self.scale = torch.zeros(1), torch.ones(1)

    def settle(self, batches: list[Tensor]) -> None:
        x = torch.cat([self._cells(b).transpose(0, 1).flatten(1) for b in batches], 1)
        self.mean, self.scale = x.mean(1).view(1, -1, 1, 1), 1 / x.std(1).clamp_min(1e-3).view(1, -1, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return ((self._cells(x) - self.mean) * self.scale).contiguous(memory_format=torch.channels_last)

    def _cells(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 8) if self.patches else x


def train(head: LatentFPN, reader: Reader, batches: ViewCrops, weights: Tensor, seed: int, steps: int, say: Callable[[str], None]) -> None:
    groups = [
        {"params": [p for p in head.parameters() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in head.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    head.train()
    began = time.process_time()
    for step in range(steps):
        torch.manual_seed(1_000_003 * seed + step)
        batch = batches.batch(step)
        with training_arithmetic(torch.device("cpu")):
            logits = head(reader(batch.inputs))
        loss = F.cross_entropy(logits.float(), batch.labels, weight=weights, ignore_index=255)
        if not math.isfinite(float(loss)):
            raise ArithmeticError(f"step {step}: the loss is {float(loss)}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            say(f"{step + 1}/{steps} loss {float(loss):.3f} {time.process_time() - began:.0f} s CPU")


@torch.no_grad()
def judge(head: LatentFPN, reader: Reader, views: Views) -> dict[str, Any]:
    head.eval()
    confusion = Confusion(CLASSES)
    for k in range(len(views)):
        confusion.add(head(reader(views.values(k))).argmax(1)[0].numpy(), views.labels[k])
    return {"miou": confusion.miou(), "iou": confusion.iou().tolist()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs: half of what the transform is fitted to")
    parser.add_argument("--inputs", default=",".join(INPUTS))
    parser.add_argument("--folds", default=",".join(DRIVES), help="drives to leave out")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--runs", type=Path, default=Path("runs/gate"))
    record.add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    data, val = load_camvid(args.camvid, "train"), load_camvid(args.camvid, "val")
    names = sorted(path.name for path in (args.camvid / "train").glob("*.png"))
    photographs = load_folder(args.images)
    learned, bundle = balanced()
    rate = packet_bpp(learned, bundle, val)
    print(f"balanced on val: {rate:.4f} bpp, whole packets", flush=True)
    for drive in args.folds.split(","):
        known, unseen = part(data, drive, False, names), part(data, drive, True, names)
        weights = class_weights([known], CLASSES)
        transform: Autoencoder | None = None
        for kind in args.inputs.split(","):
            todo = [s for s in args.seeds.split(",") if not (args.runs / f"{kind}-{drive}-s{s}.json").exists()]
            if not todo:
                continue
            if kind == "klt":
                transform = fitted(known, photographs, val, rate)
            codec = {"klt": transform, "balanced": learned, "decoded": learned, "rgb": None}[kind]
            reads = {"klt": "latent", "balanced": "latent", "decoded": "decoded", "rgb": "original"}[kind]
            reader = Reader(patches=reads != "latent")
            train_views = Views(known, codec, reads, VARIANTS, 1, SCALE, JITTER, CROP, args.runs / "views")
            tests = {where: Views(d, codec, reads, 0, 1, SCALE, JITTER, CROP) for where, d in (("unseen", unseen), ("val", val))}
            batches = [ViewCrops([train_views], [1.0], CROP, BATCH, int(s)) for s in todo]
            reader.settle([batches[0].batch(10**6 + k).inputs for k in range(16)])
            for seed, crops in zip(todo, batches, strict=True):
                torch.manual_seed(int(seed))
                channels = reader(crops.batch(0).inputs[:1]).shape[1]
                head = LatentFPN(channels, CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                said = f"{kind} without {drive}, seed {seed}"
                train(head, reader, crops, weights, int(seed), args.steps, lambda text, said=said: print(f"{said}: {text}", flush=True))
                found = {"input": kind, "left_out": drive, "seed": int(seed), "steps": args.steps, "channels": channels}
                found |= {where: judge(head, reader, views) for where, views in tests.items()}
                if kind == "klt" and transform is not None:
                    found["bpp_val_order0"], found["bpp_val"] = klt_bpp(transform, val)
                    found["bpp_unseen"] = klt_bpp(transform, unseen)[1]
                if kind in ("balanced", "decoded"):
                    found["bpp_val"], found["bpp_unseen"] = rate, packet_bpp(learned, bundle, unseen)
                (args.runs / f"{kind}-{drive}-s{seed}.json").write_text(json.dumps(found, indent=1))
                print(f"{said}: unseen {100 * found['unseen']['miou']:.1f}, val {100 * found['val']['miou']:.1f} mIoU", flush=True)
    runs = [json.loads(path.read_text()) for path in sorted(args.runs.glob("*-s*.json"))]
    result = {"benchmark": "lab_gate", "date": datetime.date.today().isoformat(), "machine": machine_info(), "runs": runs}
    record.write_result(args, "lab_gate", result)
    for kind in INPUTS:
        for drive in DRIVES:
            here = [r for r in runs if (r["input"], r["left_out"]) == (kind, drive)]
            if here:
                unseen_, val_ = (np.array([100 * r[w]["miou"] for r in here]) for w in ("unseen", "val"))
                print(f"{kind:9} without {drive}: unseen {unseen_.mean():.1f} {unseen_.round(1)}  val {val_.mean():.1f} {val_.round(1)}")
    return 0


def fitted(known: DataSet, photographs: DataSet, val: DataSet, rate: float) -> Autoencoder:
    """`block` in closed form at the step that gives `rate` on `val`: two rounds, since it is fitted at a rate on what it is fitted to."""
    images = [*known.images[:: max(1, len(known) // 64)], *photographs.images[:: max(1, len(photographs) // 64)]]
    wanted = rate
    for _ in range(2):
        torch.manual_seed(0)
        codec = block(48)
        klt_start(codec, images, wanted, say=lambda text: print(text, flush=True))
        found = klt_bpp(codec.eval(), val)[1]
        print(f"klt: {found:.4f} bpp on val with contexts", flush=True)
        wanted *= rate / found
    return codec.eval()


if __name__ == "__main__":
    raise SystemExit(main())
