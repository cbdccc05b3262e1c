"""Perception networks by name, and what each reads.

Which one should I use? `fpn` on the vehicle. `cresnet39-d` and `cresnet51-d` for the paper's segmentation from the latent, `resnet50-d` for
its counterpart on pixels; the same names without `-d` classify. `cresnet27` where time is short, with a teacher.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from percodec.export.models.resnet import STAGES, Classifier, DeepLab, ResNet
from percodec.export.models.segmentation import LatentFPN
from percodec.export.models.shrinking import Shrinking
from percodec.sdk.errors import UsageError

HEADS: tuple[str, ...] = ("fpn", *STAGES, *(f"{name}-d" for name in STAGES))
INPUTS = ("latent", "decoded", "original")


def head_kind(name: str) -> str:
    """ "segmentation" or "classification"."""
    return "segmentation" if name == "fpn" or name.endswith("-d") else "classification"


def build_head(config: dict[str, Any], channels: int) -> nn.Module:
    """The network of a configuration's `head` section for a latent of `channels`. Raises `UsageError` where name and input do not fit."""
    name, given = config["name"], config["input"]
    if name not in HEADS:
        raise UsageError(f"head.name must be one of {', '.join(HEADS)}; got {name!r}")
    if given not in INPUTS:
        raise UsageError(f"head.input must be one of {', '.join(INPUTS)}; got {given!r}")
    if not 0 < config["width"] <= 4:
        raise UsageError(f"head.width must be above 0 and at most 4, got {config['width']}")
    latent = name == "fpn" or STAGES[name.removesuffix("-d")][0] == 0
    if latent != (given == "latent"):
        reads = "latents: head.input must be latent" if latent else "pictures: head.input must be decoded or original"
        raise UsageError(f"{name} reads {reads}, not {given}")
    made = _network(config, channels, latent)
    return Shrinking(made, channels, config["shrink"]) if config["shrink"] > 1 else made


def _network(config: dict[str, Any], channels: int, latent: bool) -> nn.Module:
    name = config["name"]
    if name == "fpn":
        return LatentFPN(channels, config["classes"], tuple(config["widths"]), config["pyramid"], config["dropout"])
    kind = head_kind(name)
    backbone = ResNet(name.removesuffix("-d"), channels if latent else 3, config["width"], dilated=kind == "segmentation")
    return (DeepLab if kind == "segmentation" else Classifier)(backbone, config["classes"], config["dropout"])


__all__ = ["HEADS", "INPUTS", "build_head", "head_kind"]
