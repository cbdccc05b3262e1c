"""One picture per kind of evaluation, drawn from the rows of its report."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from percodec.sdk.files import write_whole

Row = dict[str, Any]
COLOURS = {
    "jpeg": "#999999",
    "jpeg2000": "#c7a76c",
    "webp": "#e69f00",
    "avif": "#0072b2",
    "hevc": "#009e73",
    "resize": "#cc79a7",
    "percodec": "#d55e00",
    "decoded": "#0072b2",
    "latent": "#d55e00",
}
METRIC_NAMES = {"miou": "mIoU, %", "map": "mean average precision, %", "top1": "top-1, %"}


def plot(kind: str, rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw `rows` of an evaluation of that kind into `path` (PNG)."""
    draw = {
        "rd": _rd, "segmentation": _perception, "classification": _perception,
        "storage": _storage, "compute": _compute, "verify": _verify,
    }[kind]  # fmt: skip
    draw(rows, path, title)


@contextmanager
def figure_with(path: Path, title: str, panels: int, size: tuple[float, float]) -> Iterator[Any]:
    """Axes to draw on; written when done. Without pyplot: a library does not choose its user's backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    yield axes
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    write_whole(path, drawn.getvalue())


def _rd(rows: Sequence[Row], path: Path, title: str) -> None:
    """Three panels: PSNR, SSIM and MS-SSIM (in dB, -10 log10(1 - x)) against bits per pixel."""
    names = list(dict.fromkeys(str(p["codec"]).split(" ")[0] for p in rows))
    shown = (("psnr_db", "PSNR, dB"), ("ssim", "SSIM"), ("ms_ssim", "MS-SSIM, dB: -10 log10(1 - MS-SSIM)"))
    with figure_with(path, title, 3, (15, 5)) as axes:
        for axis, (key, label) in zip(axes, shown, strict=True):
            for name in names:
                mine = sorted((p["bpp"], p[key]) for p in rows if str(p["codec"]).split(" ")[0] == name)
                values = [-10 * np.log10(1 - y) if key == "ms_ssim" else y for _, y in mine]
                ours = name == "percodec"
                style = {"lw": 2.4, "marker": "o", "ms": 7, "zorder": 3} if ours else {"lw": 1.3, "marker": ".", "ms": 4}
                axis.plot([x for x, _ in mine], values, label=name, color=COLOURS.get(name, "#555555"), **style)
            axis.set_xlim(0, 1.2)
            seen = [-10 * np.log10(1 - p[key]) if key == "ms_ssim" else p[key] for p in rows if p["bpp"] <= 1.2]
            axis.set_ylim(min(seen) - 0.03 * (max(seen) - min(seen)), max(seen) + 0.03 * (max(seen) - min(seen)))
            axis.set_xlabel("bits per pixel, whole files and packets")
            axis.set_title(label, loc="left", fontsize=11)
        axes[0].legend(frameon=False, loc="lower right")


def _perception(rows: Sequence[Row], path: Path, title: str) -> None:
    """The task's metric against bits per pixel: a line per network and what it is shown, a level for original pictures; seeds as points."""
    metric = next(k for k in METRIC_NAMES if any(k in r for r in rows))
    series: dict[tuple[str, str, str], list[Row]] = {}
    for r in rows:
        series.setdefault((r["trained_on"], r["network"], r["input"]), []).append(r)
    with figure_with(path, title, 1, (10, 5.5)) as axes:
        axis = axes[0]
        for (trained, network, shown), mine in series.items():
            values = [100 * r[metric] for r in mine]
            own = trained == shown
            colour = COLOURS.get(shown, "#222222")
            level = float(np.mean(values))
            if any(r.get("bpp") is None for r in mine):
                axis.axhline(level, color=colour, lw=1, ls=":")
                where = {"xycoords": ("axes fraction", "data"), "ha": "left", "va": "bottom"}
                axis.annotate(f"{network} on {shown}", (0.005, level), **where)
                continue
            rates = sorted({r["bpp"] for r in mine})
            means = [float(np.mean([100 * r[metric] for r in mine if r["bpp"] == x])) for x in rates]
            label = f"{network}, {shown}" if own else f"{network} trained on {trained}, shown {shown}"
            style = {"ls": "-" if own else "--", "lw": 2.2 if own else 1.2, "alpha": 0.55 if network.startswith("cresnet39") else 1.0}
            axis.plot(rates, means, color=colour, label=label, **style)
            axis.plot([r["bpp"] for r in mine], values, "o", ms=6 if own else 4, color=colour, alpha=style["alpha"])
        axis.set_xlim(0, None)
        axis.set_xlabel("bits per pixel, whole files and packets")
        axis.set_ylabel(METRIC_NAMES[metric])
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, loc="lower right")


