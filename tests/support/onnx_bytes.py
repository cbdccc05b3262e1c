"""ONNX graphs as bytes, written by hand: what has to run without the onnx package has graphs all the same.

Only what the tiny graphs need of the format; a test holds them against `onnx.checker`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET, IR_VERSION = 20, 9
KINDS = {"float32": 1, "uint8": 2, "int64": 7}  # TensorProto.DataType
INT, STRING, INTS = 2, 3, 7  # AttributeProto.AttributeType


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | str | Sequence[int]) -> bytes:
    """NodeProto."""
    given = b"".join(_field(5, _attribute(name, value)) for name, value in attributes.items())
    return b"".join([*(_field(1, name) for name in inputs), *(_field(2, name) for name in outputs), _field(4, op), given])


def tensor_info(name: str, kind: str, shape: Sequence[int]) -> bytes:
    """ValueInfoProto."""
    dims = b"".join(_field(1, _field(1, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, KINDS[kind]) + _field(2, dims)))


def model(
    name: str, nodes: Sequence[bytes], takes: Sequence[bytes], gives: Sequence[bytes], constants: Mapping[str, NDArray[Any]]
) -> bytes:
    """ModelProto."""
    parts = [(1, nodes), (2, [name]), (5, [_tensor(k, v) for k, v in constants.items()]), (11, takes), (12, gives)]
    graph = b"".join(_field(number, value) for number, values in parts for value in values)
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, OPSET))


def _tensor(name: str, value: NDArray[Any]) -> bytes:
    dims = b"".join(_field(1, side) for side in value.shape)
    return dims + _field(2, KINDS[str(value.dtype)]) + _field(8, name) + _field(9, np.ascontiguousarray(value).tobytes())


def _attribute(name: str, value: int | str | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, INT)
    if isinstance(value, str):
        return _field(1, name) + _field(4, value) + _field(20, STRING)
    return _field(1, name) + b"".join(_field(8, item) for item in value) + _field(20, INTS)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


__all__ = ["KINDS", "model", "node", "tensor_info"]
