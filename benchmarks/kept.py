"""How much of the weights that it started from should a trained head keep (`head.kept`)?

    python benchmarks/kept.py --before BUNDLE --after BUNDLE --camvid PATH [--record] [--share 0.35 --run FOLDER]

`after`: what training made of the head of `before`, both of one codec. For each share of `before` in the mean of both (`kept.plain`), with
the classes' offsets found anew on CamVid's `train`: mIoU of `val` and of rendered roads, and how many pixels are right where every eighth
picture of `val` is made dark, foggy, blurred or too bright, as `familiarity.py` does it. With --run, the head of that --share as a
training run that `percodec export` takes.
"""

from __future__ import annotations

import argparse
import copy
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from familiarity import KINDS, SEVERITIES
from torch import Tensor

from percodec.export.data.sets import load
from percodec.export.metrics.scores import Confusion
from percodec.export.models import head_kind
from percodec.export.train.checkpoint import bundle_checkpoint, save_checkpoint
from percodec.export.train.from_config import trained_model
from percodec.export.train.kept import averaged, plain
from percodec.export.train.offsets import class_offsets, scores_of
from percodec.export.train.provenance import record_run
from percodec.export.train.tasks import Joint
from percodec.export.train.validate import as_batch
from percodec.sdk.bundle import Bundle
from percodec.sdk.machine import machine_info

CLASSES = 11
SHARES = (0.0, 0.15, 0.35, 0.5, 1.0)
SCENES = "synthetic:60:1"
CHANGES = tuple(kind for kind in KINDS if kind != "covered")  # a covered lens hides what is asked for
Shown = list[tuple[Tensor, Any]]  # what the head reads, and the labels


@torch.no_grad()
def confusion(model: Joint, shown: Shown) -> Confusion:
    found = Confusion(CLASSES)
    for q, label in shown:
        said = model.head(q).argmax(1)[0].numpy()  # type: ignore[misc]
        found.add(said, label[: said.shape[0], : said.shape[1]])
    return found


def right(found: Confusion) -> float:
    return float(np.trace(found.counts) / found.counts.sum())


@torch.no_grad()
def latents(model: Joint, pictures: Sequence[Any], labels: Sequence[Any]) -> Shown:
    return [(model.head_input(as_batch(p)), label) for p, label in zip(pictures, labels, strict=True)]


def write_run(folder: Path, state: dict[str, Any], model: Joint, share: float, before: Bundle, found: dict[str, Any]) -> None:
    """The run that `after` was exported from, with a head that keeps a share of `before`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(state["config"])
    config["head"] |= {"kept": share, "offsets": True}
    made = state["provenance"]
    *train, val = [{"spec": data["name"], "sha256": data["digest"]} for data in made["data"]]
    said = f"At last {share:g} of its weights became those of the head in bundle {before.digest[:12]}, and its offsets were found anew"
    notes = f"{made.get('notes', '')} {said} (benchmarks/kept.py)."
    data = {"train": train, "val": val, "commit": made["training_commit"]}
    record_run(config, folder, made["codec"], data, made["command"])
    (folder / "notes.txt").write_text(notes.strip() + "\n")
    save_checkpoint(folder / "best.pt", {"model": model.state_dict(), "config": config, "step": state["step"], "val": found})
    print(f"written: {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--share", type=float, help="this one alone")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="where a run with the head of --share goes")
    record.add_arguments(parser)
    args = parser.parse_args()
    if args.run and args.share is None:
        parser.error("--run needs --share")
    bundles = [Bundle.open(args.before), Bundle.open(args.after)]
    states = [bundle_checkpoint(bundle) for bundle in bundles]
    if any(head_kind(state["config"]["head"]["name"]) != "segmentation" for state in states):
        parser.error("both bundles need a segmentation head")
    before, model = (trained_model(state).eval() for state in states)
    weights = [plain(one.head) for one in (before, model)]  # type: ignore[arg-type]
    train, val, scenes = load(f"camvid:{args.camvid}:train"), load(f"camvid:{args.camvid}:val"), load(SCENES)
    some = range(0, len(val), 8)
    pictures, labels = [val.images[k] for k in some], [val.labels[k] for k in some]
    sets = {"val": latents(model, val.images, val.labels), "scenes": latents(model, scenes.images, scenes.labels)}
    changed = {f"{kind} {s}": latents(model, [KINDS[kind](p, s) for p in pictures], labels) for kind in CHANGES for s in SEVERITIES}
    rows = []
    for share in SHARES if args.share is None else (args.share,):
        model.head.load_state_dict(averaged(weights[0], weights[1], share))  # type: ignore[union-attr]
        offsets = class_offsets(*scores_of(model, train))
        model.head.lean(torch.from_numpy(offsets))  # type: ignore[union-attr, operator]
        found = confusion(model, sets["val"])
        row: dict[str, Any] = {"share": share, "miou": found.miou(), "right": right(found)}
        row |= {"scenes": confusion(model, sets["scenes"]).miou(), "iou": found.iou().tolist()}
        row["changed"] = {name: right(confusion(model, shown)) for name, shown in changed.items()}
        rows.append(row)
        means = {kind: np.mean([v for name, v in row["changed"].items() if name.startswith(kind)]) for kind in CHANGES}
        figures = {"val": row["miou"], "rendered": row["scenes"], **means}
        print(f"{share:.2f}", *(f"{name} {100 * v:.1f}" for name, v in figures.items()), flush=True)
        if args.run:
            lean = [round(float(v), 2) for v in offsets]
            write_run(args.run, states[1], model, share, bundles[0], {"miou": row["miou"], "kept": share, "class_offsets": lean})
    if args.share is None:
        result: dict[str, Any] = {
            "command": "python benchmarks/kept.py --before BUNDLE --after BUNDLE --camvid PATH",
            "machine": machine_info(),
        }
        result |= {"date": datetime.date.today().isoformat(), "bundles": [f"{b.name}@{b.digest[:12]}" for b in bundles], "rows": rows}
        record.write_result(args, "kept", result)


if __name__ == "__main__":
    main()
