"""`train_restorer`: pairs become a restorer.

    l1 * |x^ - x| / 255  +  features * sum over stages of |f(x^) - f(x)| / |f(x)|  +  adversarial * (D(y, x^) - 1)^2
                         +  task * |t(x^) - t(x)|

y compressed, x clean, x^ restored; f and t are stages and logits of a frozen network of ours, trained on clean pictures; no labels. The
discriminator learns (D(y, x) - 1)^2 + D(y, x^)^2 in the same step (least squares, Mao et al. 2017). `features` after Johnson et al. 2016,
`task` is the task-targeted correction of Ehrlich et al. 2020.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from percodec.export.data.crops import Batch
from percodec.export.data.origin import origin_of
from percodec.export.evaluate.compute import count_parameters
from percodec.export.metrics.similarity import ms_ssim, psnr
from percodec.export.restore.networks import NETWORKS, Discriminator, Latent, Residual
from percodec.export.restore.pairs import PairCrops, Pairs
from percodec.export.restore.restorer import KEY
from percodec.export.restore.to_onnx import restorer_graph
from percodec.export.train import distributed
from percodec.export.train.arithmetic import training_arithmetic
from percodec.export.train.checkpoint import digest_of, load_checkpoint
from percodec.export.train.config import Config
from percodec.export.train.from_config import build_model
from percodec.export.train.loop import Run, Schedule, resumable
from percodec.export.train.provenance import commit
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import UsageError
from percodec.sdk.folder_lock import FolderLock


class Restoring(nn.Module):
    """Restorer and, where it is trained against one, discriminator: one checkpoint."""

    def __init__(self, restorer: nn.Module, discriminator: Discriminator | None) -> None:
        super().__init__()
        self.restorer, self.discriminator = restorer, discriminator

    def forward(self, compressed: Tensor, bpp: Tensor) -> Tensor:
        return self.restorer(compressed, bpp)  # type: ignore[no-any-return]


def build_restorer(config: Config, channels: int = 0) -> Restoring:
    """The networks of a configuration, from its seed. `channels`: of the latent, where it is read. Raises `UsageError`."""
    r = config["restorer"]
    if r["network"] not in NETWORKS:
        raise UsageError(f"restorer.network must be one of {', '.join(NETWORKS)}, got {r['network']!r}")
    torch.manual_seed(config["seed"])
    if r["network"] == "latent":
        network: nn.Module = Latent(channels, r["width"], r["blocks"])
    elif r["network"] == "corrector":
        network = Residual(width=24, blocks=2, condition=8)
    else:
        network = Residual(r["width"], r["blocks"])
    return Restoring(network, Discriminator(r["judge"]) if r["adversarial"] else None)


class Objective(nn.Module):
    """`Batch` of pairs -> loss and values to log."""

    def __init__(self, model: Restoring, config: Config, frozen: nn.Module | None, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.weights = model, config["restorer"]
        self.frozen = [] if frozen is None else [frozen]  # in a list: not part of the module
        self.decoder = [] if decoder is None else [decoder]

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        clean, w = batch.images, self.weights
        assert clean is not None
        restored = self.model(batch.inputs, batch.labels)
        terms = {"l1": (restored - clean).abs().mean() / 255}
        if self.frozen and (w["features"] or w["task"]):
            terms |= self._perceived(restored, clean)
        loss = torch.stack([w[k] * v for k, v in terms.items()]).sum()
        if self.model.discriminator is not None:
            # A latent has no picture of its own to be conditioned on: the discriminator sees an average instead.
            condition = batch.inputs if batch.inputs.shape == clean.shape else nn.functional.avg_pool2d(clean, 8)
            if condition.shape != clean.shape:
                condition = nn.functional.interpolate(condition, scale_factor=8, mode="nearest")
            judge = self.model.discriminator
            fixed = {k: v.detach() for k, v in judge.state_dict().items()}
            deceived = functional_call(judge, fixed, (condition, restored))
            terms["adversarial"] = torch.stack([((v - 1) ** 2).mean() for v in deceived]).mean()
            real, fake = judge(condition, clean), judge(condition, restored.detach())
            terms["judge"] = torch.stack([((a - 1) ** 2).mean() + (b**2).mean() for a, b in zip(real, fake, strict=True)]).mean()
            loss = loss + w["adversarial"] * terms["adversarial"] + terms["judge"]
        return loss, {k: float(v.detach()) for k, v in terms.items()}

    def _perceived(self, restored: Tensor, clean: Tensor) -> dict[str, Tensor]:
        frozen: Any = self.frozen[0]
        with torch.no_grad():
            wanted, features = frozen.with_features(clean)
        logits, given = frozen.with_features(restored)
        near = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(given, features, strict=True)]
        return {"features": torch.stack(near).sum(), "task": (logits - wanted).abs().mean()}


def frozen_network(path: Path) -> nn.Module:
    """The network of a run on original pictures, in eval mode, without gradients of its own. Raises `UsageError`."""
    state = load_checkpoint(path)
    model = build_model(state["config"])
    if model.head is None or model.reads != "original" or not hasattr(model.head, "with_features"):
        raise UsageError(f"--network {path} must be a run of a residual network with head.input=original")
    model.load_state_dict(state["model"])
    return model.head.eval().requires_grad_(False)


def train_restorer(
    config: Config,
    out: Path,
    clean: Path,
    twins: list[Path],
    bundle: Bundle | None = None,
    network: Path | None = None,
    start: Path | None = None,
    restart: bool = False,
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, steps, values: None,
) -> dict[str, Any]:
    """Train in folder `out`, resuming what is there, and write `restorer.onnx`. Returns what was measured on the pictures kept aside.

    `clean` and each of `twins` hold the same pictures; `bundle` instead of twins for a restorer of latents; `network` is the frozen one;
    `start` another restorer's checkpoint. Raises `UsageError` where these do not fit the configuration.
    """
    r = config["restorer"]
    latent = r["network"] == "latent"
    if latent != (bundle is not None) or latent == bool(twins):
        raise UsageError("a restorer of latents learns from --clean and --bundle, the others from --clean and --compressed")
    if (r["features"] or r["task"]) and network is None:
        raise UsageError("restorer.features and restorer.task need --network, a run of a network on original pictures; or set both to 0")
    if bundle is not None and bundle.steps:
        raise UsageError(f"bundle {bundle.path} has a step for each channel: restorers of latents read bundles with shared centers only")
    device = distributed.start()
    pairs = Pairs(clean, twins, bundle)
    centers = None if bundle is None else torch.from_numpy(bundle.centers)
    model = build_restorer(config, 0 if bundle is None else bundle.latent_shape[0])
    if start is not None:
        _start(model, start)
    frozen = None if network is None else frozen_network(network).to(device)
    starts = {"--network": network, "--start": start}
    made_of = {name: digest_of(path) for name, path in starts.items() if path is not None} | pairs.made_of()
    if not restart:
        resumable(out, config, made_of)
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        if restart:
            for name in ("last.pt", "best.pt", "train.csv", "val.csv"):
                (out / name).unlink(missing_ok=True)
        batches = PairCrops(pairs, centers, config["crops"]["size"], config["crops"]["batch"], config["seed"])

        @torch.no_grad()
        def validate(m: Any) -> dict[str, Any]:
            found: dict[str, list[float]] = {"psnr": [], "ms_ssim": []}
            for twin, picture in pairs.indices(aside=True):
                item = pairs.item(twin, picture)
                height, width = (side // 8 * 8 for side in item.clean.shape[:2])
                image = torch.from_numpy(item.clean[:height, :width].copy()).permute(2, 0, 1)[None].float()
                given = torch.from_numpy(item.compressed.copy())
                x = centers[given.long()][None] if centers is not None else given[:height, :width].permute(2, 0, 1)[None].float()
                with training_arithmetic(device):
                    restored = m(x.to(device), torch.tensor([item.bpp], device=device)).clamp(0, 255).round().float().cpu()
                found["psnr"].append(psnr(restored, image))
                found["ms_ssim"].append(float(ms_ssim(restored, image, scales=5 if min(height, width) >= 176 else 3).mean()))
            return {k: sum(v) / len(v) for k, v in found.items()}

        (out / "config.json").write_text(json.dumps(config, indent=1))
        run = Run(
            folder=out,
            model=model,
            objective=Objective(model, config, frozen),
            schedule=Schedule(**config["schedule"]),
            batch=batches.batch,
            validate=validate,
            score=lambda record: float(record["step"]),  # the schedule's end: PSNR would choose the least restored
            config=config,
            made_of=made_of,
            progress=progress,
            device=device,
        )
        record = run.fit()
        facts = {
            "network": r["network"],
            "parameters": count_parameters(model.restorer),
            "config": {k: config[k] for k in ("restorer", "crops", "schedule", "seed")},
            "bpp": list(pairs.bpp),
            "pictures": len(pairs.names),
            "trained_on": [(origin_of(twin) or {}).get("codec") for twin in twins],
            "bundle": None if bundle is None else bundle.digest,
            "aside": record,
            "commit": commit(),
        }
        best = build_restorer(config, 0 if bundle is None else bundle.latent_shape[0])
        best.load_state_dict(load_checkpoint(out / "best.pt")["model"])

        (out / "restorer.onnx").write_bytes(restorer_graph(best.restorer, centers, {KEY: json.dumps(facts)}))
        (out / "best.json").write_text(json.dumps(record, indent=1))
        return record


def _start(model: Restoring, path: Path) -> None:
    """Restorer, and discriminator where both have one, from another run. Raises `UsageError`."""
    weights = load_checkpoint(path)["model"]
    own = model.state_dict()
    missing = [k for k in own if k.startswith("restorer.") and (k not in weights or weights[k].shape != own[k].shape)]
    if missing:
        raise UsageError(f"--start {path} holds another restorer than this configuration: {missing[0]} does not fit")
    model.load_state_dict({k: v for k, v in weights.items() if k in own}, strict=False)


__all__ = ["Objective", "Restoring", "build_restorer", "frozen_network", "train_restorer"]
