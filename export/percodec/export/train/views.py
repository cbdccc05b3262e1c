"""A data set seen through a fixed codec: every picture varied a few times, encoded once, cropped ever after.

    picture -> scale, light, mirror -> | original    the picture itself
                                       | decoded     g_s(g_a(picture)), rounded
                                       | latent      symbols of g_a(picture)          -> crops on the 8-pixel grid

A head on a fixed codec is trained on crops of the latent (Torfason et al. 2018, section 4); crops, variants and their order depend on the
seed alone, so networks on pictures and on latents see the same places. Encoded views are kept on disk, keyed by what made them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from percodec.export.data.crops import Batch, relight, resize
from percodec.export.data.dataset import DataSet
from percodec.export.data.files import IGNORE
from percodec.export.models import Autoencoder
from percodec.export.train.arithmetic import training_arithmetic

Say = Callable[[str], None]


class Views:
    """`count` variants of every picture of `data` as the head reads them: uint8 [C,h,w] symbols or uint8 [3,H,W] pictures.

    `count` = 0: the pictures as they are, cropped to multiples of 8. `labels`: uint8 [H,W] each, or class indices.
    """

    def __init__(
        self,
        data: DataSet,
        codec: Autoencoder | None,
        reads: str,
        count: int,
        seed: int,
        scale: tuple[float, float],
        jitter: float,
        least: int,
        cache: Path | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self.data, self.codec, self.reads, self.count = data, codec, reads, count
        self.seed, self.scale, self.jitter, self.least = seed, scale, jitter, least
        self.factor = 8 if reads == "latent" else 1
        self.latent_channels = codec.channels if codec is not None else 3
        self.items: list[NDArray[np.uint8]] = []
        self.labels: list[NDArray[np.uint8]] = []
        flat, shapes = self._cached(cache, say)
        start = 0
        for shape in shapes:
            size = int(np.prod(shape))
            self.items.append(flat[start : start + size].reshape(shape))
            start += size
        if data.labels:
            self.labels = [self._variant(k, labels_only=True)[1] for k in range(len(self.items))]  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.items)

    def picture_of(self, index: int) -> int:
        """Which picture of the data set a view shows."""
        return index // max(1, self.count)

    def values(self, index: int) -> Tensor:
        """What the head reads, float [1,C,h,w] or [1,3,H,W]."""
        return self._values(torch.from_numpy(np.array(self.items[index]))[None])

    def _values(self, items: Tensor) -> Tensor:
        if self.reads == "latent" and self.codec is not None:
            return self.codec.quantizer.values(items).detach().cpu()
        return items.float()

    def _variant(self, index: int, labels_only: bool = False) -> tuple[Tensor | None, NDArray[np.uint8] | None]:
        k = self.picture_of(index)
        label = self.data.labels[k] if self.data.labels else None
        image = self.data.images[k]
        height, width = image.shape[0] // 8 * 8, image.shape[1] // 8 * 8
        if not self.count:
            piece = None if label is None else label[:height, :width]
            return torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1).float(), piece
        rng = np.random.default_rng((self.seed, k, index % self.count))
        factor = float(np.exp(rng.uniform(np.log(self.scale[0]), np.log(self.scale[1]))))
        factor = max(factor, self.least / min(height, width))
        height, width = round(height * factor / 8) * 8, round(width * factor / 8) * 8
        mirror = index % 2 == 1
        x, y = resize(image if not labels_only else image[..., :1], label, height, width)
        light = None if labels_only else relight(x, rng, self.jitter)
        if mirror:
            light, y = None if light is None else light.flip(-1), None if y is None else y.flip(-1)
        return light, None if y is None else y.to(torch.uint8).numpy()

    def _cached(self, cache: Path | None, say: Say) -> tuple[NDArray[np.uint8], list[list[int]]]:
        count = len(self.data) * max(1, self.count)
        if cache is None:
            return self._made(count, say)
        tight = any(min(image.shape[:2]) * self.scale[0] < self.least for image in self.data.images)
        made_by = [self.data.digest, self.reads, self.count, self.seed, self.scale, self.jitter, self.least if tight and self.count else 0]
        key = hashlib.sha256(json.dumps(made_by).encode())
        if self.codec is not None and self.reads != "original":
            for name, tensor in sorted(self.codec.state_dict().items()):
                key.update(name.encode() + tensor.cpu().numpy().tobytes())
        stem = cache / key.hexdigest()[:32]
        if not stem.with_suffix(".json").exists():
            flat, shapes = self._made(count, say)
            cache.mkdir(parents=True, exist_ok=True)
            for suffix, write in ((".npy", lambda p: _save(p, flat)), (".json", lambda p: p.write_text(json.dumps(shapes)))):
                part = stem.with_suffix(f"{suffix}.{os.getpid()}")
                write(part)
                os.replace(part, stem.with_suffix(suffix))
        return np.load(stem.with_suffix(".npy"), mmap_mode="r"), json.loads(stem.with_suffix(".json").read_text())

    @torch.no_grad()
    def _made(self, count: int, say: Say) -> tuple[NDArray[np.uint8], list[list[int]]]:
        device = next(self.codec.parameters()).device if self.codec is not None else torch.device("cpu")
        parts: list[NDArray[np.uint8]] = []
        for index in range(count):
            x = self._variant(index)[0]
            assert x is not None
            if self.codec is not None and self.reads != "original":
                image = x.round()[None].to(device).contiguous(memory_format=torch.channels_last)
                # Variants may be rounded to bf16, the pictures themselves may not: they are what a vehicle encodes.
                with training_arithmetic(device, enabled=self.count > 0):
                    z = self.codec.analyse(image)
                    if self.reads == "latent":
                        x = self.codec.quantizer.symbols(z)[0].cpu()
                    else:
                        x = self.codec.decode(self.codec.quantizer(z).q).clamp(0, 255)[0].cpu()
            parts.append(x.round().to(torch.uint8).contiguous().numpy())
            if (index + 1) % 200 == 0 or index + 1 == count:
                say(f"{self.reads} views of {self.data.name}: {index + 1}/{count}")
        return np.concatenate([p.ravel() for p in parts]), [list(p.shape) for p in parts]


def _save(path: Path, flat: NDArray[np.uint8]) -> None:
    with path.open("wb") as f:
        np.save(f, flat)


class ViewCrops:
    """`batch(step)` -> `Batch` cropped from views; `originals`, the same views as pictures, add `images` for a teacher."""

    def __init__(
        self,
        views: list[Views],
        weights: list[float],
        size: int,
        batch: int,
        seed: int,
        originals: list[Views] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.views, self.size, self.seed, self.originals = views, size, seed, originals
        self.p = np.asarray(weights, np.float64) / np.sum(weights)
        self.items = range(share[0], batch, share[1])

    def batch(self, step: int) -> Batch:
        inputs, labels, images = [], [], []
        for item in self.items:
            rng = np.random.default_rng((self.seed, step, item))
            s = int(rng.choice(len(self.views), p=self.p))
            views = self.views[s]
            index = int(rng.integers(len(views)))
            f, n = views.factor, self.size // 8
            h, w = (side * f // 8 for side in views.items[index].shape[-2:])
            y, x = int(rng.integers(h - n + 1)), int(rng.integers(w - n + 1))
            inputs.append(_window(views.items[index], y, x, n, 8 // f))
            if self.originals is not None:
                images.append(_window(self.originals[s].items[index], y, x, n, 8))
            if views.labels:
                labels.append(torch.from_numpy(np.array(views.labels[index][y * 8 : (y + n) * 8, x * 8 : (x + n) * 8])).long())
            elif views.data.targets:
                labels.append(torch.tensor(views.data.targets[views.picture_of(index)]))
            else:
                labels.append(torch.full((self.size, self.size), IGNORE))
        x_in = self.views[0]._values(torch.stack(inputs)).contiguous(memory_format=torch.channels_last)
        originals = torch.stack(images).float() if images else None
        return Batch(x_in, torch.stack(labels), originals)


def _window(item: NDArray[np.uint8], y: int, x: int, n: int, cell: int) -> Tensor:
    return torch.from_numpy(np.array(item[:, y * cell : (y + n) * cell, x * cell : (x + n) * cell]))


__all__ = ["ViewCrops", "Views"]
