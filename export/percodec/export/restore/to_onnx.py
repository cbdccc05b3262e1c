"""A trained restorer to ONNX: uint8 in, uint8 out, any size, what it was trained on in its metadata."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from percodec.export.models.to_onnx import fold, graph_bytes
from percodec.export.restore.networks import Latent

_HEIGHT, _WIDTH = torch.export.Dim("rows", min=2, max=4096), torch.export.Dim("columns", min=2, max=4096)


class _Picture(nn.Module):
    def __init__(self, restorer: nn.Module) -> None:
        super().__init__()
        self.restorer = restorer

    def forward(self, image: Tensor, bpp: Tensor) -> Tensor:
        restored = self.restorer(image.to(torch.float32).permute(0, 3, 1, 2), bpp)
        return restored.clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8)  # type: ignore[no-any-return]


class _Symbols(nn.Module):
    def __init__(self, restorer: nn.Module, centers: Tensor) -> None:
        super().__init__()
        self.restorer = restorer
        self.register_buffer("centers", centers)

    def forward(self, symbols: Tensor) -> Tensor:
        q = torch.nn.functional.embedding(symbols.to(torch.int32), self.centers.view(-1, 1)).squeeze(-1)  # type: ignore[operator]
        restored = self.restorer(q, q[:, 0, 0, 0])
        return restored.clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8)  # type: ignore[no-any-return]


def restorer_graph(restorer: nn.Module, centers: Tensor | None, facts: dict[str, str]) -> bytes:
    """ONNX bytes; see `restorer.Restorer` for inputs and output. `centers` where latents are read."""
    if isinstance(restorer, Latent):
        assert centers is not None
        module: nn.Module = _Symbols(restorer, centers)
        example: tuple[Tensor, ...] = (torch.zeros(1, restorer.channels, 20, 24, dtype=torch.uint8),)
        shapes: dict[str, dict[int, object]] = {"symbols": {2: _HEIGHT, 3: _WIDTH}}
    else:
        module = _Picture(restorer)
        example = (torch.zeros(1, 160, 192, 3, dtype=torch.uint8), torch.tensor([0.1]))
        shapes = {"image": {1: 8 * _HEIGHT, 2: 8 * _WIDTH}, "bpp": {}}
    return graph_bytes(fold(module), example, list(shapes), "restored", shapes, facts)


__all__ = ["restorer_graph"]
