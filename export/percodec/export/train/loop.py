"""The training loop both tasks share: schedule, averaged weights, checkpoints that resume exactly, curves.

Everything a step needs is a function of (configuration, step), so an interrupted run that resumes takes
the same batches and the same learning rates as one that was never interrupted.
"""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from percodec.sdk.errors import DataError


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


StepFunction = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, dict[str, float]]]


@dataclass
class Run:
    """One training run in `folder`: `last.pt` to resume, `best.pt` by `score`, `train.csv`, `val.csv`."""

    folder: Path
    model: nn.Module
    schedule: Schedule
    batch: Callable[[int], tuple[Tensor, Tensor]]
    step: StepFunction
    validate: Callable[[nn.Module], dict[str, Any]]
    score: Callable[[dict[str, Any]], float]
    config: dict[str, Any]
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, steps, values: None
    best: float = field(default=-math.inf, init=False)

    def fit(self, resume: bool = True) -> dict[str, Any]:
        """Train to the end; returns the best validation record. Resumes from `last.pt` where it exists."""
        self.folder.mkdir(parents=True, exist_ok=True)
        model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(_groups(model, self.schedule.weight_decay), lr=self.schedule.lr)
        average = Average(model, self.schedule.ema)
        start, best_record = 0, {}
        last = self.folder / "last.pt"
        if resume and last.exists():
            state = load_checkpoint(last)
            if state["config"] != self.config:
                raise DataError(f"{last} was made with another configuration; use another --out or --restart")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            average.state = state["average"]
            start, self.best, best_record = state["step"], state["best"], state["best_record"]
            for name in ("train.csv", "val.csv"):
                _forget_after(self.folder / name, start)
        evaluated = copy.deepcopy(model)
        for step in range(start, self.schedule.steps):
            torch.manual_seed(step)
            model.train()
            lr = self.schedule.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            began = time.perf_counter()
            images, labels = self.batch(step)
            with torch.autocast("cpu", torch.bfloat16):
                loss, values = self.step(model, images, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.schedule.clip)
            optimizer.step()
            average.update(model, step)
            values = {"loss": float(loss.detach()), "lr": lr, "seconds": time.perf_counter() - began, **values}
            _append(self.folder / "train.csv", {"step": step, **values})
            self.progress(step + 1, self.schedule.steps, values)
            done = step + 1 == self.schedule.steps
            if done or (step + 1) % self.schedule.validate_every == 0:
                evaluated.load_state_dict(average.state)
                evaluated.eval()
                record = {"step": step + 1, **self.validate(evaluated)}
                _append(self.folder / "val.csv", {k: v for k, v in record.items() if isinstance(v, int | float)})
                if self.score(record) > self.best:
                    self.best, best_record = self.score(record), record
                    save_checkpoint(
                        self.folder / "best.pt", {"model": average.state, "config": self.config, "val": record, "step": step + 1}
                    )
            if done or (step + 1) % self.schedule.checkpoint_every == 0:
                save_checkpoint(
                    last,
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "average": average.state,
                        "step": step + 1,
                        "best": self.best,
                        "best_record": best_record,
                        "config": self.config,
                    },
                )
        return best_record


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay only where it means something: not on biases, norms, or the quantizer's centers."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside, then rename: a killed run leaves the old checkpoint or the new one, never half of one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises `DataError` where the file is missing or not a checkpoint of ours."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise DataError(f"cannot read checkpoint {path}: {e}") from e
    if not isinstance(state, dict) or "model" not in state or "config" not in state:
        raise DataError(f"{path} is not a percodec checkpoint")
    return state


__all__ = ["Average", "Run", "Schedule", "load_checkpoint", "save_checkpoint"]
