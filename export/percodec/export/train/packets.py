"""Heads trained straight from packets: `packets:DIR:SPLIT` as a data set, batches cropped from its latents, validation in its order.

PacketDataset -> uint8 latents [N,C,h,w], labels -> crops on the 8-pixel grid -> center values -> the head
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from percodec.export.data.crops import Batch
from percodec.export.data.dataset import DataSet
from percodec.export.fleet.dataset import PacketBatch, PacketDataset
from percodec.export.fleet.labels import LABELS, TARGET, Labels, label_map
from percodec.export.fleet.store import Store
from percodec.export.models import Autoencoder, head_kind
from percodec.export.train import distributed
from percodec.export.train.config import Config
from percodec.export.train.tasks import Joint
from percodec.export.train.validate import Record, Sample, judge_head
from percodec.runtime.session import open_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import DataError, UsageError

KIND = "packets:"
Say = Callable[[str], None]
Values = Callable[[Tensor], Tensor]


def is_packets(spec: str) -> bool:
    return spec.startswith(KIND)


@dataclass(frozen=True)
class PacketSet:
    """`packets:DIR:SPLIT`: logs below DIR, labels in DIR/labels. As a `DataSet` says it: `name`, `digest` of names and sizes, its length.

    Raises `DataError`, `BundleError`.
    """

    spec: str
    bundle: Bundle
    notes: tuple[str, ...] = ()
    classes: tuple[Any, ...] = ()
    origin: None = None
    labels: Labels = field(init=False)
    where: str = field(init=False)

    def __post_init__(self) -> None:
        where, _, split = self.spec.removeprefix(KIND).rpartition(":")
        if not where or not split:
            raise DataError(f"data set {self.spec!r}: write packets:DIR:SPLIT, for example packets:archive:train")
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "labels", Labels(f"{where.rstrip('/')}/labels", split))

    @property
    def name(self) -> str:
        return f"packets/{self.labels.split}"

    @cached_property
    def digest(self) -> str:
        made_of = [Store(self.where).sizes(".mcap"), Store(self.labels.where).sizes(".parquet"), self.labels.split, self.bundle.digest]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def __len__(self) -> int:
        return self.labels.count

    def sample(self) -> DataSet:
        """Some of the label maps, for what is counted over them."""
        if self.labels.kind == TARGET:
            return DataSet(self.name, [], [], self.digest, tuple(self.labels.sample()))
        size = (self.bundle.latent_shape[1] * 8, self.bundle.latent_shape[2] * 8)
        maps = [label_map(data, size, self.labels.where) for data in self.labels.sample()]
        return DataSet(self.name, maps, maps, self.digest)


def open_sets(config: Config, specs: list[str], val: str, codec_from: Path | None) -> tuple[PacketSet, PacketSet]:
    """Training and validation set. Raises `UsageError` where a configuration cannot be trained from packets."""
    task, head = config["task"], config["head"]
    if len(specs) != 1 or not is_packets(specs[0]) or not is_packets(val):
        raise UsageError("packets are one training set and one validation set, packets:DIR:SPLIT, and no other beside them")
    if task not in ("segmentation", "classification") or head["input"] != "latent":
        raise UsageError("packets train heads that read latents: segmentation or classification with head.input=latent")
    if codec_from is None or not codec_from.is_dir():
        raise UsageError("training from packets needs the bundle they were coded with: --codec BUNDLE, its folder")
    bundle = open_bundle(codec_from)
    sets = (PacketSet(specs[0], bundle), PacketSet(val, bundle))
    if sets[0].labels.kind != sets[1].labels.kind or (head_kind(head["name"]) == "segmentation" and sets[0].labels.kind != LABELS):
        raise DataError(f"{sets[0].labels.where}: {task} needs a column {LABELS}, PNG of class ids")
    return sets


class PacketCrops:
    """`batch(step)` -> `Batch`; steps come in order. Crops depend on seed and step, packets on the dataset's own seed.

    `share` = (rank, world) as `ViewCrops` has it. What does not fill a batch is left out of an epoch; the next one has another
    order. Raises `DataError` where a share has no whole batch, or a class is none of the head's.
    """

    def __init__(
        self, dataset: PacketDataset, values: Values, size: int, seed: int, classes: int, share: tuple[int, int] = (0, 1), say: Say = print
    ) -> None:
        h, w = dataset.bundle.latent_shape[1:]
        if size > 8 * min(h, w):
            raise UsageError(f"crops.size is {size}, the packets' pictures are {8 * w}x{8 * h}; lower it")
        self.dataset, self._values, self._say = dataset, values, say
        self._size, self._seed, self._classes, self._share = size, seed, classes, share
        self._batches: Iterator[PacketBatch] | None = None
        self._said = 0

    def batch(self, step: int) -> Batch:
        found = self._next()
        n = self._size // 8
        h, w = found.symbols.shape[-2:]
        inputs, labels = [], []
        for k in range(len(found)):
            rng = np.random.default_rng((self._seed, step, self._share[0] + k * self._share[1]))
            y, x = int(rng.integers(h - n + 1)), int(rng.integers(w - n + 1))
            inputs.append(found.symbols[k, :, y : y + n, x : x + n])
            if found.labels is not None:
                labels.append(found.labels[k, 8 * y : 8 * (y + n), 8 * x : 8 * (x + n)].long())
        known = torch.stack(labels) if labels else found.targets
        assert known is not None
        check_classes(known, self._classes, self.dataset)
        return Batch(self._values(torch.stack(inputs)).contiguous(memory_format=torch.channels_last), known)

    def state_dict(self) -> dict[str, Any]:
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dataset.load_state_dict(state)
        self._batches = None

    def _next(self) -> PacketBatch:
        for _ in range(2):
            if self._batches is None:
                self._batches = self.dataset.loader()
            if (found := next(self._batches, None)) is not None:
                return found
            self._batches = None
            if (lost := sum(self.dataset.losses.counts.values())) > self._said:
                self._said = lost
                self._say(f"packets so far: {self.dataset.losses}")
        raise DataError(f"{self.dataset.store.where}: fewer labelled packets that decode in this share than a batch, {self.dataset.batch}")


def packet_crops(data: PacketSet, model: Joint, config: Config, say: Say) -> PacketCrops:
    """This process's batches. Raises `UsageError`, `DataError`."""
    crops, share, codec = config["crops"], (distributed.rank(), distributed.world()), model.codec
    assert codec is not None
    if crops["batch"] % share[1]:
        raise UsageError(f"crops.batch is {crops['batch']}, which {share[1]} processes cannot share; make it a multiple")
    dataset = PacketDataset(
        data.where, data.bundle, batch=crops["batch"] // share[1], labels=data.labels, seed=config["seed"], rank=share[0], world=share[1],
        drop_last=True,
    )  # fmt: skip

    def values(symbols: Tensor) -> Tensor:
        return codec.quantizer.values(symbols.to(next(codec.parameters()).device)).detach()

    return PacketCrops(dataset, values, crops["size"], config["seed"], config["head"]["classes"], share, say)


