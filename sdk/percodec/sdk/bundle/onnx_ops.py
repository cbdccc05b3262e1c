"""What an ONNX graph may hold before a backend sees it: operators of the default domain from one short list, all data inside.

Parsers of ONNX runtimes are not a sandbox, so custom operators, functions, subgraphs, external files and training information are
refused here, from the bytes alone (protobuf wire format; field numbers from onnx.proto), without the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Iterator

from percodec.sdk.errors import BundleError

# fmt: off
OPERATORS = frozenset([
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "DepthToSpace",
    "DequantizeLinear", "Div", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "Greater", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Less", "MatMul", "Max", "MaxPool", "Min", "Mul", "Pad", "PRelu", "QLinearConv", "QuantizeLinear", "ReduceMean",
    "ReduceSum", "Relu", "Reshape", "Resize", "Round", "Sigmoid", "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum",
    "Tanh", "Transpose", "Unsqueeze",
])
# fmt: on
MIN_OPSET, MAX_OPSET = 17, 23
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_graph(data: bytes, name: str) -> None:
    """Raises `BundleError` unless `data` is an ONNX model that keeps to the list. `name` is for the message."""
    try:
        _check_model(memoryview(data), name)
    except (ValueError, IndexError) as e:
        raise BundleError(f"{name} is not an ONNX model: {e}; export the bundle again") from e


# Element types of TensorProto by numpy's names; any other is None.
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}
Tensors = list[tuple[str, tuple[str | None, tuple[int | None, ...] | None]]]


def signature(data: bytes, name: str) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of a model, as far as the file says: (name, (dtype, shape with the batch dimension)), a free side None.

    Raises `BundleError` where `data` is no ONNX model.
    """
    found: tuple[Tensors, Tensors] = ([], [])
    try:
        for field, graph in _fields(memoryview(data)):
            for inner, value in _fields(_bytes(graph)) if field == 7 else ():
                if inner in (11, 12):
                    found[inner - 11].append(_value_info(_bytes(value)))
    except (ValueError, IndexError) as e:
        raise BundleError(f"{name} is not an ONNX model: {e}; export the bundle again") from e
    return found


def _value_info(data: memoryview) -> tuple[str, tuple[str | None, tuple[int | None, ...] | None]]:
    name, kind, shape = "", None, None
    for field, value in _fields(data):
        if field == 1:
            name = _text(value)
        for of_type, tensor in _fields(_bytes(value)) if field == 2 else ():
            for inner, part in _fields(_bytes(tensor)) if of_type == 1 else ():
                if inner == 1 and isinstance(part, int):
                    kind = _DTYPES.get(part)
                elif inner == 2:
                    shape = tuple(_side(_bytes(side)) for at, side in _fields(_bytes(part)) if at == 1)
    return name, (kind, shape)


def _side(data: memoryview) -> int | None:
    known = [value for field, value in _fields(data) if field == 1 and isinstance(value, int)]
    return known[-1] if known and 0 < known[-1] < 1 << 31 else None


def _refuse(name: str, what: str) -> BundleError:
    return BundleError(f"{name} {what}, which a bundle must not hold; export the graph with percodec export")


def _check_model(data: memoryview, name: str) -> None:
    graphs, opsets = 0, 0
    for field, value in _fields(data):
        if field == 7:
            graphs += 1
            _check_nodes(_bytes(value), name)
        elif field == 8:
            opsets += 1
            _check_opset(_bytes(value), name)
        elif field == 20:
            raise _refuse(name, "carries training information")
        elif field == 25:
            raise _refuse(name, "defines local functions")
    if graphs != 1 or opsets != 1:
        raise ValueError(f"{graphs} graphs and {opsets} operator sets instead of one of each")


def _check_opset(data: memoryview, name: str) -> None:
    domain, version = "", 0
    for field, value in _fields(data):
        if field == 1:
            domain = _text(value)
        elif field == 2 and isinstance(value, int):
            version = value
    if domain not in ("", "ai.onnx"):
        raise _refuse(name, f"uses the operator domain {domain[:40]!r}")
    if not MIN_OPSET <= version <= MAX_OPSET:
        raise BundleError(f"{name} uses opset {version}, supported are {MIN_OPSET}..{MAX_OPSET}; export it again")


def _check_nodes(data: memoryview, name: str) -> None:
    for field, value in _fields(data):
        if field == 1:
            _check_node(_bytes(value), name)
        elif field == 5:
            _check_tensor(_bytes(value), name)
        elif field == 15:
            raise _refuse(name, "has sparse weights")


def _check_node(data: memoryview, name: str) -> None:
    kind, domain = "", ""
    for field, value in _fields(data):
        if field == 4:
            kind = _text(value)
        elif field == 7:
            domain = _text(value)
        elif field == 5:
            _check_attribute(_bytes(value), name)
    if domain not in ("", "ai.onnx") or kind not in OPERATORS:
        raise _refuse(name, f"uses the operator {(domain + '.' if domain else '') + kind[:40]!r}")


def _check_attribute(data: memoryview, name: str) -> None:
    for field, value in _fields(data):
        if field in (6, 11):
            raise _refuse(name, "has a subgraph")
        if field in (22, 23):
            raise _refuse(name, "has sparse weights")
        if field in (5, 10):
            _check_tensor(_bytes(value), name)


def _check_tensor(data: memoryview, name: str) -> None:
    for field, value in _fields(data):
        if field == 13 or (field == 14 and value != 0):
            raise _refuse(name, "keeps weights in another file")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one protobuf message. Raises ValueError or IndexError on bytes that are none."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            if kind == _BYTES:
                size, at = _varint(data, at)
            else:
                size = 8 if kind == _FIXED64 else 4
            if size > end - at:
                raise ValueError(f"field {field} reaches past the end")
            value = data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind} is not used by ONNX")
        yield field, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8", "strict")


__all__ = ["OPERATORS", "check_graph", "signature"]
