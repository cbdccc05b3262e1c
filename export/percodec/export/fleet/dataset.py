"""`PacketDataset`: latents straight from packets, to train on. No picture is decoded, and nothing is converted beforehand.

shards, shuffled -> share of (rank, worker) -> packets in a buffer, drawn at random -> decode_batch -> uint8 latents, labels

dataset = PacketDataset("archive", bundle, labels=Labels("labels", "train"), batch=32)
for batch in dataset.loader(workers=4):
    batch.symbols, batch.labels               uint8 [N,C,h,w], uint8 [N,H,W]
state = dataset.state_dict()                  at any time; `load_state_dict` goes on from there in the same order
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from percodec.export.fleet.alone import Alone
from percodec.export.fleet.labels import LABELS, Labels, label_map
from percodec.export.fleet.losses import Losses
from percodec.export.fleet.shards import PacketKey, ShardReader, find_shards
from percodec.export.fleet.store import Store
from percodec.runtime.session import open_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import DataError, PacketError, UsageError

BUFFER = 10_000  # packets; some 80 MB


class _Item(NamedTuple):
    key: PacketKey
    packet: bytes
    label: Any


class Position(NamedTuple):
    """Where a worker stands: packets drawn in this epoch."""

    epoch: int
    worker: int
    drawn: int


@dataclass
class PacketBatch:
    """`symbols`: uint8 [N,C,h,w]. `labels`: uint8 [N,H,W], 255 unknown; `targets`: int64 [N]; None where there are none.

    `losses`: what was left out since the batch before. A worker's last batch may hold no packet, only losses; `loader` keeps those back.
    """

    symbols: Tensor
    keys: list[PacketKey]
    labels: Tensor | None
    targets: Tensor | None
    position: Position
    losses: Losses = field(default_factory=Losses)

    def __len__(self) -> int:
        return len(self.keys)


class PacketDataset(IterableDataset[PacketBatch]):
    """Batches of the packets below `where`, one epoch an iteration; each packet exactly once over all ranks and workers.

    `bundle`: the one the packets were coded with. `labels`: packets without one are left out. `shuffle` False: in order. `rank`, `world`:
    this process among those that share an epoch. `drop_last`: only whole batches, as training wants them.

    `losses`: what was left out so far. Raises `DataError`, `BundleError` for packets of another bundle, `LogError`.
    """

    def __init__(
        self,
        where: str | Path,
        bundle: Bundle | str | Path,
        *,
        batch: int = 32,
        labels: Labels | None = None,
        seed: int = 0,
        shuffle: bool = True,
        buffer: int = BUFFER,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
    ) -> None:
        if batch < 1 or buffer < 1 or not 0 <= rank < world:
            raise UsageError(f"batch, buffer >= 1 and rank in 0..world-1; got batch={batch}, buffer={buffer}, rank={rank} of {world}")
        self.store, self.labels, self.batch = Store(where), labels, batch
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
        self.shards = find_shards(self.store)
        self.epoch, self.losses = 0, Losses()
        self._seed, self._shuffle, self._buffer, self._drop_last = seed, shuffle, buffer, drop_last
        self._rank, self._world = rank, world
        self._drawn: dict[int, int] = {}  # by worker, in this epoch
        self._workers: int | None = None  # of the epoch that was begun
        self._turn = 0  # the worker whose batch comes next; torch's loader begins with its first
        self._codec: PacketCodec | None = None
        if labels is not None and not labels.names_recordings:
            self._check_recordings()

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of label maps."""
        return self.bundle.latent_shape[1] * 8, self.bundle.latent_shape[2] * 8

    def loader(self, workers: int = 0, **options: Any) -> Iterator[PacketBatch]:
        """One epoch, or the rest of one, read by so many processes. `options` go to torch's DataLoader."""
        if not workers:
            yield from (found for found in self if len(found))
            return
        self._begin(workers)
        own = torch.Generator()  # without one it would draw from everybody's
        for found in DataLoader(self, batch_size=None, num_workers=workers, generator=own, **options):
            self._take(found)
            if len(found):
                yield found
        self._end_epoch()

    def __iter__(self) -> Iterator[PacketBatch]:
        info = get_worker_info()
        worker, workers = ((info.id + self._turn) % info.num_workers, info.num_workers) if info else (0, 1)
        self._begin(workers)
        for found in self._batches(worker, workers):
            self._take(found)
            yield found
        self._end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Small and of plain types. Of the batches that were taken from `loader` or the dataset itself."""
        return {"epoch": self.epoch, "drawn": dict(self._drawn), "workers": self._workers, "turn": self._turn, "shares": self._shares()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on from there. Raises `UsageError` where data, seed, batch or ranks are others."""
        try:
            epoch, drawn, workers = int(state["epoch"]), {int(k): int(n) for k, n in state["drawn"].items()}, state["workers"]
            turn, shares = int(state["turn"]), dict(state["shares"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"this is no state of a PacketDataset: {error!r}") from error
        if other := [key for key, value in self._shares().items() if shares.get(key) != value]:
            raise UsageError(f"the state is of another {', '.join(other)}: its order cannot be had again; begin a new epoch instead")
        self.epoch, self._drawn, self._workers, self._turn = epoch, drawn, workers, turn

    # -- inside -------------------------------------------------------------------------------------------------------
    def _shares(self) -> dict[str, Any]:
        names = zlib.crc32("\n".join(file for shard in self.shards for file in shard.files).encode())
        return {
            "shards": f"{len(self.shards)}-{names:08x}", "seed": self._seed, "buffer": self._buffer, "batch": self.batch,
            "shuffle": self._shuffle, "rank": self._rank, "world": self._world, "drop_last": self._drop_last,
        }  # fmt: skip

    def _begin(self, workers: int) -> None:
        if self._drawn and self._workers not in (None, workers):
            raise UsageError(f"this epoch was begun with {self._workers} workers, not {workers}: its order cannot be had again")
        self._workers = workers

    def _take(self, found: PacketBatch) -> None:
        self._drawn[found.position.worker] = found.position.drawn
        self._turn = (found.position.worker + 1) % (self._workers or 1)
        self.losses.merge(found.losses)

    def _end_epoch(self) -> None:
        self.epoch, self._drawn, self._workers, self._turn = self.epoch + 1, {}, None, 0

    def _batches(self, worker: int, workers: int) -> Iterator[PacketBatch]:
        self._codec = PacketCodec(self.bundle.entropy_model, *self.bundle.latent_shape[1:])
        epoch, drawn, losses = self.epoch, self._drawn.get(worker, 0), Losses()
        chance = random.Random(f"{self._seed}/{epoch}/{self._rank}/{worker}")  # of a text: the same on every Python
        items = self._items(worker, workers, losses)
        if self._shuffle:
            items = _shuffled(items, self._buffer, chance)
        items = islice(items, drawn, None)
        while group := list(islice(items, self.batch)):
            drawn += len(group)
            kept, arrays = self._decoded(group, losses)
            while len(kept) < self.batch and (more := list(islice(items, self.batch - len(kept)))):
                drawn += len(more)
                also, their = self._decoded(more, losses)
                kept, arrays = kept + also, arrays + their
            if len(kept) == self.batch or (kept and not self._drop_last):
                symbols = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
                yield self._batch(kept, symbols, Position(epoch, worker, drawn), losses.taken())
        if losses:
            none = np.empty((0, *self.bundle.latent_shape), np.uint8)
            yield self._batch([], none, Position(epoch, worker, drawn), losses.taken())

    def _items(self, worker: int, workers: int, losses: Losses) -> Iterator[_Item]:
        """This worker's share of the epoch, in the order of the logs, each packet standing alone."""
        order = list(range(len(self.shards)))
        if self._shuffle:
            random.Random(f"{self._seed}/{self.epoch}").shuffle(order)
        assert self._codec is not None
        for k in order[self._rank * workers + worker :: self._world * workers]:
            with ShardReader(self.store, self.shards[k], self.bundle) as reader:
                source = reader.source
                wanted = None if self.labels is None else self.labels.of(source)
                if wanted is not None and not wanted:
                    continue
                alone = Alone(self.bundle, self._codec, losses, self.store.shown(self.shards[k].files[0]))
                for record in reader:
                    if (found := alone(record.packet)) is None:
                        continue
                    header, packet = found
                    label = None if wanted is None else wanted.get((header.stream_id, header.counter))
                    if wanted is None or label is not None:
                        yield _Item(PacketKey(*source, header.stream_id, header.counter), packet, label)
                losses.merge(reader.losses)

    def _decoded(self, group: list[_Item], losses: Losses) -> tuple[list[_Item], list[NDArray[np.uint8]]]:
        """Those that decode, and their symbols."""
        assert self._codec is not None
        try:
            return group, [self._codec.decode_batch([item.packet for item in group], threads=1)[1]]
        except PacketError:
            kept, arrays = [], []
            for item in group:
                try:
                    arrays.append(self._codec.decode(item.packet)[1][None])
                    kept.append(item)
                except PacketError as error:
                    losses.add("refused", 1, f"{_shown(item.key)}: {error}")
            return kept, arrays

    def _batch(self, kept: list[_Item], symbols: NDArray[np.uint8], position: Position, losses: Losses) -> PacketBatch:
        labels = targets = None
        if self.labels is not None and self.labels.kind == LABELS:
            maps = [label_map(item.label, self.frame, _shown(item.key)) for item in kept]
            labels = torch.from_numpy(np.stack(maps)) if maps else torch.empty((0, *self.frame), dtype=torch.uint8)
        elif self.labels is not None:
            targets = torch.tensor([item.label for item in kept], dtype=torch.int64)
        return PacketBatch(torch.from_numpy(symbols), [item.key for item in kept], labels, targets, position, losses)

    def _check_recordings(self) -> None:
        """Raises `DataError` where the labels cannot say which of two recordings they are of."""
        seen: dict[tuple[str, str], str] = {}
        for shard in self.shards:
            with ShardReader(self.store, shard) as reader:
                vehicle, boot, recording = reader.source
            if seen.setdefault((vehicle, boot), recording) != recording:
                raise DataError(
                    f"{self.store.where}: {seen[vehicle, boot]} and {recording} are of one boot, and counters begin again with each "
                    "recording: the labels need a column recording"
                )


def _shuffled(items: Iterator[_Item], buffer: int, chance: random.Random) -> Iterator[_Item]:
    held = list(islice(items, buffer))
    draw = chance.random
    for item in items:
        k = int(draw() * buffer)
        yield held[k]
        held[k] = item
    chance.shuffle(held)
    yield from held


def _shown(key: PacketKey) -> str:
    return f"packet {key.counter} of stream {key.stream_id}, {'/'.join(part for part in (key.vehicle, key.recording) if part)}"


__all__ = ["BUFFER", "PacketBatch", "PacketDataset", "Position"]
