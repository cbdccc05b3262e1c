"""The training loop all tasks share: schedule, averaged weights, checkpoints that resume exactly, curves, early stop.

Everything a step needs is a function of (configuration, step), so an interrupted run that resumes takes
the same batches and the same learning rates as one that was never interrupted.
"""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from percodec.export.data.crops import Batch
from percodec.export.train import curves, distributed
from percodec.export.train.arithmetic import training_arithmetic
from percodec.export.train.checkpoint import load_checkpoint, save_checkpoint
from percodec.export.train.config import completed
from percodec.sdk.errors import DataError, TrainingError


@dataclass(frozen=True)
class Schedule:
    """`steps` optimiser steps; linear warm-up over `warmup`, then cosine from `lr` to `lr * final`."""

    steps: int = 2000
    lr: float = 1e-3
    final: float = 0.01
    warmup: int = 100
    weight_decay: float = 1e-4
    ema: float = 0.998
    clip: float = 5.0
    validate_every: int = 250
    checkpoint_every: int = 100
    freeze_norm: int = -1
    patience: int = 0
    codec_lr: float = 1.0
    precision: str = "auto"

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        t = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, t))))


class Average:
    """Exponential moving average of weights and batch-norm statistics: what is validated and exported."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for k, v in model.state_dict().items():
            if v.dtype.is_floating_point:
                self.state[k].lerp_(v, 1 - decay)
            else:
                self.state[k].copy_(v)


class Position(Protocol):
    """Where a stream of batches stands."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Run:
    """One training run in `folder`: `last.pt` to resume, `best.pt` by `score`, `train.csv`, `val.csv`, `tensorboard/`.

    `objective` holds `model` and turns a batch into a loss; of several processes the first one validates and writes. `made_of` says what
    else than `config` the run depends on, by digests: a run of other data does not resume this one. `position`: of batches that are no
    function of the step, where `batch` stands.
    """

    folder: Path
    model: nn.Module
    objective: nn.Module
    schedule: Schedule
    batch: Callable[[int], Batch]
    validate: Callable[[nn.Module], dict[str, Any]]
    score: Callable[[dict[str, Any]], float]
    config: dict[str, Any]
    made_of: dict[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, steps, values: None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    before_step: Callable[[float], None] = lambda fraction: None
    position: Position | None = None
    best: float = field(default=-math.inf, init=False)

    def fit(self, resume: bool = True) -> dict[str, Any]:
        """Train to the end; returns the best validation record. Resumes from `last.pt` where it exists.

        Raises `DataError` where that is another run's, `TrainingError` at the first loss, gradient, weight or score that is not a number,
        before anything is written of that step.
        """
        state = resumable(self.folder, self.config, self.made_of) if resume else None
        self.folder.mkdir(parents=True, exist_ok=True)
        plan, first = self.schedule, distributed.rank() == 0
        model = self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective = distributed.wrap(self.objective.to(self.device), self.device)
        optimizer = torch.optim.AdamW(_groups(model, plan), lr=plan.lr)
        average = Average(model, plan.ema)
        start, stale, best_record, previous = 0, 0, {}, math.nan
        last = self.folder / "last.pt"
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            average.state = {k: v.to(self.device) for k, v in state["average"].items()}
            start, stale, self.best, best_record = state["step"], state["stale"], state["best"], state["best_record"]
            if self.position is not None:
                self.position.load_state_dict((state["position"] * distributed.world())[distributed.rank()])
            if first:
                for name in ("train.csv", "val.csv"):
                    _forget_after(self.folder / name, start)
        evaluated = copy.deepcopy(model)
        board = curves.Board(self.folder / "tensorboard", start) if first else None
        for step in range(start, plan.steps):
            if plan.patience and stale >= plan.patience:
                break
            torch.manual_seed(step * distributed.world() + distributed.rank())
            model.train()
            if 0 <= plan.freeze_norm <= step:
                freeze_norm(model)
            self.before_step(step / plan.steps)
            lr = plan.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["relative"]
            began = time.perf_counter()
            batch = self.batch(step).to(self.device)
            with training_arithmetic(self.device, plan.precision):
                loss, values = objective(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            length = torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            found = float(distributed.mean(loss.detach()))
            if not math.isfinite(found) or not math.isfinite(float(length)):
                raise self._lost(step, f"the loss is {found:g} and the length of its gradient {float(length):g}", previous)
            previous = found
            optimizer.step()
            average.update(model, step)
            done = step + 1 == plan.steps
            keep, judge = done or (step + 1) % plan.checkpoint_every == 0, done or (step + 1) % plan.validate_every == 0
            if (keep or judge) and not _finite(model.state_dict()):
                raise self._lost(step, f"the loss was {found:g} and the weights after it are too large for numbers", found)
            if board is not None:
                values = {"loss": float(loss.detach()), "lr": lr, "seconds": time.perf_counter() - began, **values}
                _append(self.folder / "train.csv", {"step": step, **values})
                board.add("train", step, values)
                self.progress(step + 1, plan.steps, values)
            if judge:
                improved = False
                if board is not None:
                    evaluated.load_state_dict(average.state)
                    evaluated.eval()
                    record = {"step": step + 1, **self.validate(evaluated)}
                    points = self.score(record)
                    if math.isnan(points):
                        raise self._lost(step, f"validation gives no number: {record}"[:200], found)
                    plain = {k: v for k, v in record.items() if isinstance(v, int | float)}
                    _append(self.folder / "val.csv", plain)
                    board.add("val", step + 1, plain)
                    improved = points > self.best
                    if improved:
                        self.best, best_record = points, record
                        best = {"model": average.state, "config": self.config, "val": record, "step": step + 1}
                        save_checkpoint(self.folder / "best.pt", best)
                stale = 0 if distributed.agree(improved, self.device) else stale + 1
            position = distributed.every(self.position.state_dict()) if keep and self.position is not None else None
            if first and keep:
                save_checkpoint(
                    last,
                    {
                        "position": position,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "average": average.state,
                        "step": step + 1,
                        "stale": stale,
                        "best": self.best,
                        "best_record": best_record,
                        "config": self.config,
                        "made_of": self.made_of,
                    },
                )
        if board is not None:
            board.close()
        distributed.wait()
        return best_record

    def _lost(self, step: int, what: str, previous: float) -> TrainingError:
        last = self.folder / "last.pt"
        kept = f"{last} is the last good checkpoint" if last.exists() else "there is no checkpoint yet"
        before = "" if math.isnan(previous) else f", the last finite loss was {previous:g}"
        return TrainingError(
            f"step {step + 1} of {self.schedule.steps}: {what}{before}; {kept}. Lower schedule.lr ({self.schedule.lr:g}) or schedule.clip "
            f"({self.schedule.clip:g}), or raise schedule.warmup, and train anew with --restart or in another --out"
        )


def resumable(folder: Path, config: dict[str, Any], made_of: dict[str, Any]) -> dict[str, Any] | None:
    """The state in `folder` that a run of `config` and `made_of` goes on from, None where there is none; writes nothing.

    Raises `DataError` where it is of another configuration, or of other data or starting points (checkpoints of earlier versions do not
    say which).
    """
    last = folder / "last.pt"
    if not last.exists():
        return None
    state = load_checkpoint(last)
    if state["config"] != completed(config):
        raise DataError(f"{last} was made with another configuration; use another --out or --restart")
    was = state.get("made_of") or made_of
    changed = [key for key in (*made_of, *was) if made_of.get(key) != was.get(key)]
    if changed:
        then, now = was.get(changed[0], "none"), made_of.get(changed[0], "none")
        raise DataError(
            f"{last} was made with another {changed[0]}: content {then}, now {now}; give what it was trained with, or use another --out or "
            "--restart"
        )
    return state


def _finite(state: dict[str, torch.Tensor]) -> bool:
    return all(bool(v.isfinite().all()) for v in state.values() if v.dtype.is_floating_point)


def freeze_norm(model: nn.Module) -> None:
    """Batch norm normalises with its running statistics; its scale and offset still learn."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _groups(model: nn.Module, plan: Schedule) -> list[dict[str, Any]]:
    """Weight decay only where it means something: not on biases, norms, or the quantizer's centers. The codec has its own rate."""
    groups = []
    for codec in (True, False):
        mine = [p for n, p in model.named_parameters() if p.requires_grad and n.startswith("codec.") == codec]
        relative = plan.codec_lr if codec else 1.0
        groups.append({"params": [p for p in mine if p.ndim > 1], "weight_decay": plan.weight_decay, "relative": relative})
        groups.append({"params": [p for p in mine if p.ndim <= 1], "weight_decay": 0.0, "relative": relative})
    return [g for g in groups if g["params"]]


def _append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as f:
        writer = csv.DictWriter(f, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def _forget_after(path: Path, step: int) -> None:
    """Drop curve rows of steps that a resumed run will take again."""
    if not path.exists():
        return
    with path.open(newline="") as f:
        reader = csv.DictReader(f)
        rows = [row for row in reader if int(row["step"]) < step + (path.stem == "val")]
        fields = list(reader.fieldnames or [])
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, fieldnames=fields)
        writer.writeheader()
        writer.writerows(rows)


__all__ = ["Average", "Position", "Run", "Schedule", "freeze_norm", "resumable"]
