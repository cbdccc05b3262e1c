"""Training configurations: YAML files by name or path, `--set a.b=c` on top, every key checked against the defaults here."""

from __future__ import annotations

import copy
import math
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from percodec.export.train.ranges import check_ranges
from percodec.sdk.errors import UsageError
from percodec.sdk.files import read_file

PRECISIONS = ("auto", "bf16", "fp32")

Config = dict[str, Any]

TASKS = ("codec", "classification", "segmentation", "joint", "restore")

DEFAULTS: Config = {
    "task": "codec",  # one of TASKS
    "seed": 1,
    # sigma rises geometrically to sigma_final over the run: equal values mean no annealing.
    # fixed_encoder: encoder and quantizer stay as they are, and the decoder alone learns, on symbols.
    "codec": {"name": "edge", "channels": 16, "levels": 6, "width": 1.0, "sigma": 1.0, "sigma_final": 1.0, "fixed_encoder": False},
    # input: latent | decoded | original. presence: the share of a crop from which a class counts as present, where pictures are
    # classified by what their label maps hold. widths and pyramid are fpn's, width is the others'. shrink: of heads that
    # `percodec export --shrink` made of trained ones; training knows 1 only. kept: when a run has ended, the share of the weights in its
    # head that are those of --head. offsets: when a segmentation has ended, add to each class's logit what makes mean IoU highest on
    # pictures of the first training set.
    "head": {
        "name": "fpn",
        "input": "latent",
        "classes": 11,
        "width": 1.0,
        "dropout": 0.1,
        "presence": 0.01,
        "widths": [96, 144, 192],
        "pyramid": 96,
        "shrink": 1,
        "kept": 0.0,
        "offsets": False,
    },
    # train: [[spec, weight], ...]; {name} in a spec is filled in by `--data name=PATH`, so a configuration holds no machine's paths.
    "data": {"train": [["camvid:{camvid}:train", 1.0]], "val": "camvid:{camvid}:val"},
    # views: with a fixed codec, how many variants of each picture are encoded beforehand and cropped from; 0 encodes every crop anew,
    # with `margin` pixels around it that only the codec sees. weather: share of crops that are made dark, hazy, blurred, noisy, too bright
    # or of other colours before the encoder. rare: share of crops around a pixel of a class that less than 2 % of the pixels have.
    # mix: share of crops with a rectangle of another in them.
    "crops": {
        "size": 192,
        "batch": 12,
        "scale": [0.75, 1.5],
        "jitter": 0.2,
        "views": 0,
        "margin": 0,
        "weather": 0.0,
        "rare": 0.0,
        "mix": 0.0,
    },
    # bpp and beta: rate target and its weight; structure: weight of 1 - MS-SSIM beside the squared error; gamma: weight of the codec's loss
    # beside cross-entropy (joint); lovasz: weight of the Lovász loss beside cross-entropy (segmentation); distill_*: with --teacher, its
    # logits' share and its stage features' weight.
    "loss": {
        "bpp": 0.33,
        "beta": 500.0,
        "gamma": 0.001,
        "structure": 0.0,
        "class_offset": 1.05,
        "lovasz": 0.0,
        "distill_logits": 0.5,
        "distill_features": 1.0,
    },
    # network: residual | corrector | latent; width and blocks are residual's and latent's; judge: width of the discriminator. The others
    # are the weights of the loss in `percodec.export.restore.train`.
    "restorer": {
        "network": "residual",
        "width": 48,
        "blocks": 6,
        "judge": 32,
        "l1": 10.0,
        "features": 1.0,
        "adversarial": 0.1,
        "task": 0.0,
    },
    # freeze_norm: from this step on batch norm uses its running statistics (-1: never). Batch statistics take each batch's mean
    # brightness out of the latent, an error the codec cannot learn to avoid. patience: stop after so many validations without a better
    # one (0: never). codec_lr: the codec's learning rate relative to lr. precision: auto (bf16 where the machine has units for
    # it) | bf16 | fp32.
    "schedule": {
        "steps": 4000,
        "lr": 1.5e-3,
        "final": 0.05,
        "warmup": 100,
        "weight_decay": 1e-4,
        "ema": 0.998,
        "clip": 5.0,
        "validate_every": 500,
        "checkpoint_every": 200,
        "freeze_norm": -1,
        "patience": 0,
        "codec_lr": 1.0,
        "precision": "auto",
    },
}


