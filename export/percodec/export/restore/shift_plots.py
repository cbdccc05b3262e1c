"""The matrix drawn: mIoU against rate per codec, what each method brings back, which classes pay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from percodec.export.evaluate.plots import figure_with

Row = dict[str, Any]
LETTERS = {
    "CO": ("#d55e00", "trained on compressed, shown originals (CO)", "-"),
    "RO": ("#0072b2", "trained on restored, shown originals (RO)", "-"),
    "CC": ("#d55e00", "compressed, compressed (CC)", ":"),
    "OC": ("#999999", "originals, compressed (OC)", "--"),
    "RR": ("#0072b2", "restored, restored (RR)", ":"),
    "OR": ("#999999", "originals, restored (OR)", "-."),
}
METHODS = {"compressed": "#d55e00", "mixed": "#e69f00", "restored": "#0072b2"}


def _family(codec: str) -> str:
    return codec.partition("-")[0]


def draw_matrix(rows: Sequence[Row], path: Path, title: str) -> None:
    """A panel per codec: mIoU against bits per pixel, means over seeds as lines, seeds as points, OO as a level."""
    families = list(dict.fromkeys(_family(r["codec"]) for r in rows if r["codec"]))
    best = [100 * r["miou"] for r in rows if r["matrix"] == "OO"]
    with figure_with(path, title, len(families), (6.2 * len(families) + 1, 5.6)) as axes:
        low = min(100 * r["miou"] for r in rows)
        for axis, family in zip(axes, families, strict=True):
            mine = [
                r for r in rows if r["codec"] and _family(r["codec"]) == family and r["method"] in ("original", "compressed", "restored")
            ]
            rates = {r["codec"]: r["bpp"] for r in mine if r["bpp"] is not None}
            for letters, (colour, label, style) in LETTERS.items():
                points = [(rates[r["codec"]], 100 * r["miou"]) for r in mine if r["matrix"] == letters]
                if not points:
                    continue
                at = sorted({x for x, _ in points})
                means = [float(np.mean([y for x, y in points if x == a])) for a in at]
                axis.plot(at, means, color=colour, ls=style, marker="o", ms=4, label=label)
                axis.plot([x for x, _ in points], [y for _, y in points], ".", color=colour, ms=3)
            if best:
                axis.axhline(float(np.mean(best)), color="#222222", lw=1, label="originals, originals (OO)")
            axis.set_title(family, loc="left", fontsize=11)
            axis.set_xlabel("bits per pixel, whole files and packets")
            axis.set_ylim(low - 2, max(best or [100 * max(r["miou"] for r in rows)]) + 3)
        axes[0].set_ylabel("mIoU, %")
        axes[0].legend(frameon=False, fontsize=8, loc="lower right")


def draw_methods(rows: Sequence[Row], path: Path, title: str) -> None:
    """A panel per codec at its lowest rate: mIoU on originals of networks trained on compressed, mixed and restored pictures."""
    families: dict[str, str] = {}
    for r in sorted((r for r in rows if r["codec"] and r["bpp"] is not None), key=lambda r: r["bpp"]):
        families.setdefault(_family(r["codec"]), r["codec"])
    best = float(np.mean([100 * r["miou"] for r in rows if r["matrix"] == "OO"]))
    with figure_with(path, title, len(families), (6.2 * len(families) + 1, 4.2)) as axes:
        for axis, codec in zip(axes, families.values(), strict=True):
            mine = [r for r in rows if r["codec"] == codec and r["matrix"] in ("CO", "MO", "RO")]
            methods = list(dict.fromkeys(r["method"] for r in mine))
            for k, method in enumerate(methods):
                values = [100 * r["miou"] for r in mine if r["method"] == method]
                axis.barh(k, float(np.mean(values)), color=METHODS.get(method, "#8fb8d8"), height=0.6)
                axis.plot(values, [k] * len(values), ".", color="#222222", ms=4)
            axis.set_yticks(range(len(methods)), methods)
            axis.invert_yaxis()
            axis.axvline(best, color="#222222", lw=1)
            axis.set_xlim(min(100 * r["miou"] for r in mine) - 4, best + 2)
            axis.set_title(codec, loc="left", fontsize=11)
            axis.set_xlabel("mIoU on originals, %; line: trained on originals")


def draw_classes(rows: Sequence[Row], names: Sequence[str], path: Path, title: str) -> None:
    """Each class's drop against OO, in points: a line per codec and pair of letters."""
    mean: dict[tuple[str | None, str], list[list[float]]] = {}
    for r in rows:
        if r["matrix"] in ("OO", "CC", "CO", "RO") and r["method"] in ("original", "compressed", "restored"):
            mean.setdefault((r["codec"], r["matrix"]), []).append(r["iou"])
    best = np.mean(mean[None, "OO"], 0)
    lines = [key for key in mean if key[0] is not None]
    table = np.array([100 * (np.mean(mean[key], 0) - best) for key in lines])
    with figure_with(path, title, 1, (1.6 + 0.85 * len(names), 1.4 + 0.36 * len(lines))) as axes:
        axis = axes[0]
        axis.imshow(table, cmap="RdBu", vmin=-30, vmax=30, aspect="auto")
        for (y, x), value in np.ndenumerate(table):
            axis.text(x, y, f"{value:+.0f}", ha="center", va="center", fontsize=8, color="#ffffff" if abs(value) > 20 else "#222222")
        axis.set_yticks(range(len(lines)), [f"{codec} {letters}" for codec, letters in lines])
        axis.set_xticks(range(len(names)), names, rotation=40, ha="right")


__all__ = ["LETTERS", "draw_classes", "draw_matrix", "draw_methods"]
