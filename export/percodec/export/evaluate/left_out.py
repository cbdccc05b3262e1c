"""Segmentation on drives that a network has not seen: each drive of CamVid left out in turn, every network judged on the one it lacked.

    run without drive A --> frames of A --+
    run without drive B --> frames of B --+--> mIoU of each drive --> their mean, and an interval from blocks of neighbouring frames
    run without drive C --> frames of C --+

Neighbouring frames are nearly one scene, so not frames but blocks of them are drawn again and again (a moving drive's frames, one a second,
in blocks of ten). The interval is of these drives' frames; it knows nothing of other drives, nor of another seed of the training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.data.dataset import DataSet
from percodec.export.evaluate.perception import Shown, what_arrives
from percodec.export.metrics.scores import Confusion, iou_of
from percodec.export.models import head_kind
from percodec.export.train.checkpoint import bundle_checkpoint, load_checkpoint
from percodec.export.train.from_config import trained_model
from percodec.export.train.tasks import Joint
from percodec.export.train.validate import as_batch
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import UsageError

BLOCK = 10  # frames
DRAWS = 2000
Say = Callable[[str], None]
Counts = NDArray[np.int64]


@dataclass
class Seen:
    """One row: a network and what it is shown. `counts`: int64 [frames, truth, predicted] pixels of each drive; `bpp`: of each frame."""

    network: str
    trained_on: str
    shown: str
    bundle: str = ""
    counts: dict[str, Counts] = field(default_factory=dict)
    bpp: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def left_out_by(config: Mapping[str, Any], source: Path | str) -> str:
    """The drive that a run's training lacked, by its configuration. Raises `UsageError` where it lacked none, or has seen it otherwise."""
    specs = [spec for spec, _ in config["data"]["train"] if spec.startswith("camvid:")]
    drives = {found[1] if (found := re.search(r":train/not-([^:/]+)$", spec)) else "" for spec in specs}
    if len(drives) != 1 or "" in drives:
        raise UsageError(
            f"{source} has not left one drive out: it trained on {', '.join(specs) or 'no CamVid'}; "
            "train it with --set 'data.train=[[\"camvid:{camvid}:train/not-DRIVE\", 1.0]]'"
        )
    return drives.pop()


def left_out_rows(
    checkpoints: Sequence[Path],
    drive: Callable[[str], DataSet],
    bundles: Sequence[Bundle],
    rivals: tuple[str, ...],
    say: Say = lambda text: None,
) -> list[dict[str, Any]]:
    """Rows of segmentation runs, each judged on the drive it left out, those of one kind together.

    `drive`: a drive's pictures by its name. A run on original pictures is also shown what arrives through each bundle and rival at equal
    bytes; a run on latents has the rate of the bundle whose codec it has. Raises `UsageError` where runs and drives do not make a table.
    """
    found: dict[tuple[str, ...], Seen] = {}
    loaded = cache(drive)
    arrived = cache(lambda name: what_arrives(loaded(name), list(bundles), rivals))
    for path in checkpoints:
        state = load_checkpoint(path)
        config = state["config"]
        if config["task"] == "codec" or head_kind(config["head"]["name"]) != "segmentation":
            raise UsageError(f"{path} is not a run of segmentation")
        out = left_out_by(config, path)
        model = trained_model(state)
        model.eval()
        data = loaded(out)
        shown = [("", model.reads, data, _sizes(model, out, bundles, arrived))]
        if model.reads == "original":
            shown += [(one.bundle, one.name, one.data, one.sizes) for one in arrived(out)]
        for bundle, name, pictures, sizes in shown:
            key = (config["head"]["name"], model.reads, name, bundle)
            row = found.setdefault(key, Seen(*key))
            if out in row.counts:
                raise UsageError(f"{path}: a second {row.network} on {row.trained_on} that left {out} out; give one of each drive")
            row.counts[out] = confusions(model, pictures, config["head"]["classes"])
            if sizes is not None:
                row.bpp[out] = sizes * 8 / np.array([p.shape[0] * p.shape[1] for p in pictures.images])
            say(f"{row.network} on {name}, {out} left out: mIoU {100 * miou(row.counts[out].sum(0)):.1f}")
    rows = list(found.values())
    drives = list(rows[0].counts) if rows else []
    for row in rows:
        if set(row.counts) != set(drives):
            lacks = f"{row.network} on {row.trained_on} left {', '.join(row.counts)} out, others {', '.join(drives)}"
            raise UsageError(f"{lacks}; give every network's run of each drive")
    return table(rows)


