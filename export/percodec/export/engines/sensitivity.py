"""Which layers cost the accuracy, and which to keep in FP32 so that a stated limit holds.

Each convolution is quantized alone and the graph's answer compared with FP32: the share of symbols, labels or pixels that differ, or the
largest difference of a probability. Damage does not add up exactly, so the keep list is found by trying: worst layer first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.engines.calibrate import Ranges
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.precision import Plan, layers, make_explicit
from percodec.sdk.errors import ExportError

Array = NDArray[np.uint8]
Advance = Callable[[int, int], None]


def damage(data: bytes, reference: Sequence[Any], inputs: Sequence[Array]) -> float:
    """Mean difference of a graph's first output from `reference`: a share for uint8 outputs, the largest difference for probabilities."""
    run, found = graph_function(data), []
    for x, wanted in zip(inputs, reference, strict=True):
        got = run(x)
        found.append(float((got != wanted).mean()) if got.dtype == np.uint8 else float(np.abs(got - wanted).max()))
    return float(np.mean(found))


def sensitivity(
    data: bytes, plan: Plan, ranges: Ranges, inputs: Sequence[Array], advance: Advance = lambda done, of: None
) -> list[dict[str, Any]]:
    """One row per convolution, the costliest first: its label, its node, what quantizing it alone changes.

    Always with symmetric activations: the unsigned form quantizes residual sums as well, which belong to no layer.
    """
    plan, names = replace(plan, activations="int8"), layers(data)
    run = graph_function(data)
    reference = [run(x) for x in inputs]
    rows = []
    for k, (name, label) in enumerate(names):
        others = tuple(f"^{re.escape(n)}$" for n, _ in names if n != name)
        made = make_explicit(data, replace(plan, keep=(*plan.keep, *others)), ranges)
        rows.append({"layer": label, "node": name, "damage": damage(made.data, reference, inputs)})
        advance(k + 1, len(names))
    return sorted(rows, key=lambda r: -r["damage"])


def keep_list(
    data: bytes, plan: Plan, ranges: Ranges, inputs: Sequence[Array], limit: float, advance: Advance = lambda done, of: None
) -> tuple[list[str], float]:
    """(patterns to keep, damage that remains), no more layers than needed. Raises `ExportError` where even one layer is too much."""
    run = graph_function(data)
    reference = [run(x) for x in inputs]

    def remaining(keep: list[str]) -> float:
        return damage(make_explicit(data, replace(plan, keep=(*plan.keep, *keep)), ranges).data, reference, inputs)

    found = remaining([])
    if found <= limit:
        return [], found
    rows = sensitivity(data, plan, ranges, inputs, advance)
    keep: list[str] = []
    for row in rows[:-1]:
        keep.append(f"^{re.escape(row['node'])}$")
        found = remaining(keep)
        if found <= limit:
            return keep, found
    raise ExportError(
        f"{plan.precision} cannot keep the difference at {limit:g}: with one convolution left it is {found:.4g}; "
        f"raise the limit, calibrate with another method, or use fp16"
    )


__all__ = ["damage", "keep_list", "sensitivity"]
