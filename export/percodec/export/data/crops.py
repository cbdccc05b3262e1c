"""Random training crops: scale, position, mirror, light. Deterministic in (seed, step), so a resumed run sees the same batches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from percodec.export.data.dataset import DataSet
from percodec.export.data.files import IGNORE
from percodec.export.data.weather import weathered

RARE = 0.02  # of the pixels


class Batch(NamedTuple):
    """One step's data.

    `inputs`: float [N,3,S,S] pictures in 0..255, or center values of the latent [N,C,S/8,S/8]. `labels`: int64 [N,S,S], 255 unknown, or
    class indices [N]. `images`: the original pictures behind `inputs` where those are something else and a teacher wants them.
    """

    inputs: Tensor
    labels: Tensor
    images: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t if t is None else t.to(device, non_blocking=True) for t in self))  # type: ignore[arg-type]


class Crops:
    """`batch(step)` -> `Batch` of pictures, cropped at random from `sets`.

    `sets` are drawn with probability proportional to `weights`, pictures uniformly within a set. Of several processes each takes
    its `share` = (rank, world) of the same batch. `margin` pixels on every side are added to `size` for the codec's surroundings.
    `weather`: share of crops seen through bad light, weather or a bad lens. `rare`: share of crops around a pixel of a rare class.
    `mix`: share of crops with a rectangle of another crop in them (CutMix, Yun et al. 2019).
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
        margin: int = 0,
        weather: float = 0.0,
        rare: float = 0.0,
        mix: float = 0.0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if size % 8 or margin % 8:
            raise ValueError(f"crop size and margin must be multiples of 8, got {size} and {margin}")
        if batch % share[1]:
            raise ValueError(f"a batch of {batch} cannot be shared by {share[1]} processes")
        self.sets = sets
        self.p = np.asarray(weights, np.float64) / np.sum(weights)
        self.size, self.n, self.seed, self.scale, self.jitter = size + 2 * margin, batch, seed, scale, jitter
        self.weather, self.rare, self.mix = weather, rare, mix
        self.holding = [_holding(data) if rare else {} for data in sets]
        self.items = range(share[0], batch, share[1])
        self.classified = bool(sets[0].targets)

    def batch(self, step: int) -> Batch:
        images = torch.empty(len(self.items), 3, self.size, self.size)
        labels = torch.full((len(self.items), self.size, self.size), IGNORE, dtype=torch.int64)
        targets = torch.zeros(len(self.items), dtype=torch.int64)
        for i, item in enumerate(self.items):
            rng = np.random.default_rng((self.seed, step, item))
            s = int(rng.choice(len(self.sets), p=self.p))
            data, centre = self.sets[s], None
            k = int(rng.integers(len(data)))
            if self.holding[s] and rng.random() < self.rare:
                k, centre = _around_rare(data, self.holding[s], rng)
            self._crop(data, k, rng, images[i], labels[i], centre)
            if self.classified:
                targets[i] = data.targets[k]
        if self.mix and not self.classified:
            images, labels = self._mixed(images, labels, step)
        return Batch(images.contiguous(memory_format=torch.channels_last), targets if self.classified else labels)

    def _mixed(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """With rectangles, a quarter to three quarters of each side, of the crop before."""
        mixed, known = images.clone(), labels.clone()
        for i, item in enumerate(self.items):
            rng = np.random.default_rng((self.seed, step, item, 1))
            if rng.random() >= self.mix:
                continue
            (top, bottom), (left, right) = (self._span(rng), self._span(rng))
            mixed[i, :, top:bottom, left:right] = images[i - 1, :, top:bottom, left:right]
            known[i, top:bottom, left:right] = labels[i - 1, top:bottom, left:right]
        return mixed, known

    def _span(self, rng: np.random.Generator) -> tuple[int, int]:
        length = int(rng.integers(self.size // 4, 3 * self.size // 4 + 1))
        first = int(rng.integers(self.size - length + 1))
        return first, first + length

    def _crop(
        self, data: DataSet, k: int, rng: np.random.Generator, image_out: Tensor, label_out: Tensor, centre: tuple[int, int] | None
    ) -> None:
        image, label = data.images[k], data.labels[k] if data.labels else None
        h, w = image.shape[:2]
        scale = np.exp(rng.uniform(np.log(self.scale[0]), np.log(self.scale[1])))
        side = min(round(self.size / scale), h, w)
        y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
        if centre is not None:
            y, x = (int(np.clip(c - rng.integers(side), 0, room - side)) for c, room in zip(centre, (h, w), strict=True))
        crop, piece = resize(image[y : y + side, x : x + side], None if label is None else label[y : y + side, x : x + side], self.size)
        crop = weathered(relight(crop, rng, self.jitter), rng, self.weather) if self.weather else relight(crop, rng, self.jitter)
        mirror = bool(rng.random() < 0.5)
        image_out.copy_(crop.flip(-1) if mirror else crop)
        if piece is not None:
            label_out.copy_(piece.flip(-1) if mirror else piece)


def _holding(data: DataSet) -> dict[int, list[int]]:
    """Class -> the pictures with pixels of it, for classes of less than 2 % of the pixels; groups of classes count as classes."""
    counts = np.array([np.bincount(label.ravel(), minlength=256)[:IGNORE] for label in data.labels]).reshape(-1, IGNORE)
    share = counts.sum(0) / max(1, counts.sum())
    return {int(c): np.flatnonzero(counts[:, c]).tolist() for c in np.flatnonzero((share > 0) & (share < RARE))}


def _around_rare(data: DataSet, holding: dict[int, list[int]], rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    """A picture, and a pixel (row, column) of a rare class in it; classes are equally likely."""
    classes = sorted(holding)
    chosen = classes[int(rng.integers(len(classes)))]
    k = holding[chosen][int(rng.integers(len(holding[chosen])))]
    pixels = np.flatnonzero(data.labels[k] == chosen)
    row, column = divmod(int(pixels[int(rng.integers(len(pixels)))]), data.labels[k].shape[1])
    return k, (row, column)


def resize(
    image: NDArray[np.uint8], label: NDArray[np.uint8] | None, height: int, width: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """-> float [3,height,width] antialiased, int64 [height,width] nearest. `width` defaults to `height`."""
    size = (height, height if width is None else width)
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    if x.shape[-2:] != size:
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    if label is None:
        return x[0], None
    y = F.interpolate(torch.from_numpy(label.copy())[None, None].float(), size=size, mode="nearest-exact")
    return x[0], y[0, 0].long()


def relight(x: Tensor, rng: np.random.Generator, jitter: float) -> Tensor:
    """Random contrast, brightness and tint of a picture in 0..255."""
    gain, bias = 1 + rng.uniform(-jitter, jitter), 255 * rng.uniform(-jitter, jitter) / 2
    tint = torch.tensor(1 + rng.uniform(-jitter, jitter, (3, 1, 1)) / 4, dtype=torch.float32)
    return ((x - 128) * gain * tint + 128 + bias).clamp_(0, 255)


__all__ = ["Batch", "Crops", "relight", "resize"]
