"""The mean-scale hyperprior (Minnen et al. 2018) of CompressAI, as one more codec whose damage can be undone.

CompressAI is not among the dependencies: it pins an old numpy and imports torchvision and torch_geometric, of which it needs nothing
here. It is installed by the command in `INSTALL`; empty modules stand in for what is then absent.
"""

from __future__ import annotations

import importlib
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from percodec.export.evaluate.any_size import filled
from percodec.export.evaluate.codecs import Picture
from percodec.export.train.checkpoint import load_checkpoint
from percodec.sdk.errors import BackendError, DataError

INSTALL = "pip install --no-deps compressai==1.2.8 einops pytorch-msssim scipy"
# Imported by CompressAI for data sets and transforms of point clouds and for listing torchvision's transforms.
_UNUSED = (
    *("torchvision", "torchvision.transforms", "torch_geometric", "torch_geometric.data", "torch_geometric.data.datapipes"),
    *("torch_geometric.transforms", "pandas", "tqdm", "matplotlib", "matplotlib.pyplot", "requests"),
)
SIDE = 64  # its latent's latent is at 1/64


class _Absent(types.ModuleType):
    """A module whose every name is a class that does nothing, usable as a decorator."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **more: None, "__call__": lambda self, x: x})


def mean_scale_hyperprior(n: int, m: int) -> Any:
    """CompressAI's `MeanScaleHyperprior(N, M)`, fresh. Raises `BackendError` where CompressAI is not installed."""
    if find_spec("compressai") is None:
        raise BackendError(f"the codec hyperprior needs CompressAI; install with: {INSTALL}")
    standing_in = []
    for name in _UNUSED:
        top = name.partition(".")[0]
        if name not in sys.modules and (top in standing_in or find_spec(top) is None):
            sys.modules[name] = _Absent(name)
            standing_in.append(name)
    try:
        return importlib.import_module("compressai.models").MeanScaleHyperprior(n, m)
    except ImportError as e:
        raise BackendError(f"CompressAI cannot be imported: {e}; install with: {INSTALL}") from e
    finally:
        for name in standing_in:  # what looks for them later must not find these
            sys.modules.pop(name, None)


class Hyperprior:
    """A trained hyperprior at one rate: `{"model": state, "config": {"n": N, "m": M}}` as `benchmarks/train_hyperprior.py` writes."""

    def __init__(self, checkpoint: Path) -> None:
        state = load_checkpoint(checkpoint)
        sizes = state["config"].get("hyperprior", {})
        if not {"n", "m"} <= set(sizes):
            raise DataError(f"{checkpoint} holds no hyperprior: its configuration has no hyperprior.n and hyperprior.m")
        self.model = mean_scale_hyperprior(sizes["n"], sizes["m"]).eval()
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as e:
            raise DataError(f"{checkpoint} does not fit MeanScaleHyperprior({sizes['n']}, {sizes['m']}): {e}".replace("\n", " ")) from e
        self.model.update(force=True)
        self.name = f"hyperprior {checkpoint.parent.name}"

    @torch.no_grad()
    def round_trip(self, picture: Picture) -> tuple[bytes, Picture]:
        """Both strings, joined, and the picture decoded from them."""
        height, width = picture.shape[:2]
        x = torch.from_numpy(filled(picture, SIDE)).permute(2, 0, 1)[None].float() / 255
        coded = self.model.compress(x)
        restored = self.model.decompress(coded["strings"], coded["shape"])["x_hat"].clamp(0, 1)
        picture = (restored[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return b"".join(part[0] for part in coded["strings"]), np.ascontiguousarray(picture[:height, :width])


__all__ = ["INSTALL", "Hyperprior", "mean_scale_hyperprior"]
