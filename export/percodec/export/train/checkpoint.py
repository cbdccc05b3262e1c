"""Checkpoints of runs, and a bundle as the checkpoint of the run it was exported from, so that training goes on from what was shipped.

    encoder.onnx, decoder.onnx, head_*.onnx --weights by name--> codec.g_a, codec.g_s, head; batch norm 1 * x + bias
    manifest.json --> centers, configuration

Export folds batch norm into the convolution before it and rounds large weights to FP16: the networks compute what the bundle computes,
but batch norm adds a bias and no more. Training gives it statistics again (`norms`) and takes other steps than from the run's own
checkpoint. Of a codec with a step for each channel the model of its rate is gone too: it decides nothing but the loss of a further
training.
"""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from percodec.export.models import AUTOENCODERS, Quantizer, Shrinking, Steps, build_head, head_kind
from percodec.export.models.norms import make_idle
from percodec.export.train.config import check, completed
from percodec.sdk.bundle import Bundle, Step
from percodec.sdk.errors import DataError, PercodecError
from percodec.sdk.files import check_file

_SCORES = {"bpp": "bpp_coded", "psnr": "psnr_db", "ms_ssim": "ms_ssim", "miou": "miou"}  # a run's names for a bundle's


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside, then rename: a killed run leaves the old checkpoint or the new one, never half of one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A run's checkpoint, or a bundle's folder (`bundle_checkpoint`). Raises `DataError`, `BundleError` where it is none of ours."""
    if path.is_dir():
        return bundle_checkpoint(Bundle.open(path))
    try:
        check_file(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise DataError(f"cannot read checkpoint {path}: {e}") from e
    if not isinstance(state, dict) or "model" not in state or "config" not in state:
        raise DataError(f"{path} is not a percodec checkpoint")
    state["config"] = completed(state["config"])
    return state


def digest_of(path: Path) -> str:
    """What a checkpoint holds: sha256 of a file, or a bundle's digest. Raises `DataError`, `BundleError`."""
    if path.is_dir():
        return Bundle.open(path).digest
    try:
        check_file(path)
        with path.open("rb") as f:
            return hashlib.sha256(f.read()).hexdigest()
    except OSError as e:
        raise DataError(f"cannot read checkpoint {path}: {e.strerror or e}") from e


def bundle_checkpoint(bundle: Bundle, graph: str | None = None) -> dict[str, Any]:
    """{"model", "config", "step", "val"} as a run's checkpoint has them; "bundle" is the digest, "provenance" what the manifest says.

    Of the run that the bundle was exported from, or of `graph`, a head that was added (`provenance.heads`). Raises `BundleError` where it
    lacks a graph, `DataError` where it does not say what was trained or its graphs are not those of `percodec export`.
    """
    said = bundle.manifest.get("provenance") or {}
    said = said["heads"][graph] if graph else said
    if not isinstance(said.get("config"), dict):
        raise DataError(f"bundle {bundle.path} does not name its networks (provenance.config): it was not made by percodec export")
    try:
        config = completed(copy.deepcopy(said["config"]))
        check(config, f"bundle {bundle.path}")
        codec = AUTOENCODERS[config["codec"]["name"]](bundle.latent_shape[0], bundle.levels, config["codec"]["width"])
        head = None if config["task"] == "codec" else build_head(config["head"], bundle.latent_shape[0])
    except (KeyError, TypeError, ValueError, PercodecError) as e:
        raise DataError(f"bundle {bundle.path}: provenance.config describes no networks of this version: {e}") from e
    model = nn.ModuleDict({"codec": codec})
    weights = {**_weights(bundle, "encoder"), **_weights(bundle, "decoder")}
    if head is not None:
        model["head"] = head
        weights |= _weights(bundle, graph or f"head_{head_kind(config['head']['name'])}")
    if isinstance(codec.quantizer, Quantizer):
        codec.quantizer.follow(torch.from_numpy(bundle.centers.copy()))
    else:
        _follow_steps(codec.quantizer, bundle.steps)
    _fill(model, weights, bundle.path)
    if isinstance(head, Shrinking) and isinstance(codec.quantizer, Steps):
        head.step.copy_(codec.quantizer.step.detach())
    found = bundle.manifest.get("metrics", {})
    val = {short: found[name] for short, name in _SCORES.items() if name in found}
    step = said.get("step", 0)
    return {"model": model.state_dict(), "config": config, "step": step, "val": val, "bundle": bundle.digest, "provenance": said}


def _follow_steps(quantizer: Steps, steps: tuple[Step, ...]) -> None:
    with torch.no_grad():
        quantizer.log_step.copy_(torch.tensor([s.step for s in steps], dtype=torch.float64).log())
        quantizer.offset.copy_(torch.tensor([s.offset for s in steps]))
        quantizer.levels.copy_(torch.tensor([s.levels for s in steps]))


def _weights(bundle: Bundle, graph: str) -> dict[str, Tensor]:
    made = onnx.load_model_from_string(bundle.graph(graph)).graph
    held = {t.name.removesuffix("_fp16"): torch.from_numpy(numpy_helper.to_array(t).astype("float32")) for t in made.initializer}
    for node in made.node:
        # The exporter keeps one of equal tensors, so a bias may stand under another layer's name: it is found by the weight beside it.
        if len(node.input) == 3 and node.input[1].endswith(".weight") and node.input[2] in held:
            held[node.input[1].removesuffix("weight") + "bias"] = held[node.input[2]]
    return held


def _fill(model: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Every convolution and linear layer of `model` by its name; the batch norm behind one becomes 1 * x + bias."""

    def take(name: str, into: Tensor) -> None:
        if name not in weights or weights[name].shape != into.shape:
            raise DataError(f"bundle {folder} holds no {name} of shape {list(into.shape)}: its graphs were changed since percodec export")
        into.copy_(weights[name])

    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, module in modules.items():
            if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                continue
            take(f"{name}.weight", module.weight)
            if module.bias is not None:
                take(f"{name}.bias", module.bias)
                continue
            group, _, index = name.rpartition(".")
            norm = modules.get(f"{group}.{int(index) + 1}") if index.isdigit() else None
            if isinstance(norm, nn.BatchNorm2d):
                take(f"{name}.bias", norm.bias)
                make_idle(norm)


__all__ = ["bundle_checkpoint", "digest_of", "load_checkpoint", "save_checkpoint"]
