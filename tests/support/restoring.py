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