def _storage(rows: Sequence[Row], path: Path, title: str) -> None:
    """What is left of a set, in percent of its files."""
    with figure_with(path, title, 1, (9, 1.2 + 0.6 * len(rows))) as axes:
        left = [100 / r["ratio"] for r in rows]
        axes[0].barh([r["stored_as"] for r in rows], left, color=["#999999", *[COLOURS["percodec"]] * (len(rows) - 1)])
        for k, (r, x) in enumerate(zip(rows, left, strict=True)):
            more = f", {r['gb_of_total']:.1f} GB" if r.get("gb_of_total") is not None else ""
            axes[0].annotate(f" {x:.1f} %{more}", (x, k), va="center")
        axes[0].invert_yaxis()
        axes[0].set_xlim(0, 120)
        axes[0].set_xlabel("bytes, % of the files")


def _compute(rows: Sequence[Row], path: Path, title: str) -> None:
    """Multiply-accumulates, and milliseconds where they were measured."""
    timed = any(r.get("cpu_ms") is not None for r in rows)
    shown = [("gmac", "GMAC"), ("cpu_ms", "ms")][: 1 + timed]
    colours = {"codec": "#999999", "classification": "#0072b2", "segmentation": "#009e73"}
    with figure_with(path, title, len(shown), (7.5 * len(shown), 1 + 0.32 * len(rows))) as axes:
        for axis, (key, label) in zip(axes, shown, strict=True):
            axis.barh([r["network"] for r in rows], [r[key] for r in rows], color=[colours.get(r["role"], "#555555") for r in rows])
            for k, r in enumerate(rows):
                axis.annotate(f" {r[key]:.3g}", (r[key], k), va="center", fontsize=9)
            axis.invert_yaxis()
            axis.set_xlabel(label)


def _verify(rows: Sequence[Row], path: Path, title: str) -> None:
    """Bars: what each precision costs against FP32, one panel per quantity, limits as lines."""
    panels = [
        (key, label)
        for key, label in (
            ("symbols_differ", "symbols that differ, %"),
            ("bpp_change", "coded size, change in %"),
            ("psnr_drop", "PSNR lost, dB"),
            ("miou_drop", "mIoU lost, points"),
        )
        if any(row.get(key) is not None for row in rows)
    ]
    names = [f"{r['precision']}\n{r['session']}" for r in rows]
    with figure_with(path, title, len(panels), (3.2 * len(panels), 3.8)) as axes:
        for axis, (key, label) in zip(axes, panels, strict=True):
            scale = 1 if key == "psnr_drop" else 100
            for x, row in enumerate(rows):
                axis.bar(x, scale * row.get(key, 0), color="#d55e00" if key in " ".join(row.get("broken", [])) else "#0072b2")
                axis.plot([x - 0.45, x + 0.45], [scale * row["limits"][key]] * 2, color="#555555", lw=1, ls="--")
            axis.set_title(label, fontsize=9)
            axis.set_xticks(range(len(names)), names, fontsize=7, rotation=60, ha="right")
            axis.tick_params(axis="y", labelsize=7)


__all__ = ["figure_with", "plot"]
