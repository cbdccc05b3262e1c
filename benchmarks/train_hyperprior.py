"""Train CompressAI's mean-scale hyperprior, the learned rival whose damage `percodec restore` undoes as well.

    python benchmarks/train_hyperprior.py --camvid PATH --imagenet PATH --out runs/hyperprior [--quality 0.0018]

Loss: quality * 255^2 * mean squared error + bits per pixel, as CompressAI's own models. The checkpoint is read as `hyperprior:OUT/best.pt`.
An interrupted run continues. About half an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.data.crops import Batch, Crops
from percodec.export.data.sets import load
from percodec.export.metrics.similarity import psnr
from percodec.export.restore.hyperprior import mean_scale_hyperprior
from percodec.export.train.curves import reporter
from percodec.export.train.loop import Run, Schedule


class Objective(nn.Module):
    def __init__(self, model: Any, quality: float) -> None:
        super().__init__()
        self.model, self.quality = model, quality

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        found = self.model(batch.inputs / 255)
        pixels = batch.inputs.shape[0] * batch.inputs.shape[2] * batch.inputs.shape[3]
        bpp = sum(likelihood.float().log().sum() for likelihood in found["likelihoods"].values()) / (-math.log(2) * pixels)
        mse = F.mse_loss(found["x_hat"].float() * 255, batch.inputs)
        loss = self.quality * mse + bpp + 0.01 * self.model.entropy_bottleneck.loss()
        return loss, {"mse": float(mse.detach()), "bpp": float(bpp.detach())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--imagenet", required=True, help="any folder of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quality", type=float, default=0.0018, help="weight of the squared error")
    parser.add_argument("--n", type=int, default=96)
    parser.add_argument("--m", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1800)
    args = parser.parse_args()
    torch.manual_seed(1)
    model = mean_scale_hyperprior(args.n, args.m)
    crops = Crops([load(f"camvid:{args.camvid}:train"), load(f"folder:{args.imagenet}")], [0.5, 0.5], 192, 8, 1, (0.8, 1.25), 0.1)
    val = load(f"camvid:{args.camvid}:val").images[:20]

    @torch.no_grad()
    def validate(m: Any) -> dict[str, Any]:
        found: list[tuple[float, float]] = []
        for picture in val:
            x = torch.from_numpy(picture[:320, :448].copy()).permute(2, 0, 1)[None].float()
            out = m(x / 255)
            bits = -sum(float(p.log2().sum()) for p in out["likelihoods"].values())
            found.append((bits / (320 * 448), psnr(out["x_hat"].clamp(0, 1) * 255, x)))
        bpp, quality = np.mean(found, 0)
        return {"bpp": float(bpp), "psnr": float(quality)}

    plan = Schedule(steps=args.steps, lr=1e-3, final=0.01, weight_decay=0.0, ema=0.998, clip=1.0, validate_every=1000, checkpoint_every=200)
    config = {"hyperprior": {"n": args.n, "m": args.m, "quality": args.quality}, "seed": 1, "steps": args.steps}
    with reporter(args.steps, False) as progress:
        run = Run(
            folder=args.out,
            model=model,
            objective=Objective(model, args.quality),
            schedule=plan,
            batch=crops.batch,
            validate=validate,
            score=lambda record: float(record["step"]),
            config=config,
            progress=progress,
        )
        best = run.fit()
    (args.out / "best.json").write_text(json.dumps(best, indent=1))
    print(json.dumps(best))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
