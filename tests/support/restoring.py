"""Shared by the tests of dataset restoration."""

from pathlib import Path

FACTS = {"network": "residual", "bpp": [0.05, 1.0], "trained_on": [{"name": "jpeg"}], "bundle": None}


def wake(network):
    """Away from the identity it starts as."""
    import torch

    torch.manual_seed(3)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def pictures(folder: Path, count: int, seed: int = 1) -> Path:
    """Small ones, in a folder `train`."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    (folder / "train").mkdir(parents=True)
    for k in range(count):
        Image.fromarray(rng.integers(0, 256, (16 + k % 5, 24, 3), np.uint8)).save(folder / "train" / f"{k:04d}.png", compress_level=0)
    return folder
