"""What does a prediction cost with a codec in front, next to ResNet-50 on the picture, and is it as good?

    python benchmarks/bench_perception.py --camvid PATH [--codec benchmarks/bundles/balanced-0.635] [--runs runs/perception] [--rounds 60]

Which of CamVid's classes cover 1 % of a 224x224 crop, from the picture (ResNet-50) and from the latent (cResNet-39, and the slim
cResNet-27 distilled from cResNet-51), two seeds each, all by configuration `lab-classification` (width 0.25); finished runs are left alone.
Then every graph in INT8, calibrated on training crops, judged on the validation crops through packets, and timed at batch 1 on one thread,
the ways to a prediction in turn within each round of one process: CPU time, medians, ratios of paired rounds. The paper's full width is
timed as well, with random weights, which cost the same as trained ones; so is the decoder of `cvpr18`, beside the codec's own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from bench_encoders import in_turn, paired
from numpy.typing import NDArray
from torch import Tensor, nn

from percodec.export.data.dataset import DataSet
from percodec.export.data.sets import load
from percodec.export.engines.calibrate import measure
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.onnx_graph import plain
from percodec.export.engines.precision import Plan, make_explicit
from percodec.export.metrics.scores import average_precision
from percodec.export.models import AUTOENCODERS, Autoencoder, Classifier, ResNet
from percodec.export.models.to_onnx import ClassificationGraph, DecoderGraph, EncoderGraph, fold, graph_bytes
from percodec.export.train.checkpoint import load_checkpoint
from percodec.export.train.from_config import build_model
from percodec.export.train.tasks import Joint, presence
from percodec.export.train.validate import CROP, windows
from percodec.sdk.codec import EntropyModel, PacketCodec

Run = Callable[[NDArray[Any]], list[Any]]
NETWORKS = {"resnet50": "original", "cresnet51": "latent", "cresnet39": "latent", "cresnet27": "latent"}
TEACHER = "cresnet51"
CALIBRATION = 64
CODEC = Path(__file__).resolve().parent / "bundles" / "balanced-0.635"


class Presence(nn.Module):
    """image u8 -> probabilities, for a network on pictures."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.head(image.to(torch.float32).permute(0, 3, 1, 2)))


def train(args: argparse.Namespace, codec: dict[str, Any]) -> None:
    for network, reads in NETWORKS.items():
        for seed in (1,) if network == TEACHER else (1, 2):
            out = args.runs / f"{network}-s{seed}"
            if (out / "best.json").exists():
                continue
            words = ["classification", "--config", "lab-classification", "--data", f"camvid={args.camvid}", "--out", str(out)]
            words += ["--views", str(args.runs / "views"), "--threads", "1"]
            sets = {"head.name": network, "head.input": reads, "seed": seed}
            if reads == "latent":
                sets |= {"codec.name": codec["name"], "codec.channels": codec["channels"]}
                words += ["--codec", str(args.codec)]
            if network == "cresnet27":
                words += ["--teacher", str(args.runs / f"{TEACHER}-s1" / "best.pt")]
            words += [w for k, v in sets.items() for w in ("--set", f"{k}={v}")]
            subprocess.run([sys.executable, "-m", "percodec.sdk.cli", "train", *words], check=True)


def integer(module: nn.Module, inputs: list[NDArray[Any]]) -> Run:
    data = graph_bytes(fold(module), (torch.from_numpy(inputs[0].copy()),), ["input"], "output")
    made = make_explicit(data, Plan("int8", activations="uint8"), measure(plain(data), inputs))
    return graph_function(made.data)


def crops(data: DataSet) -> tuple[list[NDArray[np.uint8]], NDArray[np.bool_]]:
    """[1,224,224,3] and which classes are present, four windows of each picture."""
    pictures, truth = [], []
    for image, label in zip(data.images, data.labels, strict=True):
        for y, x in windows(*image.shape[:2]):
            pictures.append(np.ascontiguousarray(image[None, y : y + CROP, x : x + CROP]))
            piece = torch.from_numpy(label[None, y : y + CROP, x : x + CROP].copy()).long()
            truth.append(presence(piece, len(data.classes), 0.01)[0].numpy() > 0)
    return pictures, np.stack(truth)


def mean_ap(scores: list[NDArray[Any]], truth: NDArray[np.bool_]) -> float:
    return float(np.nanmean(average_precision(np.stack(scores), truth)))


def trained(checkpoint: Path) -> Joint:
    state = load_checkpoint(checkpoint)
    model = build_model(state["config"])
    model.load_state_dict(state["model"])
    return model.eval()


