"""Whole data sets, a shard at a time: `shard -> output -> journal`, on any workers, interrupted at any moment and continued.

    OUT/percodec-dataset.json        what makes it (written first) and what it holds (written last)
    OUT/NAME.mcap, OUT/NAME.parquet  what became of shard NAME, whole or not there
    OUT/NAME.json                    its journal: the state of the source, the output's sha256, counts and losses

An output is a function of its shard and of the settings. Its journal is written after it, so that a shard done twice leaves the same. The
driver holds the shards' names and adds up numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from percodec.export.fleet.losses import Losses
from percodec.export.fleet.shards import Shard
from percodec.export.fleet.store import Store
from percodec.export.fleet.workers import Workers
from percodec.sdk.errors import DataError, PercodecError, UsageError

SCHEMA = "percodec.dataset/1"
SUMMARY = "percodec-dataset.json"
Settings = dict[str, Any]
Call = Callable[[Store, Shard, Path], tuple[dict[str, int], Losses]]


class Work(Protocol):
    """What is done to a shard. Travels to the workers as it is; `open` is called once in each. `ending`: of its outputs."""

    ending: str

    def settings(self) -> Settings:
        """What the result depends on, without this machine's paths."""
        ...

    def open(self) -> Call:
        """-> call(source, shard, file to fill) -> counts, losses. Raises `PercodecError` for a shard that cannot be done."""
        ...


@dataclass
class Result:
    """Of one shard: `counts` and `losses`, or the `reason` why it could not be done. `known`: it was done before."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    reason: str = ""
    known: bool = False


@dataclass
class Unit:
    """`unit(shard)`: do it, unless it is done. What travels to a worker."""

    source: str
    out: str
    work: Work
    _open: tuple[Store, Store, Call, str] | None = field(default=None, repr=False)

    def __call__(self, shard: Shard) -> Result:
        if self._open is None:
            self._open = (Store(self.source), Store(self.out), self.work.open(), digest_of(self.work.settings()))
        source, out, call, settings = self._open
        journal, output = f"{shard.name}.json", f"{shard.name}{self.work.ending}"
        try:
            state = {name: source.state_of(name) for name in shard.files}
            known = _journal(out, journal)
            if known and (known["source"], known["settings"]) == (state, settings) and out.exists(output):
                losses = Losses(Counter(known["losses"]), list(known["said"]))
                return Result(shard.name, known["counts"], losses, known=True)
            with out.writing(output) as path:
                counts, losses = call(source, shard, path)
                sha256 = _sha256(path)
        except PercodecError as error:
            return Result(shard.name, reason=str(error))
        found = {"output": output, "sha256": sha256, "counts": counts, "losses": dict(losses.counts), "said": losses.said}
        out.write(journal, json.dumps({"source": state, "settings": settings, **found}, indent=1).encode())
        return Result(shard.name, counts, losses)


def run_units(
    source: str,
    out: str,
    work: Work,
    shards: Sequence[Shard],
    workers: str = "1",
    gpus: float = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Do what is not done yet; returns the summary.

    Raises `UsageError` where `out` holds something else, `DataError` after everything that can be done is done where a shard could not be,
    OSError (disk full) at once. What is done stays.
    """
    settings = {"schema": SCHEMA, **work.settings()}
    place = Store(out, make=True)
    _claim(place, settings)
    total: Counter[str] = Counter()
    losses, failures, done, before = Losses(), [], 0, 0
    with Workers(Unit(source, out, work), workers, gpus) as pool:
        for result in pool.run([(shard,) for shard in shards]):
            done += 1
            before += result.known
            if result.reason:
                failures.append(f"{result.name}: {result.reason}")
                del failures[100:]
            total.update(result.counts)
            total["failed"] += bool(result.reason)
            losses.merge(result.losses)
            progress(done, len(shards))
    if failures:
        raise DataError(
            f"{total['failed']} of {len(shards)} shards could not be done: {'; '.join(sorted(failures)[:5])}. The others are in {out}; "
            "give the same command again to go on from there"
        )
    del total["failed"]
    holds = {"shards": len(shards), **dict(sorted(total.items())), "losses": dict(losses.counts)}
    summary = {**settings, "holds": holds}
    place.write(SUMMARY, json.dumps(summary, indent=1).encode() + b"\n")
    return {**summary, "said": losses.said, "done_before": before}


def digest_of(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _claim(out: Store, settings: Settings) -> None:
    if not out.exists(SUMMARY):
        if out.sizes(""):
            raise UsageError(f"{out.where} is not empty and was not made by this command; use another folder")
        out.write(SUMMARY, json.dumps(settings, indent=1).encode() + b"\n")
        return
    try:
        made_by = json.loads(out.read(SUMMARY))
        made_by.pop("holds", None)
        different = sorted(k for k in {*made_by, *settings} if made_by.get(k) != settings.get(k))
    except (ValueError, AttributeError) as error:
        raise DataError(f"{out.shown(SUMMARY)} is damaged; remove its folder and start again") from error
    if different:
        raise UsageError(f"{out.where} was made with another {', '.join(different)}; use another folder")


def _journal(out: Store, name: str) -> dict[str, Any] | None:
    """None where there is none that can be read: the shard is done again."""
    try:
        found = json.loads(out.read(name)) if out.exists(name) else None
        wanted = {"source", "settings", "counts", "losses", "said"}
        return found if isinstance(found, dict) and wanted <= found.keys() else None
    except (ValueError, DataError):
        return None


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


__all__ = ["SCHEMA", "SUMMARY", "Call", "Result", "Settings", "Unit", "Work", "digest_of", "run_units"]
