"""Convolutions of bytes for the integer encoders: QLinearConv with its scales, zero points and rounded weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDEST = 63  # of weights: x86 without VNNI adds two products of bytes in 16 bits, where 255 * 127 * 2 saturates

Floats = NDArray[np.float64]


class Bytes(NamedTuple):
    """A tensor uint8 by name, that stands for (byte - zero) * scale."""

    name: str
    scale: float = 1.0
    zero: int = 0


class Layers:
    """Nodes of a graph, and the constants they need."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def convolution(self, given: Bytes, made: Bytes, weight: Floats, bias: Floats, **attributes: list[int]) -> Bytes:
        """`weight` [C,...] and `bias` [C] are from what `given` stands for to what `made` does."""
        weight, bias = weight * given.scale / made.scale, bias / made.scale
        steps = np.maximum(np.abs(weight).max((1, 2, 3)), 1e-9) / WIDEST
        inputs = self._of(given)
        inputs.append(self.constant(f"{made.name}_weight", rounded(weight / steps[:, None, None, None], np.int8)))
        inputs.append(self.constant(f"{made.name}_steps", steps.astype(np.float32)))
        inputs.append(self.constant(f"{made.name}_zeros", np.zeros(len(steps), np.int8)))
        inputs += self._of(made)[1:]
        inputs.append(self.constant(f"{made.name}_bias", rounded(bias / steps, np.int32)))
        self.add("QLinearConv", inputs, made.name, **attributes)
        return made

    def _of(self, tensor: Bytes) -> list[str]:
        """Name, scale and zero. The scale is 1 in the graph: real ones are in the weights."""
        return [tensor.name, self.constant("scale_1", np.float32(1)), self.constant(f"zero_{tensor.zero}", np.uint8(tensor.zero))]

    def model(self, like: ModelProto) -> ModelProto:
        """These nodes between the inputs and outputs of `like`."""
        inputs, outputs = list(like.graph.input), list(like.graph.output)
        graph = helper.make_graph(self.nodes, like.graph.name, inputs, outputs, list(self._constants.values()))
        return helper.make_model(graph, opset_imports=list(like.opset_import), ir_version=like.ir_version, producer_name=like.producer_name)


def rounded(value: NDArray[Any], kind: Any) -> NDArray[Any]:
    """To integers of `kind`, saturated."""
    limits = np.iinfo(kind)
    found: NDArray[Any] = np.clip(np.rint(value), limits.min, limits.max).astype(kind)
    return found


__all__ = ["WIDEST", "Bytes", "Layers", "rounded"]