def names() -> list[str]:
    """The configurations that come with the package."""
    folder = resources.files("percodec.export") / "configs"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_config(name: str, overrides: list[str]) -> Config:
    """A packaged name or a path to a YAML file, with `a.b=value` overrides (values are YAML). Raises `UsageError`."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = read_file(path, 1 << 20).decode("utf-8-sig")
        except OSError as e:
            raise UsageError(f"configuration {name}: {e.strerror or e}") from e
        except ValueError as e:
            raise UsageError(f"configuration {name} is not UTF-8 text: {e}") from e
    elif name in names():
        text = (resources.files("percodec.export") / "configs" / f"{name}.yaml").read_text()
    else:
        raise UsageError(f"unknown configuration {name!r}; known: {', '.join(names())}, or a path ending in .yaml")
    given = _yaml(text, f"configuration {name}") or {}
    config = copy.deepcopy(DEFAULTS)
    _merge(config, given, name, "")
    for item in overrides:
        key, sign, value = item.partition("=")
        if not sign:
            raise UsageError(f"--set {item!r}: write it as key.sub=value")
        nested = _yaml(value, f"--set {item}")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(config, nested, f"--set {item}", "")
    check(config, name)
    return config


def check(config: Config, source: str) -> None:
    """What the types cannot say. Raises `UsageError` with the reason."""
    codec, loss = config["codec"], config["loss"]
    if config["task"] not in TASKS:
        raise UsageError(f"{source}: task must be one of {', '.join(TASKS)}, got {config['task']!r}")
    check_ranges(config, source)
    most = codec["channels"] * math.log2(codec["levels"]) / 64
    if config["task"] in ("codec", "joint") and not 0 < loss["bpp"] < most:
        raise UsageError(
            f"{source}: loss.bpp = {loss['bpp']:g} cannot be reached: C = {codec['channels']} channels of L = {codec['levels']} levels at "
            f"1/8 of the picture's sides hold at most C * log2(L) / 64 = {most:.4f} bpp; lower loss.bpp or raise codec.channels"
        )
    if config["task"] == "joint" and loss["gamma"] <= 0:
        raise UsageError(f"{source}: a joint run needs loss.gamma above 0; for a fixed codec use the task classification or segmentation")
    if config["schedule"]["precision"] not in PRECISIONS:
        raise UsageError(f"{source}: schedule.precision must be one of {', '.join(PRECISIONS)}, got {config['schedule']['precision']!r}")


def completed(config: Config) -> Config:
    """A configuration saved by an earlier version, with the defaults of keys that came later."""

    def fill(base: Config, given: Config) -> Config:
        return {**base, **{k: fill(base[k], v) if isinstance(base.get(k), dict) and isinstance(v, dict) else v for k, v in given.items()}}

    return fill(copy.deepcopy(DEFAULTS), config)


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as e:  # ValueError: a date or a number that is none
        raise UsageError(f"{source} is not YAML: {e}".replace("\n", " ")) from e


def _merge(base: Config, given: Any, source: str, prefix: str) -> None:
    if not isinstance(given, dict):
        raise UsageError(f"{source}: {prefix or 'the top level'} must be a mapping")
    for key, value in given.items():
        where = f"{prefix}{key}"
        if key not in base:
            raise UsageError(f"{source}: unknown key {where}; known here: {', '.join(base)}")
        default = base[key]
        if isinstance(default, dict):
            _merge(default, value, source, where + ".")
            continue
        if isinstance(default, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                value = float(value)  # YAML reads 1e-3 as text
            except (ValueError, OverflowError) as e:
                raise UsageError(f"{source}: {where} must be a number, got {value!r}") from e
        if type(value) is not type(default):
            raise UsageError(f"{source}: {where} must be {type(default).__name__}, got {value!r}")
        base[key] = value


def resolve(spec: str, places: dict[str, str]) -> str:
    """Fill `{name}` in a data spec from `--data name=PATH`."""
    try:
        return spec.format(**places)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as e:
        missing = str(e).strip("'")
        raise UsageError(f"data set {spec!r} needs --data {missing}=PATH") from e


__all__ = ["DEFAULTS", "TASKS", "Config", "check", "completed", "load_config", "names", "resolve"]
