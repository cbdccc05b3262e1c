"""What each key of a training configuration takes and why: the one place where a value of the right type is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from percodec.sdk.errors import UsageError


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`; `above` and `below` leave the bound itself out; whole numbers are multiples of `step`."""

    least: float
    most: float
    why: str
    above: bool = False
    below: bool = False
    step: int = 1

    def holds(self, value: float) -> bool:
        if not math.isfinite(value) or (isinstance(value, int) and value % self.step):
            return False
        return (self.least < value if self.above else self.least <= value) and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        kind = f"a multiple of {self.step} " if self.step > 1 else ""
        if self.above:
            return f"{kind}above {self.least:.12g} and {'below' if self.below else 'at most'} {self.most:.12g}"
        return f"{kind}from {self.least:.12g} {'to below' if self.below else 'to'} {self.most:.12g}"


_WEIGHT = Range(0, 1e9, "it weighs a term of the loss")
_WIDTH = Range(0, 4, "it scales the published numbers of channels", above=True)
_CHANNELS = Range(1, 4096, "it is a number of channels")
_EVERY = Range(1, 10**9, "it is a distance between steps; a value beyond schedule.steps means at the end only")

RANGES: dict[str, Range] = {
    "seed": Range(0, 2**63 - 1, "random generators take no others"),
    "codec.channels": Range(1, 1024, "bundles hold no others"),
    "codec.fixed_encoder": Range(0, 1, "it is true or false"),
    "codec.levels": Range(2, 256, "a symbol is a byte"),
    "codec.width": _WIDTH,
    "codec.sigma": Range(0, 1e6, "it is the steepness of the soft quantizer", above=True),
    "codec.sigma_final": Range(0, 1e6, "it is the steepness of the soft quantizer", above=True),
    "head.classes": Range(1, 65536, "it is the number of the head's outputs"),
    "head.width": _WIDTH,
    "head.dropout": Range(0, 1, "it is the share of features left out", below=True),
    "head.presence": Range(0, 1, "it is a share of a picture's pixels", above=True),
    "head.widths": _CHANNELS,
    "head.pyramid": _CHANNELS,
    "head.shrink": Range(1, 8, "it is how many times smaller a head reads a latent"),
    "head.kept": Range(0, 1, "it is the share of the weights in a head that are those it started from", below=True),
    "head.offsets": Range(0, 1, "it is true or false"),
    "crops.size": Range(64, 8192, "the latent is an eighth of it, and networks halve that up to twice more", step=8),
    "crops.batch": Range(1, 65536, "a step needs a picture"),
    "crops.scale": Range(0, 64, "it is [smallest, largest] magnification", above=True),
    "crops.jitter": Range(0, 1, "it is the largest change of contrast and brightness"),
    "crops.views": Range(0, 4096, "it is the number of variants kept of each picture; 0 keeps none"),
    "crops.weather": Range(0, 1, "it is a share of the crops"),
    "crops.rare": Range(0, 1, "it is a share of the crops"),
    "crops.mix": Range(0, 1, "it is a share of the crops"),
    "crops.margin": Range(0, 1024, "the latent has a value for each 8 pixels", step=8),
    "loss.bpp": Range(0, 256, "it is a rate; loss.beta = 0 switches it off", above=True),
    "loss.beta": _WEIGHT,
    "loss.gamma": _WEIGHT,
    "loss.structure": _WEIGHT,
    "loss.class_offset": Range(1, 1e6, "classes weigh 1 / ln(class_offset + share)", above=True),
    "loss.lovasz": _WEIGHT,
    "loss.distill_logits": Range(0, 1, "it is the teacher's share; the labels have the rest"),
    "loss.distill_features": _WEIGHT,
    "restorer.width": _CHANNELS,
    "restorer.blocks": Range(1, 256, "it is a number of residual blocks"),
    "restorer.judge": _CHANNELS,
    "restorer.l1": _WEIGHT,
    "restorer.features": _WEIGHT,
    "restorer.adversarial": _WEIGHT,
    "restorer.task": _WEIGHT,
    "schedule.steps": Range(1, 10**9, "a run takes a step"),
    "schedule.lr": Range(0, 1e36, "it is the highest learning rate", above=True),
    "schedule.final": Range(0, 1, "it is the last learning rate's share of schedule.lr"),
    "schedule.warmup": Range(0, 10**9, "it is a number of steps"),
    "schedule.weight_decay": Range(0, 10, "it draws weights towards 0"),
    "schedule.ema": Range(0, 1, "it is the share of the average that stays at each step", below=True),
    "schedule.clip": Range(0, 1e38, "it is the longest gradient", above=True),
    "schedule.validate_every": _EVERY,
    "schedule.checkpoint_every": _EVERY,
    "schedule.freeze_norm": Range(-1, 10**9, "it is a step; -1 means never"),
    "schedule.patience": Range(0, 10**9, "it is a number of validations; 0 means never"),
    "schedule.codec_lr": Range(0, 10, "it is the codec's learning rate relative to schedule.lr"),
}


def check_ranges(config: dict[str, Any], source: str) -> None:
    """Raises `UsageError` naming the first key of `config` whose value is out of its range, the range and the reason."""
    for key, value in _numbers(config):
        wanted = RANGES[key]
        if not wanted.holds(value):
            raise UsageError(f"{source}: {key} must be {wanted}, got {value!r}: {wanted.why}")
    _check_lists(config, source)


def _check_lists(config: dict[str, Any], source: str) -> None:
    widths, scale, sets = config["head"]["widths"], config["crops"]["scale"], config["data"]["train"]
    if len(widths) != 3 or not all(type(v) is int for v in widths):
        raise UsageError(f"{source}: head.widths must be three whole numbers, the channels at 1/8, 1/16 and 1/32, got {widths!r}")
    if len(scale) != 2 or not all(_is_number(v) for v in scale) or scale[0] > scale[1]:
        raise UsageError(f"{source}: crops.scale must be [smallest, largest], two numbers, got {scale!r}")
    crops = config["crops"]
    if crops["views"] and (crops["weather"] or crops["rare"] or crops["mix"]):
        raise UsageError(f"{source}: crops.weather, crops.rare and crops.mix are for pictures cropped anew: set crops.views=0")
    pairs = [s for s in sets if isinstance(s, list) and len(s) == 2 and isinstance(s[0], str) and _is_number(s[1])]
    if len(pairs) != len(sets) or not all(math.isfinite(w) and w >= 0 for _, w in pairs) or not 0 < sum(w for _, w in pairs) < math.inf:
        raise UsageError(f"{source}: data.train must be a list of [spec, weight] pairs, weights not negative, one above 0; got {sets!r}")


def _numbers(config: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key in RANGES:
        value: Any = config
        for part in key.split("."):
            value = value[part]
        yield from ((key, v) for v in (value if isinstance(value, list) else [value]) if _is_number(v))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


__all__ = ["RANGES", "Range", "check_ranges"]
