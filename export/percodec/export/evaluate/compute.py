"""What networks cost: multiply-accumulates counted from the modules, parameters, measured time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from percodec.export.models import AUTOENCODERS, STAGES, Classifier, DeepLab, LatentFPN, ResNet

Advance = Callable[[int, int], None]
_VOC_CLASSES = 21


def count_macs(network: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass, by torch's flop counter (two flops each)."""
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(example)
    return int(counter.get_total_flops()) // 2


def count_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def measured_ms(network: nn.Module, example: Tensor, repeats: int = 5) -> float:
    """Median milliseconds of one forward pass in FP32 on this machine's CPU, after one to warm up."""
    network.eval()
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            began = time.perf_counter()
            network(example)
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[1:])


class Entry(NamedTuple):
    """One network of the table; `make` builds it when its turn comes."""

    name: str
    role: str
    make: Callable[[], nn.Module]
    example: Tensor


def networks(channels: int = 32, classes: int = 1000, width: float = 1.0) -> list[Entry]:
    """Every network at 224x224 pixels, 28x28 of latent."""
    picture, latent = torch.zeros(1, 3, 224, 224), torch.zeros(1, channels, 28, 28)
    out = []
    for name, make in AUTOENCODERS.items():
        codec = make(channels, 6, 1.0)
        out.append(Entry(f"{name} encoder", "codec", partial(_itself, codec.g_a), picture))
        out.append(Entry(f"{name} decoder", "codec", partial(_itself, codec.g_s), latent))
    for name, blocks in STAGES.items():
        example = picture if blocks[0] else latent
        out.append(Entry(name, "classification", partial(_classifier, name, example.shape[1], width, classes), example))
    for name, blocks in STAGES.items():
        example = picture if blocks[0] else latent
        out.append(Entry(f"{name}-d", "segmentation", partial(_segmenter, name, example.shape[1], width), example))
    out.append(Entry("fpn", "segmentation", partial(LatentFPN, channels, _VOC_CLASSES), latent))
    return out


def _itself(network: nn.Module) -> nn.Module:
    return network


def _classifier(name: str, channels: int, width: float, classes: int) -> nn.Module:
    return Classifier(ResNet(name, channels, width), classes)


def _segmenter(name: str, channels: int, width: float) -> nn.Module:
    return DeepLab(ResNet(name, channels, width, dilated=True), _VOC_CLASSES)


def compute_table(timed: bool = True, width: float = 1.0, advance: Advance = lambda done, of: None) -> list[dict[str, Any]]:
    """One row per network: GMAC at 224x224, kMAC per pixel, parameters, milliseconds; and next to ResNet-50 from RGB."""
    rows: list[dict[str, Any]] = []
    found = networks(width=width)
    for k, (name, role, make, example) in enumerate(found):
        network = make()
        macs = count_macs(network, example)
        row = {"network": name, "role": role, "gmac": macs / 1e9, "kmac_per_pixel": macs / 224**2 / 1e3}
        row["parameters"] = count_parameters(network)
        if timed:
            row["cpu_ms"] = measured_ms(network, example)
        rows.append(row)
        advance(k + 1, len(found))
    return rows


__all__ = ["Entry", "compute_table", "count_macs", "count_parameters", "measured_ms", "networks"]
