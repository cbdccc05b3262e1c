"""Segmentation and classification side by side: heads on the latent, on the decoded picture, and the rivals at equal bytes.

A network trained on original pictures is shown what would arrive in as many bytes as our packets: decoded by our own decoder
(decode-then-predict), as JPEG, or made smaller (resize-to-equal-bytes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.data.dataset import DataSet
from percodec.export.evaluate.any_size import BundleAtAnySize, crop8
from percodec.export.evaluate.bundle_metrics import evaluate_bundle
from percodec.export.evaluate.codecs import at_most, codec_of
from percodec.export.models import head_kind
from percodec.export.train.checkpoint import load_checkpoint
from percodec.export.train.from_config import trained_model
from percodec.export.train.validate import validate_head
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import DataError, UsageError

Row = dict[str, Any]
Say = Callable[[str], None]
METRICS = ("miou", "map", "top1", "top5")


def rows_of_bundle(bundle: Bundle, data: DataSet, kind: str, say: Say = lambda text: None) -> list[Row]:
    """One row per head of a kind, measured now."""
    graphs = tuple(g for g in bundle.manifest["graphs"] if g.startswith(f"head_{kind}"))
    if not graphs:
        raise DataError(f"bundle {bundle.name} has no {kind} head; it has {', '.join(bundle.manifest['graphs'])}")

    def advance(done: int, of: int) -> None:
        if done % 50 == 0 or done == of:
            say(f"{bundle.name}: {done}/{of}")

    return rows_of_metrics(bundle, kind, evaluate_bundle(bundle, data, heads=graphs, advance=advance))


def rows_of_metrics(bundle: Bundle, kind: str, found: dict[str, Any]) -> list[Row]:
    """One row per head of a kind from what `evaluate_bundle` found: what it reads, bits per pixel of whole packets, its metric."""
    rows = []
    for graph, result in found["heads"].items():
        if not graph.startswith(f"head_{kind}"):
            continue
        config = _head_config(bundle, graph)
        row = {"network": config.get("name", graph), "input": config.get("input", "latent"), "trained_on": config.get("input", "latent")}
        row |= {"bundle": bundle.name, "graph": graph, "bpp": found["bpp_coded"], "bytes": found["packet_bytes_mean"]}
        rows.append(row | {k: result[k] for k in METRICS if k in result} | {k: result[k] for k in ("iou", "ap") if k in result})
    return rows


def _head_config(bundle: Bundle, graph: str) -> dict[str, Any]:
    origin = bundle.manifest["provenance"]
    run = origin.get("heads", {}).get(graph, origin)
    return dict(run.get("config", {}).get("head", {}))


class Shown(NamedTuple):
    """Pictures as they arrive: what they went through, the bytes each took, the bundle whose packets set the budget."""

    name: str
    data: DataSet
    sizes: NDArray[np.float64]
    bundle: str


def what_arrives(data: DataSet, bundles: list[Bundle], rivals: tuple[str, ...]) -> list[Shown]:
    """The pictures decoded from each bundle's packets, and what each rival makes of them in, picture by picture, the same bytes."""
    out, pictures = [], [crop8(p) for p in data.images]
    for bundle in bundles:
        ours = BundleAtAnySize(bundle)
        trips = [ours.round_trip(p) for p in pictures]
        budget = np.array([len(packet) for packet, _ in trips], float)
        out.append(Shown("decoded", replace(data, images=[restored for _, restored in trips]), budget, bundle.name))
        for name in rivals:
            found = [at_most(codec_of(name), p, b) for p, b in zip(pictures, budget, strict=True)]
            shown = replace(data, images=[restored for restored, _ in found])
            out.append(Shown(name, shown, np.array([size for _, size in found], float), bundle.name))
    return out


def rows_of_checkpoint(path: Path, data: DataSet, kind: str, shown: Callable[[], Sequence[Shown]] = tuple, say: Say = print) -> list[Row]:
    """A run's own network on its own input and, if that is original pictures, on what arrives of them (`shown` is asked only then)."""
    state = load_checkpoint(path)
    config = state["config"]
    if config["task"] == "codec" or head_kind(config["head"]["name"]) != kind:
        raise UsageError(f"{path} is not a run of {kind}")
    model = trained_model(state)
    model.eval()

    def row(pictures: DataSet, name: str, **more: Any) -> Row:
        record = validate_head(model, config, pictures, None, torch.device("cpu"), half=False)
        out: Row = {"network": config["head"]["name"], "input": name, "trained_on": model.reads, **more}
        out |= {k: record[k] for k in (*METRICS, "iou", "ap") if k in record}
        say(f"{out['network']} on {name}: " + "  ".join(f"{k} {100 * record[k]:.2f}" for k in METRICS if k in record))
        return out

    rows = [row(data, model.reads)]
    for one in shown() if model.reads == "original" else ():
        pixels = np.array([p.shape[0] * p.shape[1] for p in one.data.images], float)
        rates = {"bpp": float((one.sizes * 8 / pixels).mean()), "bytes": float(one.sizes.mean())}
        rows.append(row(one.data, one.name, bundle=one.bundle, **rates))
    return rows


__all__ = ["METRICS", "Shown", "rows_of_bundle", "rows_of_checkpoint", "rows_of_metrics", "what_arrives"]
