"""Which encoder should a tier have? Shapes at three budgets, each taught alike for a short while, then measured.

    python benchmarks/encoder_search.py --camvid PATH --imagenet PATH --kodak PATH --teacher runs/lab/codec-0.330/best.pt

Every shape learns the latents of the laboratory's codec at 0.330 bpp (configuration `imitate`, --steps steps) and is judged through that
codec's decoder: enough to rank shapes, not to say what they reach. Finished runs are left alone. Cost and quality are then measured as
`bench_encoders.py` does, the encoder in INT8; the result is results/encoder_search-*.json and .png.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import record
import torch
from bench_encoders import measure, publish
from torch import nn

from percodec.export.bundles.from_checkpoint import export_bundle
from percodec.export.models.autoencoder import AUTOENCODERS, Autoencoder, conv_bn, edge, theis3, theis3_decoder
from percodec.export.train.config import load_config
from percodec.export.train.curves import reporter
from percodec.export.train.from_config import train

# Layers as (outputs, kernel, stride); the last one, 1x1 to C, is common. The first has no padding, so integers suffice.
CHAINS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "blocks-1x1": ((64, 8, 8), (64, 1, 1)),
    "blocks-3x3-3x3": ((64, 8, 8), (64, 3, 1), (64, 3, 1)),
    "lapped-16-3x3": ((16, 4, 4), (64, 4, 2), (64, 3, 1)),
    "lapped-32-3x3": ((32, 4, 4), (64, 4, 2), (64, 3, 1)),
}
NAMES = ("fast", "balanced", *CHAINS, "edge-stem", "theis3-half")  # the first two are what was chosen


def shape(name: str, channels: int, levels: int, width: float) -> Autoencoder:
    decoder = theis3_decoder(channels, 64, 128)
    if name == "edge-stem":
        return Autoencoder(name, edge(channels, levels).g_a, decoder, channels, levels)
    if name == "theis3-half":
        return Autoencoder(name, theis3(channels, levels, 0.5).g_a, decoder, channels, levels)
    layers, given = [], 3
    for out, kernel, stride in CHAINS[name]:
        layers.append(conv_bn(given, out, kernel, stride, padding=0 if given == 3 else (kernel - stride + 1) // 2))
        given = out
    return Autoencoder(name, nn.Sequential(*layers, conv_bn(given, channels, 1, relu=False)), decoder, channels, levels, uniform=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--imagenet", required=True, help="any folder of photographs")
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--teacher", type=Path, required=True, help="checkpoint of the laboratory's codec at 0.330 bpp")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"), help="what is trained")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=15)
    record.add_arguments(parser)
    args = parser.parse_args()
    places, bundles = {"camvid": args.camvid, "imagenet": args.imagenet}, []
    torch.set_num_threads(1)
    for name in NAMES:
        AUTOENCODERS.setdefault(name, partial(shape, name))
        run, kept = args.runs / name, args.runs / f"bundle-{name}"
        config = load_config("imitate", [f"codec.name={name}", f"schedule.steps={args.steps}", f"schedule.validate_every={args.steps}"])
        if not (run / "best.json").exists():
            with reporter(args.steps) as progress:
                print(name, train(config, run, places, teacher_from=args.teacher, progress=progress), flush=True)
        if not (kept / "manifest.json").exists():
            export_bundle(run / "best.pt", kept, name, places, 360, 480, "crop")
        bundles.append(kept)
    command = "python benchmarks/encoder_search.py --camvid PATH --imagenet PATH --kodak PATH --teacher runs/lab/codec-0.330/best.pt"
    result = {"benchmark": "encoder_search", "command": command, "steps": args.steps}
    publish(args, result | measure(bundles, args.camvid, args.kodak, args.rounds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
