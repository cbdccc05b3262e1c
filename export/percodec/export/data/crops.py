"""Random training crops: scale, position, mirror, light. Deterministic in (seed, step), so a resumed run sees the same batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from percodec.export.data.sets import IGNORE, DataSet


class Crops:
    """`batch(step)` -> (image float32 [N,3,S,S] in 0..255, labels int64 [N,S,S]); labels are 255 where unknown.

    `sets` are drawn with probability proportional to `weights`, pictures uniformly within a set.
    """

    def __init__(
        self,
        sets: list[DataSet],
        weights: list[float],
        size: int,
        batch: int,
        seed: int,
        scale: tuple[float, float] = (0.75, 1.5),
        jitter: float = 0.2,
    ) -> None:
        if size % 8:
            raise ValueError(f"crop size must be a multiple of 8, got {size}")
        self.sets = sets
        self.p = np.asarray(weights, np.float64) / np.sum(weights)
        self.size, self.n, self.seed, self.scale, self.jitter = size, batch, seed, scale, jitter

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step))
        images = torch.empty(self.n, 3, self.size, self.size)
        labels = torch.full((self.n, self.size, self.size), IGNORE, dtype=torch.int64)
        for i in range(self.n):
            data = self.sets[rng.choice(len(self.sets), p=self.p)]
            k = int(rng.integers(len(data)))
            self._crop(data, k, rng, images[i], labels[i])
        return images.contiguous(memory_format=torch.channels_last), labels

    def _crop(self, data: DataSet, k: int, rng: np.random.Generator, image_out: Tensor, label_out: Tensor) -> None:
        image, label = data.images[k], data.labels[k] if data.labels else None
        h, w = image.shape[:2]
        scale = np.exp(rng.uniform(np.log(self.scale[0]), np.log(self.scale[1])))
        side = min(round(self.size / scale), h, w)
        y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        crop = torch.from_numpy(image[y : y + side, x : x + side].copy()).permute(2, 0, 1)[None].float()
        size = (self.size, self.size)
        if side != self.size:
            crop = F.interpolate(crop, size=size, mode="bilinear", antialias=True, align_corners=False)
        gain = 1 + rng.uniform(-self.jitter, self.jitter)
        bias = 255 * rng.uniform(-self.jitter, self.jitter) / 2
        tint = torch.tensor(1 + rng.uniform(-self.jitter, self.jitter, (3, 1, 1)) / 4, dtype=torch.float32)
        crop = ((crop[0] - 128) * gain * tint + 128 + bias).clamp_(0, 255)
        mirror = rng.random() < 0.5
        image_out.copy_(crop.flip(-1) if mirror else crop)
        if label is not None:
            piece = torch.from_numpy(label[y : y + side, x : x + side].copy())[None, None].float()
            piece = F.interpolate(piece, size=size, mode="nearest-exact")[0, 0].long()
            label_out.copy_(piece.flip(-1) if mirror else piece)


__all__ = ["Crops"]
