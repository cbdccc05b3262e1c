"""One process or many (`torchrun`): the few things a step needs to know about the others.

Two processes with half a batch each compute the gradients one process computes on the whole batch: batch norm, the rate term's
histogram and every weighted mean are taken over all of them. Plain DistributedDataParallel averages the gradients.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def start() -> torch.device:
    """Join the group `torchrun` describes, if any; the device this process computes on."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def finish() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    if world() > 1:
        dist.barrier()


def agree(value: bool, device: torch.device) -> bool:
    """What process 0 says."""
    if world() == 1:
        return value
    said = torch.tensor([int(value)], device=device)
    dist.broadcast(said, 0)
    return bool(said.item())


def every(value: Any) -> list[Any]:
    """What each process says, by rank."""
    if world() == 1:
        return [value]
    said: list[Any] = [None] * world()
    dist.all_gather_object(said, value)
    return said


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def total(x: Tensor) -> Tensor:
    """Sum over the processes; gradients flow through it."""
    return x if world() == 1 else _Total.apply(x)  # type: ignore[no-untyped-call]


def mean(x: Tensor) -> Tensor:
    """Mean over the processes, each of which has an equal share of the batch."""
    return total(x) / world()


def ratio(amount: Tensor, count: Tensor) -> Tensor:
    """sum(amount) / sum(count) over all processes, as a loss: the average of the processes' gradients is its gradient."""
    return amount * world() / total(count.detach()).clamp_min(1e-12)


class SyncNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes. torch's own needs CUDA; this one also runs on gloo."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            y = x.float()
            count = torch.tensor(float(y.numel() // y.shape[1]), device=x.device)
            sums = torch.cat([y.sum((0, 2, 3)), (y * y).sum((0, 2, 3)), count[None]])
            sums = total(sums)
            n = sums[-1]
            average, square = sums[:-1].view(2, -1) / n
            variance = (square - average**2).clamp_min(0)
            with torch.no_grad():
                assert self.running_mean is not None
                assert self.running_var is not None
                assert self.momentum is not None
                self.running_mean.lerp_(average, self.momentum)
                self.running_var.lerp_(variance * n / (n - 1), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
            scale = self.weight * torch.rsqrt(variance + self.eps)
            y = y * scale.view(1, -1, 1, 1) + (self.bias - average * scale).view(1, -1, 1, 1)
        out: Tensor = y.to(x.dtype)
        return out


def wrap(objective: nn.Module, device: torch.device) -> nn.Module:
    """As it is for one process; with synchronised batch norm and averaged gradients for several."""
    if world() == 1:
        return objective
    for module in objective.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncNorm  # same parameters and buffers, so checkpoints do not change
    return DistributedDataParallel(objective, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False)


__all__ = ["SyncNorm", "agree", "every", "finish", "mean", "rank", "ratio", "start", "total", "wait", "world", "wrap"]
