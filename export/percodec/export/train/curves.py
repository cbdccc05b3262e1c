"""Progress while training, TensorBoard event files beside the CSV curves, and curves.png after it."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from percodec.sdk.files import write_whole


@contextmanager
def reporter(steps: int, quiet: bool = False) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A progress bar on a terminal; one line per hundred steps elsewhere; nothing when `quiet`."""
    if quiet:
        yield lambda step, total, values: None
        return
    if not sys.stderr.isatty():

        def line(step: int, total: int, values: dict[str, float]) -> None:
            if step % 100 == 0 or step == total:
                print(f"step {step}/{total}  " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()), file=sys.stderr, flush=True)

        yield line
        return
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("train", total=steps, values="")

        def update(step: int, total: int, values: dict[str, float]) -> None:
            shown = "  ".join(f"{k} {v:.3g}" for k, v in values.items() if k not in ("lr", "seconds"))
            bar.update(task, completed=step, values=shown)

        yield update


class Board:
    """Event files TensorBoard reads, in `folder`; nothing where tensorboardX is not installed."""

    def __init__(self, folder: Path, start: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder), purge_step=start or None, flush_secs=30)

    def add(self, split: str, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(f"{split}/{key}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def plot_curves(folder: Path) -> Path:
    """train.csv and val.csv -> curves.png, one small plot per quantity."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tables = {name: _columns(folder / f"{name}.csv") for name in ("train", "val")}
    panels = [(n, k) for n, t in tables.items() for k in t if k not in ("step", "seconds")]
    rows = (len(panels) + 3) // 4
    figure, axes = plt.subplots(rows, 4, figsize=(14, 2.6 * rows), squeeze=False)
    for axis, (name, key) in zip(axes.flat, panels, strict=False):
        table = tables[name]
        values = table[key]
        axis.plot(table["step"], values, lw=0.5 if name == "train" else 1.2, alpha=0.5 if name == "train" else 1, color="#2a6f97")
        if name == "train" and len(values) > 40:
            n = max(5, len(values) // 50)
            smooth = [sum(values[max(0, i - n) : i + 1]) / (i + 1 - max(0, i - n)) for i in range(len(values))]
            axis.plot(table["step"], smooth, color="#9b2226", lw=1.2)
        axis.set_title(f"{name}: {key}", fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.tight_layout()
    path = folder / "curves.png"
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    write_whole(path, drawn.getvalue())
    plt.close(figure)
    return path


def _columns(path: Path) -> dict[str, list[float]]:
    if not path.exists():
        return {}
    with path.open() as f:
        rows = list(csv.DictReader(f))
    return {k: [float(r[k]) for r in rows] for k in rows[0]} if rows else {}


__all__ = ["Board", "plot_curves", "reporter"]
