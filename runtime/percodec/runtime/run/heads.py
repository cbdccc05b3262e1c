"""What heads say, in words and numbers: for JSON lines, reports and the overlay's line of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from percodec.runtime.pipeline.records import HeadRecord
from percodec.sdk.bundle import Bundle, GraphInfo

TOP = 5  # probabilities a JSON line tells


def infos_of(bundle: Bundle, heads: Sequence[str]) -> dict[str, GraphInfo]:
    """The heads' descriptions by name, in order."""
    return {name: bundle.head(name) for name in heads}


def drawn_head(heads: Mapping[str, GraphInfo]) -> GraphInfo | None:
    """The head whose classes are drawn: the first segmentation."""
    return next((info for info in heads.values() if info.task == "segmentation"), None)


def class_shares(info: GraphInfo, found: HeadRecord) -> dict[str, float]:
    """Class name -> share of the pixels, of the classes present."""
    pixels = found.class_pixels
    total = max(1, int(pixels.sum())) if pixels is not None else 1
    counts = () if pixels is None else pixels
    return {label.name: round(int(n) / total, 4) for label, n in zip(info.labels, counts, strict=False) if n}


def top_classes(info: GraphInfo, found: HeadRecord, count: int = TOP) -> dict[str, float]:
    """Class name (or number, where the head names none) -> probability, the most probable first."""
    if found.probs is None:
        return {}
    names = [label.name for label in info.labels]
    order = sorted(range(len(found.probs)), key=lambda k: -float(found.probs[k]) if found.probs is not None else 0.0)[:count]
    return {names[k] if k < len(names) else str(k): round(float(found.probs[k]), 4) for k in order}


def as_json(info: GraphInfo, found: HeadRecord) -> dict[str, Any]:
    """`task`, `crc` (CRC-32 over the outputs, hex), and `classes` of a segmentation or `probs` of a classification."""
    entry: dict[str, Any] = {"task": info.task, "crc": f"{found.crc:08x}"}
    if info.task == "segmentation":
        entry["classes"] = class_shares(info, found)
    elif info.task == "classification":
        entry["probs"] = top_classes(info, found)
    return entry


def in_words(heads: Mapping[str, GraphInfo], found: Mapping[str, HeadRecord]) -> str:
    """What classification heads say of a frame, for one line of text."""
    parts = []
    for name, info in heads.items():
        if info.task == "classification" and name in found:
            top = ", ".join(f"{label} {share:.2f}" for label, share in top_classes(info, found[name], 2).items())
            parts.append(f"{name}: {top}")
    return "   ".join(parts)


__all__ = ["TOP", "as_json", "class_shares", "drawn_head", "in_words", "infos_of", "top_classes"]