def _sizes(model: Joint, out: str, bundles: Sequence[Bundle], arrived: Callable[[str], Sequence[Shown]]) -> NDArray[np.float64] | None:
    """Bytes of each frame's packet, where one of `bundles` has the codec that `model` reads through."""
    for bundle in bundles if model.codec is not None else ():
        theirs = trained_model(bundle_checkpoint(bundle))
        if model.codec is not None and model.codec.equals(theirs.codec):
            return next(one.sizes for one in arrived(out) if one.bundle == bundle.name)
    return None


@torch.no_grad()
def confusions(model: Joint, data: DataSet, classes: int) -> Counts:
    """int64 [frames, truth, predicted], in FP32 as exported."""
    found = []
    for image, label in zip(data.images, data.labels, strict=True):
        one = Confusion(classes)
        predicted = model(as_batch(image)).argmax(1)[0].numpy()
        one.add(predicted, label[: predicted.shape[0], : predicted.shape[1]])
        found.append(one.counts)
    return np.array(found)


def miou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """[..., truth, predicted] -> [...], over the classes that occur in the truth; NaN where none does."""
    occurs = counts.sum(-1) > 0
    iou, known = np.where(occurs, iou_of(counts), np.nan), occurs.sum(-1)
    mean: NDArray[np.float64] = np.nansum(iou, -1) / np.where(known > 0, known, np.nan)
    return mean


def drawn(counts: Mapping[str, Counts], block: int = BLOCK, draws: int = DRAWS, seed: int = 1) -> NDArray[np.float64]:
    """Mean over drives of mIoU, [draws]: of each drive as many blocks as it has, with replacement. Equal seeds draw equal blocks."""
    rng, found = np.random.default_rng(seed), []
    for name in sorted(counts):
        frames = counts[name]
        blocks = np.add.reduceat(frames, np.arange(0, len(frames), block), 0)
        times = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), draws)
        found.append(miou(np.tensordot(times, blocks, 1)))
    mean: NDArray[np.float64] = np.mean(found, 0)
    return mean


def table(rows: Sequence[Seen]) -> list[dict[str, Any]]:
    """What is printed: mean mIoU over drives, its 95 % interval, that of each drive; and, of the first latent row, its lead over each.

    A lead's interval comes from equal draws of both, so what is hard for both does not widen it.
    """
    latent = next((row for row in rows if row.shown == "latent"), None)
    ours = drawn(latent.counts) if latent is not None else None
    out = []
    for row in rows:
        each = {name: float(miou(counts.sum(0))) for name, counts in sorted(row.counts.items())}
        line: dict[str, Any] = {"network": row.network, "trained_on": row.trained_on, "input": row.shown}
        line |= {"bundle": row.bundle or None, "bpp": float(np.concatenate(list(row.bpp.values())).mean()) if row.bpp else None}
        draws = drawn(row.counts)
        line |= {"miou": float(np.mean(list(each.values()))), "interval": _interval(draws), **{f"miou {k}": v for k, v in each.items()}}
        if latent is not None and ours is not None and row is not latent:
            lead = float(np.mean([miou(c.sum(0)) for c in latent.counts.values()])) - line["miou"]
            line |= {"latent_lead": lead, "lead_interval": _interval(ours - draws)}
        out.append(line | {"iou": {k: _iou(counts.sum(0)) for k, counts in sorted(row.counts.items())}})
    return out


def _interval(draws: NDArray[np.float64]) -> str:
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{low:.3f} to {high:.3f}"


def _iou(counts: Counts) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in iou_of(counts)]


__all__ = ["BLOCK", "DRAWS", "Seen", "confusions", "drawn", "left_out_by", "left_out_rows", "miou", "table"]
