"""The covariate-shift matrix: who loses what, trained on one kind of pictures and shown another (Katakol et al. 2020).

    two letters, training then test: O original, C compressed, R restored        OO - CC   information that compression took
    M trained on originals and compressed ones alike                             CC - CO   shift: one network, two kinds of pictures

    data set -> compressed twin per codec and rate -> restored twin per restorer -> one network each, one schedule -> mIoU on each kind

Sets, runs and what was measured stay in the folder, so an interrupted matrix goes on and a larger one reuses a smaller one's cells.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from percodec.export.data.sets import load
from percodec.export.evaluate.perception import rows_of_checkpoint
from percodec.export.restore.lossy import open_lossy
from percodec.export.restore.mirror import mirror
from percodec.export.restore.restorer import Restorer
from percodec.export.restore.transforms import Compress, Restore, fixed_spec
from percodec.sdk.errors import DataError, UsageError

Row = dict[str, Any]
Say = Callable[[str], None]
MAIN = "restored"
NETWORK = "resnet50-d"  # unless said: it reads pictures


@dataclass(frozen=True)
class Source:
    """A labelled data set by its kind and folder: `kind:root:train` is trained on, `kind:root:val` tested on."""

    kind: str
    root: Path
    train: str = "train"
    val: str = "val"

    @classmethod
    def of(cls, spec: str) -> Source:
        kind, _, root = spec.partition(":")
        if kind not in ("camvid", "cityscapes", "voc") or not root:
            raise UsageError(f"--data {spec!r}: write it as camvid:PATH, cityscapes:PATH or voc:PATH")
        return cls(kind, Path(root))

    def test(self, root: Path) -> str:
        return f"{self.kind}:{root}:{self.val}"


@dataclass(frozen=True)
class Twin:
    """A codec at a rate: its name, where its compressed set is, what its whole files take."""

    name: str
    root: Path
    bpp: float
    codec: dict[str, Any]
    spec: str


@dataclass(frozen=True)
class Cell:
    """One network: its run, what it is trained on (name -> folder, mixed evenly), what it is shown (letter -> folder)."""

    run: str
    letter: str
    method: str
    twin: Twin | None
    seed: int
    trained_on: dict[str, Path]
    shown: dict[str, Path]


def make_twins(source: Source, specs: Sequence[str], out: Path, workers: str, say: Say) -> list[Twin]:
    """The data set as it comes back from each codec, in OUT/sets/NAME/compressed."""
    pictures = load(f"{source.kind}:{source.root}:{source.train}").images
    few = pictures[:: max(1, len(pictures) // 24)]
    twins = []
    for spec in specs:
        codec = open_lossy(spec, few)
        name = re.sub(r"[^A-Za-z0-9.]+", "-", codec.name)
        work = Compress(fixed_spec(spec, codec))
        summary = mirror(source.root, out / "sets" / name / "compressed", work, workers)
        say(f"{name}: {summary['pictures']} pictures at {summary['bpp']:.4f} bpp")
        twins.append(Twin(name, out / "sets" / name / "compressed", summary["bpp"], summary["codec"], fixed_spec(spec, codec)))
    return twins


def restore_twin(source: Source, twin: Twin, method: str, path: Path, bundle: Path | None, out: Path, workers: str, say: Say) -> Path:
    """The twin restored, in OUT/sets/NAME/METHOD; from its packets where the restorer reads latents."""
    given = twin.root
    if Restorer(path).latent:
        given = out / "sets" / twin.name / "packets"
        mirror(source.root, given, Compress(twin.spec, packets=True), workers)
    place = out / "sets" / twin.name / method
    summary = mirror(given, place, Restore(path, given, bundle if Restorer(path).latent else None), workers)
    say(f"{twin.name}: {summary['pictures']} pictures restored ({method})")
    return place


def serves(facts: dict[str, Any], twin: Twin) -> bool:
    """A restorer is for the codec it was trained on, at any rate; one of latents for its bundle alone."""
    if facts["network"] == "latent":
        return bool(facts["bundle"] == twin.codec.get("digest"))
    return any(c and c.get("name") == twin.codec["name"] for c in facts["trained_on"])


def lowest(twins: Sequence[Twin]) -> list[Twin]:
    """Of each codec the twin with the fewest bits."""
    found: dict[str, Twin] = {}
    for twin in sorted(twins, key=lambda t: t.bpp):
        found.setdefault(twin.codec["name"], twin)
    return list(found.values())


def plan(
    source: Source, twins: Sequence[Twin], restored: dict[str, dict[str, Path]], seeds: Sequence[int], mixed: Set[str], every: bool = False
) -> list[Cell]:
    """Every network of the matrix. `restored`: twin's name -> method -> folder; `mixed`: twins also mixed in.

    Rivals (mixed, and all methods but `restored`) are trained with the first seed only, unless `every`.
    """
    cells = []
    for seed in seeds:
        everything = {"O": source.root}
        for twin in twins:
            everything |= {f"C {twin.name}": twin.root}
            everything |= {f"R {twin.name}": p for m, p in restored.get(twin.name, {}).items() if m == MAIN}
        cells.append(Cell(f"original-s{seed}", "O", "original", None, seed, {"root": source.root}, everything))
        for twin in twins:
            both = {"O": source.root, "C": twin.root}
            cells.append(Cell(f"{twin.name}-compressed-s{seed}", "C", "compressed", twin, seed, {"root": twin.root}, both))
            rivals = every or seed == seeds[0]
            if rivals and twin.name in mixed:
                sets = {"root": source.root, "twin": twin.root}
                cells.append(Cell(f"{twin.name}-mixed-s{seed}", "M", "mixed", twin, seed, sets, both))
            for method, place in restored.get(twin.name, {}).items():
                if method != MAIN and not rivals:
                    continue
                shown = {"O": source.root, "R": place}
                cells.append(Cell(f"{twin.name}-{method}-s{seed}", "R", method, twin, seed, {"root": place}, shown))
    return cells


def train_command(cell: Cell, source: Source, config: str, overrides: Sequence[str], out: Path) -> list[str]:
    share = 1 / len(cell.trained_on)
    train = [[f"{source.kind}:{{{name}}}:{source.train}", share] for name in cell.trained_on]
    sets = [f"data.train={json.dumps(train)}", f"data.val={source.kind}:{{root}}:{source.val}", "head.input=original", f"seed={cell.seed}"]
    words = ["train", "segmentation", "--config", config]
    for item in (f"head.name={NETWORK}", *overrides, *sets):
        words += ["--set", item]
    for name, root in cell.trained_on.items():
        words += ["--data", f"{name}={root}"]
    return [*words, "--out", str(out / "runs" / cell.run), "--views", str(out / "views"), "--threads", "1"]


def measure(cell: Cell, source: Source, out: Path) -> list[Row]:
    """What the network of a cell reaches on each kind of pictures; measured once, kept in its run."""
    kept = out / "runs" / cell.run / "shown.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    for letter, root in cell.shown.items():
        if letter not in known:
            checkpoint = out / "runs" / cell.run / "best.pt"
            known[letter] = rows_of_checkpoint(checkpoint, load(source.test(root)), "segmentation", say=lambda text: None)[0]
            part = kept.with_suffix(".part")
            part.write_text(json.dumps(known))
            os.replace(part, kept)
    rows = []
    for letter in cell.shown:
        kind, _, name = letter.partition(" ")
        twin = cell.twin.name if cell.twin else name or None
        row: Row = {"codec": twin, "bpp": cell.twin.bpp if cell.twin else None, "matrix": cell.letter + kind, "method": cell.method}
        rows.append({**row, "seed": cell.seed, "miou": known[letter]["miou"], "iou": known[letter]["iou"], "run": cell.run})
    return rows


def run_cells(cells: Sequence[Cell], source: Source, config: str, overrides: Sequence[str], out: Path, workers: int, say: Say) -> list[Row]:
    """Train and measure all of them, `workers` at a time, each a process of one thread. Raises what the first one that fails raises."""
    lock, todo, failed = threading.Lock(), list(cells), list[Exception]()
    rows: dict[str, list[Row]] = {}

    def work() -> None:
        while True:
            with lock:
                if not todo or failed:
                    return
                cell = todo.pop(0)
            folder = out / "runs" / cell.run
            folder.mkdir(parents=True, exist_ok=True)
            try:
                if not (folder / "best.json").exists():
                    say(f"training {cell.run}")
                    _train(train_command(cell, source, config, overrides, out), folder / "log.txt")
                rows[cell.run] = measure(cell, source, out)
                say(f"{cell.run}: " + "  ".join(f"{r['matrix']} {r['codec'] or ''} {100 * r['miou']:.1f}" for r in rows[cell.run][:3]))
            except Exception as e:  # raised in the caller's thread
                failed.append(e)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.1)
    if failed:
        raise failed[0]
    return [row for cell in cells for row in rows[cell.run]]


def _train(words: list[str], log: Path) -> None:
    """A training run in a process of its own. Raises `DataError` where it fails."""
    command = [sys.executable, "-m", "percodec.sdk.cli", *words]
    with log.open("a") as f:
        code = subprocess.run(command, stdout=f, stderr=f, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    if code:
        raise DataError(f"percodec {words[0]} {words[1]} failed ({code}): see {log}")


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One line per codec and method, means over seeds: mIoU of each pair of letters, the loss split in two, what came back of CO -> OO.

    What a method brings is counted against the same seeds' OO and CO: `of_seeds` says which, `nothing_done` is their CO.
    """

    def mean(codec: str | None, matrix: str, method: str | None = None, seeds: Set[int] | None = None) -> float | None:
        asked = [r for r in rows if r["matrix"] == matrix and r["codec"] == codec and (seeds is None or r["seed"] in seeds)]
        found = [r["miou"] for r in asked if method is None or r["method"] == method]
        return sum(found) / len(found) if found else None

    best = mean(None, "OO")
    out: list[Row] = []
    for codec in dict.fromkeys(r["codec"] for r in rows if r["codec"]):
        bpp = next(r["bpp"] for r in rows if r["codec"] == codec and r["bpp"])
        shifted, same, reverse = mean(codec, "CO"), mean(codec, "CC"), mean(codec, "OC")
        line: Row = {"codec": codec, "bpp": bpp, "OO": best, "CC": same, "CO": shifted, "OC": reverse}
        if None not in (best, same, shifted):
            line |= {"information": best - same, "shift": same - shifted}  # type: ignore[operator]
        for method in dict.fromkeys(r["method"] for r in rows if r["codec"] == codec and r["method"] not in ("original", "compressed")):
            letter = "M" if method == "mixed" else "R"
            seeds = {r["seed"] for r in rows if r["codec"] == codec and r["method"] == method}
            to_original, before, top = mean(codec, f"{letter}O", method), mean(codec, "CO", None, seeds), mean(None, "OO", None, seeds)
            more: Row = {"method": method, "of_seeds": sorted(seeds), "nothing_done": before, "to_original": to_original}
            more["to_own"] = mean(codec, "MC" if letter == "M" else "RR", method)
            if method == MAIN:
                more["OR"] = mean(codec, "OR")
            if None not in (top, before, to_original) and top != before:
                more["gap_closed"] = (to_original - before) / (top - before)  # type: ignore[operator]
            out.append({**line, **more})
        if not any(r["codec"] == codec for r in out):
            out.append(line)
    return out


__all__ = [
    "MAIN",
    "NETWORK",
    "Cell",
    "Source",
    "Twin",
    "lowest",
    "make_twins",
    "measure",
    "plan",
    "restore_twin",
    "run_cells",
    "serves",
    "summarise",
    "train_command",
]
