"""Codecs by name: what `codec.name` of a configuration may be."""

from __future__ import annotations

from collections.abc import Callable

from percodec.export.models.autoencoder import Autoencoder, balanced, cvpr18, edge, fast, theis3
from percodec.export.models.linear import block, refined

AUTOENCODERS: dict[str, Callable[[int, int, float], Autoencoder]] = {
    "theis3": theis3,
    "cvpr18": cvpr18,
    "edge": edge,
    "fast": fast,
    "balanced": balanced,
    "block": block,
    "refined": refined,
}


__all__ = ["AUTOENCODERS"]
