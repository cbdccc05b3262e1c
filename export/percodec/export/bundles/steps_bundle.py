"""What a bundle of a codec with a step for each channel has besides: the range of its symbols, and further decoders of the same packets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.models import Autoencoder, Steps
from percodec.export.train.checkpoint import load_checkpoint
from percodec.export.train.from_config import trained_model
from percodec.sdk.bundle import Step
from percodec.sdk.bundle.graphs import DECODER
from percodec.sdk.errors import UsageError

_PICTURES = 200


@torch.no_grad()
def fit_levels(codec: Autoencoder, images: Sequence[NDArray[np.uint8]]) -> None:
    """Give each channel the levels that pictures need, uint8 [H,W,3] each, and black, white and pure colours: no sky saturates."""
    quantizer = codec.quantizer
    assert isinstance(quantizer, Steps)
    side = 64
    flats = [np.tile(np.array(colour, np.uint8), (side, side, 1)) for colour in product((0, 255), repeat=3)]
    lowest = highest = torch.zeros(codec.channels)
    for image in [*images[:: max(1, len(images) // _PICTURES)], *flats]:
        x = torch.from_numpy(image[: image.shape[0] // 8 * 8, : image.shape[1] // 8 * 8].copy()).permute(2, 0, 1)[None].float()
        u = quantizer.in_steps(codec.analyse(x)).round()
        lowest, highest = torch.minimum(lowest, u.amin((0, 2, 3))), torch.maximum(highest, u.amax((0, 2, 3)))
    quantizer.fit_range(lowest.long(), highest.long())


def steps_of(quantizer: Steps) -> list[Step]:
    """What the manifest says of each channel."""
    values = zip(quantizer.step.tolist(), quantizer.offset.tolist(), quantizer.levels.tolist(), strict=True)
    return [Step(step, int(offset), int(levels)) for step, offset, levels in values]


def further_decoders(codec: Autoencoder, checkpoints: Mapping[str, Path]) -> dict[str, Autoencoder]:
    """{graph name: codec with that decoder} of NAME -> a run on the same encoder. Raises `UsageError` where one is of another encoder."""
    found = {}
    for name, path in checkpoints.items():
        graph = f"decoder_{name}"
        if not DECODER.fullmatch(graph):
            raise UsageError(f"--decoder {name}=...: a decoder's name is up to 60 of a-z, 0-9 and _")
        state = load_checkpoint(path)
        model = trained_model(state)
        other = model.eval().codec
        if other is None or not _same_encoder(codec, other):
            raise UsageError(f"--decoder {path} was trained on another encoder: train it with --codec and --set codec.fixed_encoder=true")
        other.quantizer = codec.quantizer
        found[graph] = other
    return found


def _same_encoder(one: Autoencoder, other: Autoencoder) -> bool:
    mine, theirs = one.g_a.state_dict(), other.g_a.state_dict()
    if mine.keys() != theirs.keys() or not all(torch.equal(mine[k], theirs[k]) for k in mine):
        return False
    if isinstance(one.quantizer, Steps) and isinstance(other.quantizer, Steps):
        return torch.equal(one.quantizer.step, other.quantizer.step)
    mine, theirs = one.quantizer.state_dict(), other.quantizer.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


__all__ = ["fit_levels", "further_decoders", "steps_of"]