def some_latents(data: PacketSet, codec: Autoencoder, seed: int) -> list[Tensor]:
    """Values [1,C,h,w] of up to 32 packets drawn at random. Raises `DataError` where none decodes."""
    found = next(PacketDataset(data.where, data.bundle, batch=32, labels=data.labels, seed=seed).loader(), None)
    if found is None:
        raise DataError(f"{data.where}: no labelled packet decodes")
    return [codec.quantizer.values(found.symbols[k : k + 1]).detach() for k in range(len(found))]


def check_classes(known: Tensor, classes: int, dataset: PacketDataset) -> None:
    """Raises `DataError` where a label is no class of the head's."""
    wrong = known[(known >= classes) & (known != 255)] if known.ndim == 3 else known[(known >= classes) | (known < 0)]
    if wrong.numel():
        assert dataset.labels is not None
        raise DataError(f"{dataset.labels.where}: holds class {int(wrong[0])}, but head.classes is {classes} (0..{classes - 1})")


def validate_packets(model: Joint, config: Config, dataset: PacketDataset, device: torch.device) -> Record:
    """`validate_head` on the packets of `dataset`, whole pictures."""
    codec = model.codec
    assert codec is not None
    height, width = dataset.frame

    def samples() -> Iterator[Sample]:
        for found in dataset.loader():
            known = found.labels if found.labels is not None else found.targets
            assert known is not None
            check_classes(known, config["head"]["classes"], dataset)
            for k in range(len(found)):
                symbols = found.symbols[k : k + 1].to(device)

                def inputs(symbols: Tensor = symbols) -> Tensor:
                    return codec.quantizer.values(symbols)

                label = None if found.labels is None else found.labels[k].numpy()
                yield Sample(inputs, height, width, label, 0 if found.targets is None else int(found.targets[k]))

    return judge_head(model, config, samples(), device)


__all__ = [
    "KIND",
    "PacketCrops",
    "PacketSet",
    "check_classes",
    "is_packets",
    "open_sets",
    "packet_crops",
    "some_latents",
    "validate_packets",
]
