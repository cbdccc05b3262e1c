"""Training configurations: YAML files by name or path, `--set a.b=c` on top, every key checked against the defaults here."""

from __future__ import annotations

import copy
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from percodec.sdk.errors import UsageError

Config = dict[str, Any]

DEFAULTS: Config = {
    "task": "codec",  # codec | segmentation
    "seed": 1,
    "codec": {"name": "edge", "channels": 16, "levels": 6},
    "head": {"classes": 11, "widths": [96, 144, 192], "pyramid": 96, "dropout": 0.1},
    # train: [[spec, weight], ...]; {name} in a spec is filled in by `--data name=PATH`, so a configuration holds no machine's paths.
    "data": {"train": [["camvid:{camvid}:train", 1.0]], "val": "camvid:{camvid}:val"},
    "crops": {"size": 192, "batch": 12, "scale": [0.75, 1.5], "jitter": 0.2},
    # bpp and beta: rate target and its weight; gamma: weight of the codec's loss beside cross-entropy (0 freezes the codec);
    # structure: weight of 1 - MS-SSIM beside the squared error; codec_lr: the codec's learning rate relative to the head's.
    "loss": {"bpp": 0.33, "beta": 500.0, "gamma": 0.001, "structure": 0.0, "class_offset": 1.05},
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
            text = path.read_text()
        except OSError as e:
            raise UsageError(f"configuration {name}: {e.strerror or e}") from e
    elif name in names():
        text = (resources.files("percodec.export") / "configs" / f"{name}.yaml").read_text()
    else:
        raise UsageError(f"unknown configuration {name!r}; known: {', '.join(names())}, or a path ending in .yaml")
    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as e:
        raise UsageError(f"configuration {name} is not YAML: {e}".replace("\n", " ")) from e
    config = copy.deepcopy(DEFAULTS)
    _merge(config, given, name, "")
    for item in overrides:
        key, sign, value = item.partition("=")
        if not sign:
            raise UsageError(f"--set {item!r}: write it as key.sub=value")
        nested: Any = yaml.safe_load(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(config, nested, f"--set {item}", "")
    return config


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
            except ValueError as e:
                raise UsageError(f"{source}: {where} must be a number, got {value!r}") from e
        if type(value) is not type(default):
            raise UsageError(f"{source}: {where} must be {type(default).__name__}, got {value!r}")
        base[key] = value


def resolve(spec: str, places: dict[str, str]) -> str:
    """Fill `{name}` in a data spec from `--data name=PATH`."""
    try:
        return spec.format(**places)
    except (KeyError, IndexError, ValueError) as e:
        missing = str(e).strip("'")
        raise UsageError(f"data set {spec!r} needs --data {missing}=PATH") from e


__all__ = ["DEFAULTS", "Config", "load_config", "names", "resolve"]
