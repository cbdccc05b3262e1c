"""Which arithmetic does training use? bf16 where the machine has units for it, else FP32: without them bf16 takes nine times as long."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

_UNITS = {"amx_bf16", "avx512_bf16", "bf16"}  # as Linux calls them on x86 and on 64-bit Arm


@cache
def computes_bf16(kind: str) -> bool:
    """Whether devices of this kind, "cpu" or "cuda", have units for bf16."""
    if kind != "cpu":
        return True
    try:
        return bool(_UNITS & set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()))
    except OSError:
        return False


def training_arithmetic(device: torch.device, precision: str = "auto", enabled: bool = True) -> torch.autocast:
    """Around what may be rounded as in training; `precision` as in a configuration's schedule."""
    half = precision == "bf16" or (precision == "auto" and computes_bf16(device.type))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and half)


__all__ = ["computes_bf16", "training_arithmetic"]
