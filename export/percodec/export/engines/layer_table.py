"""What a builder really made of a graph: one row per layer, from TensorRT-RTX's log or from the engine inspector's JSON.

RTX, no GPU     the build log ends with "Layers:" and a line per layer (profiling verbosity DETAILED, logger VERBOSE)
on the device   EngineInspector.get_engine_information(JSON); 10.x writes "Format/Datatype", 11.x "Format" and "Datatype"
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from percodec.sdk.errors import ExportError

# In the order they are looked for: "Half Precision" must not be read as FP32.
_KINDS = (
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8|e4m3|float8", re.IGNORECASE)),
    ("fp16", re.compile(r"half|fp16|float16", re.IGNORECASE)),
    ("fp32", re.compile(r"float|fp32", re.IGNORECASE)),
)
_CONVOLUTION = re.compile(r"correlation|conv|gemm|matmul|matrixmultiply|fullyconnected", re.IGNORECASE)
_LINE = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), Inputs: \[(?P<inputs>.*?)\](?:, Constants: \[|, Outputs: \[)")
_DATATYPE = re.compile(r"Datatype: ([A-Za-z0-9]+)")


@dataclass(frozen=True)
class Layer:
    """`computes` is the type of the first input: int8, fp8, fp16, fp32, or "" where it has none of these."""

    name: str
    type: str
    computes: str
    convolution: bool
    dla: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def layers_from_log(messages: list[str]) -> list[Layer]:
    """From the messages of a build. Raises `ExportError` where there is no table."""
    tables = [m for m in messages if m.startswith("Layers:")]
    if not tables:
        raise ExportError("the build log holds no layer table: build with DETAILED profiling verbosity and a VERBOSE logger")
    found = []
    for line in tables[-1].splitlines()[1:]:
        match = _LINE.match(line)
        if match is None:
            if line.startswith("Name:"):
                raise ExportError(f"a layer of the build log cannot be read: {line[:120]}")
            break
        types = _DATATYPE.findall(match["inputs"])
        found.append(_layer(match["name"], match["type"], types[0] if types else ""))
    return found


def layers_from_inspector(text: str) -> list[Layer]:
    """From the inspector's JSON. Raises `ExportError` for anything else."""
    try:
        rows = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError("the engine inspector's answer holds no layers; build with DETAILED profiling verbosity") from error
    found = []
    for row in rows:
        if isinstance(row, str):
            raise ExportError("the engine inspector names layers only; build with DETAILED profiling verbosity")
        inputs = row.get("Inputs") or [{}]
        kind = str(inputs[0].get("Datatype") or inputs[0].get("Format/Datatype") or "")
        found.append(_layer(str(row.get("Name", "")), str(row.get("LayerType", "")), kind))
    return found


def histogram(layers: list[Layer]) -> dict[str, int]:
    """Convolutions by the type they compute in, and the count of all layers."""
    counts: dict[str, int] = {}
    for layer in layers:
        if layer.convolution:
            counts[layer.computes] = counts.get(layer.computes, 0) + 1
    return {**counts, "layers": len(layers)}


def _layer(name: str, kind: str, datatype: str) -> Layer:
    computes = next((short for short, words in _KINDS if words.search(datatype)), "")
    return Layer(name, kind, computes, bool(_CONVOLUTION.search(kind)), "dla" in kind.lower() or "DLA" in name)


__all__ = ["Layer", "histogram", "layers_from_inspector", "layers_from_log"]
