"""What a packet comes to, in JSON for people and shells: shares of classes, the most probable ones, whose frame it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from percodec.runtime.serve.models import Model
from percodec.runtime.serve.predictor import Tensor

TOP = 5


def summary_of(model: Model, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Of an answer for one packet, with the outputs that nobody had to ask for."""
    said: dict[str, Any] = {"model": model.name, "digest": model.digest}
    for tensor in tensors:
        output, values = model.outputs[tensor.name], tensor.array()[0]
        names = model.classes.get(output.head, ())
        if output.part == "unfamiliarity":
            said[tensor.name] = round(float(values), 3)
        elif not output.head:
            said[tensor.name] = int(values)
        elif output.part == "classes":
            total = max(1, int(values.sum()))
            said[tensor.name] = {name: round(int(count) / total, 4) for name, count in zip(names, values, strict=True) if count}
        else:
            order = sorted(range(len(values)), key=lambda k: -float(values[k]))[:TOP]
            said[tensor.name] = {names[k] if k < len(names) else str(k): round(float(values[k]), 4) for k in order}
    return said


__all__ = ["TOP", "summary_of"]
