"""`train(config, ...)`: a configuration becomes data, model, loss and schedule, and runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from percodec.export.data import Crops, DataSet, load
from percodec.export.models import AUTOENCODERS, LatentFPN
from percodec.export.train.config import Config, resolve
from percodec.export.train.loop import Run, Schedule, load_checkpoint
from percodec.export.train.tasks import Joint, class_weights, codec_loss, segmentation_loss, validate
from percodec.sdk.errors import UsageError

Progress = Callable[[int, int, dict[str, float]], None]


def build_model(config: Config) -> Joint:
    """The networks a configuration names, freshly initialised from its seed."""
    c, h = config["codec"], config["head"]
    if c["name"] not in AUTOENCODERS:
        raise UsageError(f"codec.name must be one of {', '.join(AUTOENCODERS)}, got {c['name']!r}")
    torch.manual_seed(config["seed"])
    codec = AUTOENCODERS[c["name"]](c["channels"], c["levels"])
    if config["task"] == "codec":
        return Joint(codec, None)
    if config["task"] != "segmentation":
        raise UsageError(f"task must be codec or segmentation, got {config['task']!r}")
    return Joint(codec, LatentFPN(c["channels"], h["classes"], tuple(h["widths"]), h["pyramid"], h["dropout"]))


def train(
    config: Config,
    out: Path,
    places: dict[str, str],
    codec_from: Path | None = None,
    restart: bool = False,
    progress: Progress = lambda step, steps, values: None,
) -> dict[str, Any]:
    """Train in folder `out`, resuming what is there; `codec_from` starts the codec from another run's checkpoint.

    Returns the best validation record. Writes config.json, data.json (digests), codec.json (where the codec came from), train.csv,
    val.csv, best.json (the best validation record), last.pt, best.pt.
    """
    specs = config["data"]["train"]
    if not specs or not all(isinstance(s, list) and len(s) == 2 for s in specs):
        raise UsageError("data.train must be a list of [spec, weight] pairs")
    sets = [load(resolve(spec, places)) for spec, _ in specs]
    val = load(resolve(config["data"]["val"], places))
    if config["task"] == "segmentation" and not val.labels:
        raise UsageError(f"data.val {val.name} has no labels to validate segmentation on")
    model = build_model(config)
    if codec_from is not None:
        load_codec(model, codec_from)
    if restart:
        for name in ("last.pt", "best.pt", "train.csv", "val.csv"):
            (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if codec_from is not None:
        start = load_checkpoint(codec_from)
        beside = codec_from.parent / "data.json"
        data = json.loads(beside.read_text()) if beside.exists() else None
        origin = {"config": start["config"], "step": start["step"], "val": start["val"], "data": data}
        (out / "codec.json").write_text(json.dumps(origin, indent=1))
    (out / "config.json").write_text(json.dumps(config, indent=1))
    (out / "data.json").write_text(json.dumps(provenance(specs, config["data"]["val"], sets, val), indent=1))
    crops = config["crops"]
    batches = Crops(sets, [w for _, w in specs], crops["size"], crops["batch"], config["seed"], tuple(crops["scale"]), crops["jitter"])
    step = _step(config, sets)
    run = Run(
        folder=out,
        model=model,
        schedule=Schedule(**config["schedule"]),
        batch=batches.batch,
        step=step,
        validate=lambda m: validate(m, val, full=True),  # type: ignore[arg-type]
        score=score(config),
        config=config,
        progress=progress,
    )
    best = run.fit()
    (out / "best.json").write_text(json.dumps(best, indent=1))
    return best


def _step(config: Config, sets: list[DataSet]) -> Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, dict[str, float]]]:
    loss = config["loss"]
    if config["task"] == "codec":

        def codec_step(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
            value, _, values = codec_loss(model, images, loss["bpp"], loss["beta"], loss["structure"])  # type: ignore[arg-type]
            return value, values

        return codec_step
    weights = class_weights([s for s in sets if s.labels][:1], config["head"]["classes"], loss["class_offset"])

    def segmentation_step(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        return segmentation_loss(
            model,  # type: ignore[arg-type]
            images,
            labels,
            weights,
            loss["gamma"],
            loss["bpp"],
            loss["beta"],
            loss["structure"],
        )

    return segmentation_step


def score(config: Config) -> Callable[[dict[str, Any]], float]:
    """What "best" means: PSNR for a codec; mIoU (points) plus PSNR (dB) for a joint run."""
    if config["task"] == "codec":
        return lambda record: float(record["psnr"])
    return lambda record: 100 * float(record["miou"]) + float(record["psnr"])


def load_codec(model: Joint, path: Path) -> None:
    """Start the codec from a checkpoint of any run with the same codec configuration."""
    state = load_checkpoint(path)
    weights = {k: v for k, v in state["model"].items() if k.startswith("codec.")}
    missing = [k for k in model.state_dict() if k.startswith("codec.") and k not in weights]
    try:
        if missing:
            raise RuntimeError(f"{len(missing)} tensors missing, first {missing[0]}")
        model.load_state_dict(weights, strict=False)
    except RuntimeError as e:
        raise UsageError(f"--codec {path} holds another codec than this configuration: {e}".replace("\n", " ")) from e


def provenance(specs: list[list[Any]], val_spec: str, sets: list[DataSet], val: DataSet) -> dict[str, Any]:
    """Specs without machine paths, sizes and content digests."""
    return {
        "train": [{"spec": s, "weight": w, "pictures": len(d), "sha256": d.digest} for (s, w), d in zip(specs, sets, strict=True)],
        "val": {"spec": val_spec, "pictures": len(val), "sha256": val.digest},
        "commit": commit(),
    }


def commit() -> str:
    """The commit of the repository this file is tracked in, "unknown" where it is installed or copied."""

    def git(*words: str) -> str:
        here = Path(__file__)
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, cwd=here.parent, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


__all__ = ["build_model", "commit", "load_codec", "provenance", "score", "train"]
