"""Pairs to learn from: clean pictures, and the same pictures after a codec at some rates.

    clean/a.png  +  twin1/a.png (0.1 bpp)  +  twin2/a.png (0.2 bpp)  ->  crops at the same place, on the 8-pixel grid
    clean/a.png  +  bundle                 ->  symbols of the latent and the picture, cropped alike

Every twentieth picture is kept aside to watch the training by; nothing is chosen on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.data.crops import Batch
from percodec.export.data.files import Files, read_rgb, read_size
from percodec.export.restore.mirror import SUFFIXES, rates_of
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import DataError

ASIDE = 20
HELD = 4 << 30  # bytes of pixels kept in memory; beyond, pictures are decoded anew for every crop


class Item(NamedTuple):
    """One compressed picture beside its clean one: uint8 [H,W,3] or symbols [C,h,w], bits per pixel, uint8 [H,W,3]."""

    compressed: NDArray[np.uint8]
    bpp: float
    clean: NDArray[np.uint8]


class Pairs:
    """Every clean picture with each of its twins."""

    def __init__(self, clean: Path, twins: Sequence[Path], bundle: Bundle | None = None) -> None:
        found = (p.relative_to(clean) for p in sorted(clean.rglob("*")) if p.suffix.lower() in SUFFIXES)
        names = [p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts)]
        if not names:
            raise DataError(f"no pictures in {clean}")
        sizes = [read_size(clean / n) for n in names]
        self.names, self.latent = names, bundle is not None
        self._made_of = {"--clean": _digest(clean, names)} | {f"--compressed {t.name}": _digest(t, names) for t in twins if t.is_dir()}
        if bundle is not None:
            self._made_of["--bundle"] = bundle.digest
        pixels = sum(h * w for h, w in sizes) * 3
        hold = pixels * (1 + len(twins)) <= HELD
        self._clean = _open([clean / n for n in names], hold)
        self._twins: list[Sequence[NDArray[np.uint8]]] = []
        self._rates: list[list[float]] = []
        for twin in twins:
            rates = rates_of(twin)
            for name, size in zip(names, sizes, strict=True):
                if not (twin / name).is_file():
                    raise DataError(f"{twin} has no {name}: it must hold the pictures of {clean}, compressed, under the same names")
                if read_size(twin / name) != size:
                    raise DataError(f"{twin / name} is not as large as {clean / name}")
                if name not in rates:
                    raise DataError(f"{twin} does not say at which rate {name} was compressed; make it by `percodec restore compress`")
            self._twins.append(_open([twin / n for n in names], hold))
            self._rates.append([rates[n] for n in names])
        if bundle is not None:
            self._encode(bundle, sizes)
        if not self._twins:
            raise DataError("nothing to learn from: give compressed twins, or a bundle for a restorer of latents")

    def _encode(self, bundle: Bundle, sizes: Sequence[tuple[int, int]]) -> None:
        from percodec.export.evaluate.any_size import BundleAtAnySize

        coder, symbols, rates = BundleAtAnySize(bundle), [], []
        for name, picture, (height, width) in zip(self.names, self._clean, sizes, strict=True):
            if height % 8 or width % 8:
                raise DataError(f"{name} is {width}x{height}: latents are learned from pictures whose sides are multiples of 8")
            packet, latent = coder.symbols(picture)
            symbols.append(latent)
            rates.append(len(packet) * 8 / (height * width))
        self._twins.append(symbols)
        self._rates.append(rates)

    def made_of(self) -> dict[str, str]:
        """What a run of these pairs depends on, by digests; of pictures, over names and file sizes."""
        return dict(self._made_of)

    @property
    def bpp(self) -> tuple[float, float]:
        """The lowest and the highest rate there is."""
        every = [r for rates in self._rates for r in rates]
        return min(every), max(every)

    def indices(self, aside: bool) -> list[tuple[int, int]]:
        """(twin, picture) of the pairs that are trained on, or of those kept aside."""
        last = ASIDE - 1
        few = len(self.names) <= last  # too few to do without one
        return [(t, k) for t in range(len(self._twins)) for k in range(len(self.names)) if few or (k % ASIDE == last) == aside]

    def item(self, twin: int, picture: int) -> Item:
        return Item(self._twins[twin][picture], self._rates[twin][picture], self._clean[picture])


def _digest(folder: Path, names: Sequence[str]) -> str:
    h = hashlib.sha256()
    for name in names:
        path = folder / name
        h.update(f"{name}\0{path.stat().st_size if path.is_file() else -1}\n".encode(errors="surrogateescape"))
    return h.hexdigest()


def _open(paths: list[Path], hold: bool) -> Sequence[NDArray[np.uint8]]:
    files = Files(paths, read_rgb)
    return [files[k] for k in range(len(files))] if hold else files


class PairCrops:
    """`batch(step)` -> `Batch`: inputs compressed [N,3,S,S] or center values [N,C,S/8,S/8], labels bits per pixel [N], images clean."""

    def __init__(self, pairs: Pairs, centers: Any, size: int, batch: int, seed: int) -> None:
        self.pairs, self.centers, self.size, self.count, self.seed = pairs, centers, size, batch, seed
        self.indices = pairs.indices(aside=False)

    def batch(self, step: int) -> Batch:
        inputs, rates, images = [], [], []
        for item in range(self.count):
            rng = np.random.default_rng((self.seed, step, item))
            found = self.pairs.item(*self.indices[int(rng.integers(len(self.indices)))])
            height, width = found.clean.shape[:2]
            size = self.size
            if min(height, width) < size:
                raise DataError(f"a picture of {width}x{height} is smaller than crops.size = {size}; lower it with --set crops.size=N")
            y, x = (8 * int(rng.integers((side - size) // 8 + 1)) for side in (height, width))
            image = torch.from_numpy(found.clean[y : y + size, x : x + size].copy()).permute(2, 0, 1)
            if self.pairs.latent:
                cells = size // 8
                cut = torch.from_numpy(found.compressed[:, y // 8 : y // 8 + cells, x // 8 : x // 8 + cells].copy())
            else:
                cut = torch.from_numpy(found.compressed[y : y + size, x : x + size].copy()).permute(2, 0, 1)
            if rng.random() < 0.5 and not self.pairs.latent:  # a mirrored latent is not the latent of the mirrored picture
                image, cut = image.flip(-1), cut.flip(-1)
            inputs.append(cut)
            images.append(image)
            rates.append(found.bpp)
        x_in = torch.stack(inputs)
        values = self.centers[x_in.long()] if self.pairs.latent else x_in.float()
        pictures = torch.stack(images).float().contiguous(memory_format=torch.channels_last)
        return Batch(values.contiguous(memory_format=torch.channels_last), torch.tensor(rates), pictures)


__all__ = ["ASIDE", "Item", "PairCrops", "Pairs"]
