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
from typing import Any

import torch
from torch import nn

from percodec.export.data.crops import Batch
from percodec.export.train import curves, distributed
from percodec.export.train.checkpoint import load_checkpoint, save_checkpoint
from percodec.export.train.config import completed
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
    freeze_norm: int = -1
    patience: int = 0
    codec_lr: float = 1.0
    precision: str = "bf16"

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


@dataclass
class Run:
    """One training run in `folder`: `last.pt` to resume, `best.pt` by `score`, `train.csv`, `val.csv`, `tensorboard/`.

    `objective` holds `model` and turns a batch into a loss; of several processes the first one validates and writes.
    """

    folder: Path
    model: nn.Module
    objective: nn.Module
    schedule: Schedule
    batch: Callable[[int], Batch]
    validate: Callable[[nn.Module], dict[str, Any]]
    score: Callable[[dict[str, Any]], float]
    config: dict[str, Any]
    progress: Callable[[int, int, dict[str, float]], None] = lambda step, steps, values: None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    before_step: Callable[[float], None] = lambda fraction: None
    best: float = field(default=-math.inf, init=False)

    def fit(self, resume: bool = True) -> dict[str, Any]:
        """Train to the end; returns the best validation record. Resumes from `last.pt` where it exists."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan, first = self.schedule, distributed.rank() == 0
        model = self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective = distributed.wrap(self.objective.to(self.device), self.device)
        optimizer = torch.optim.AdamW(_groups(model, plan), lr=plan.lr)
        average = Average(model, plan.ema)
        start, stale, best_record = 0, 0, {}
        last = self.folder / "last.pt"
        if resume and last.exists():
            state = load_checkpoint(last)
            if state["config"] != completed(self.config):
                raise DataError(f"{last} was made with another configuration; use another --out or --restart")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            average.state = {k: v.to(self.device) for k, v in state["average"].items()}
            start, stale, self.best, best_record = state["step"], state["stale"], state["best"], state["best_record"]
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
            with torch.autocast(self.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                loss, values = objective(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            optimizer.step()
            average.update(model, step)
            done = step + 1 == plan.steps
            if board is not None:
                values = {"loss": float(loss.detach()), "lr": lr, "seconds": time.perf_counter() - began, **values}
                _append(self.folder / "train.csv", {"step": step, **values})
                board.add("train", step, values)
                self.progress(step + 1, plan.steps, values)
            if done or (step + 1) % plan.validate_every == 0:
                improved = False
                if board is not None:
                    evaluated.load_state_dict(average.state)
                    evaluated.eval()
                    record = {"step": step + 1, **self.validate(evaluated)}
                    plain = {k: v for k, v in record.items() if isinstance(v, int | float)}
                    _append(self.folder / "val.csv", plain)
                    board.add("val", step + 1, plain)
                    improved = self.score(record) > self.best
                    if improved:
                        self.best, best_record = self.score(record), record
                        best = {"model": average.state, "config": self.config, "val": record, "step": step + 1}
                        save_checkpoint(self.folder / "best.pt", best)
                stale = 0 if distributed.agree(improved, self.device) else stale + 1
            if first and (done or (step + 1) % plan.checkpoint_every == 0):
                save_checkpoint(
                    last,
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "average": average.state,
                        "step": step + 1,
                        "stale": stale,
                        "best": self.best,
                        "best_record": best_record,
                        "config": self.config,
                    },
                )
        if board is not None:
            board.close()
        distributed.wait()
        return best_record


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


__all__ = ["Average", "Run", "Schedule", "freeze_norm"]