class Sender:
    """The codec in INT8: picture -> packet -> symbols -> picture."""

    def __init__(self, codec: Autoencoder, frames: list[NDArray[np.uint8]]) -> None:
        self.encoder = integer(EncoderGraph(codec), list(frames))
        self.symbols = [self.encoder(f) for f in frames]
        levels = len(codec.quantizer.centers)
        stack = np.concatenate(self.symbols)
        counts = np.stack([(stack == k).sum((0, 2, 3)) for k in range(levels)], 1)
        self.coder = PacketCodec(EntropyModel.from_counts(counts), CROP // 8, CROP // 8)
        other = AUTOENCODERS["cvpr18"](codec.channels, levels, 1.0).eval()
        self.decoders = {name: integer(DecoderGraph(c), list(self.symbols)) for name, c in {"own": codec, "cvpr18": other}.items()}

    def send(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bytes]:
        symbols = self.encoder(picture)
        return symbols, self.coder.encode(symbols[0], 0, 0)

    def receive(self, packet: bytes) -> NDArray[np.uint8]:
        return self.coder.decode(packet)[1][None]


def costs(sender: Sender, heads: dict[str, Run], rgb: Run, pictures: list[NDArray[np.uint8]], rounds: int) -> dict[str, dict[str, float]]:
    """Each way to a prediction. On the vehicle: from the picture, packet included. `received`: from the packet."""
    some = pictures[:: max(1, len(pictures) // 16)][:16]
    packets = [sender.send(p)[1] for p in some]
    ways: dict[str, Callable[[int], object]] = {"resnet50": lambda k: rgb(some[k % 16])}
    for name, head in heads.items():
        ways[name] = lambda k, h=head: h(sender.send(some[k % 16])[0])  # type: ignore[misc]
    for name, head in heads.items():
        ways[f"received, {name}"] = lambda k, h=head: h(sender.receive(packets[k % 16]))  # type: ignore[misc]
    for name, decoder in sender.decoders.items():
        ways[f"received, decoder {name}, resnet50"] = lambda k, d=decoder: rgb(d(sender.receive(packets[k % 16])))  # type: ignore[misc]
    times = in_turn(ways, rounds)
    return {name: {"cpu_ms": statistics.median(v), "ratio": paired(v, times["resnet50"])} for name, v in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--codec", type=Path, default=CODEC, help="a codec's bundle or checkpoint (default: that of balanced-0.635)")
    parser.add_argument("--runs", type=Path, default=Path("runs/perception"))
    parser.add_argument("--rounds", type=int, default=60)
    record.add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_checkpoint(args.codec)["config"]["codec"]
    train(args, config)
    codec = trained(args.codec).codec
    assert codec is not None
    train_crops, _ = crops(load(f"camvid:{args.camvid}:train"))
    pictures, truth = crops(load(f"camvid:{args.camvid}:val"))
    frames = train_crops[:: len(train_crops) // CALIBRATION][:CALIBRATION]
    sender = Sender(codec, frames)
    sent = [sender.send(p) for p in pictures]
    bpp = 8 * float(np.mean([len(packet) for _, packet in sent])) / CROP**2

    def run_of(head: nn.Module, reads: str) -> Run:
        if reads == "original":
            return integer(Presence(head), list(frames))
        return integer(ClassificationGraph(codec, head, "latent", several=True), list(sender.symbols))

    rows, runs = [], {}
    for name in sorted(p.parent.name for p in args.runs.glob("*/best.json")):
        network, reads = name.rpartition("-")[0], NETWORKS[name.rpartition("-")[0]]
        head = trained(args.runs / name / "best.pt").head
        assert head is not None
        run = runs[name] = run_of(head, reads)
        seen: list[NDArray[Any]] = pictures if reads == "original" else [s for s, _ in sent]
        found = mean_ap([run(x)[0] for x in seen], truth)
        fp32 = json.loads((args.runs / name / "best.json").read_text())["map"]
        rows.append({"network": network, "reads": reads, "seed": int(name[-1]), "map": found, "map_fp32": fp32})
        print(rows[-1], flush=True)
    latent = [n for n, reads in NETWORKS.items() if reads == "latent" and n != TEACHER]
    widths = {"0.25": costs(sender, {n: runs[f"{n}-s1"] for n in latent}, runs["resnet50-s1"], pictures, args.rounds)}
    full = {n: run_of(Classifier(ResNet(n, codec.channels, 1.0), 1000).eval(), "latent") for n in latent}
    rgb = run_of(Classifier(ResNet("resnet50", 3, 1.0), 1000).eval(), "original")
    widths["1.0"] = costs(sender, full, rgb, pictures, args.rounds)
    for width, found in widths.items():
        print(width, json.dumps(found, indent=1), flush=True)
    result = {
        "benchmark": "bench_perception",
        "command": "python benchmarks/bench_perception.py --camvid PATH",
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": record.cpu_name()},
        "codec": config,
        "bpp": bpp,
        "crops": len(pictures),
        "rounds": args.rounds,
        "rows": rows,
        "cost": widths,
    }
    record.write_result(args, "bench_perception", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
