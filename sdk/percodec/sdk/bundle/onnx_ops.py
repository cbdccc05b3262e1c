"""What an ONNX graph may hold before a backend sees it: operators of the default domain from one short list, all data inside.

    file's bytes --strict reading--> fields, each allowed --written again--> what a runtime gets (`checked_graph`)

Parsers of ONNX runtimes are not a sandbox, and they do not agree with each other on odd files. So custom operators, functions, subgraphs,
external files, training information and every field that is not in the schema below are refused, and a runtime never sees the file's own
bytes. Message and field numbers are those of onnx.proto; the `onnx` package is not needed.
"""

from __future__ import annotations

from percodec.sdk.bundle.protobuf import BYTES, FIXED32, FIXED64, INT, TEXT, Field, Message, Schema, read, written
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
_INT32, _SMALL = (1 << 31) - 1, (1 << 20) - 1

# Fields that ONNX knows and a bundle must not hold, by what is said of them.
_REFUSED = {
    ("Model", 20): "carries training information",
    ("Model", 25): "defines local functions",
    ("Graph", 15): "has sparse weights",
    ("Attribute", 6): "has a subgraph",
    ("Attribute", 11): "has a subgraph",
    ("Attribute", 22): "has sparse weights",
    ("Attribute", 23): "has sparse weights",
    ("Tensor", 13): "keeps weights in another file",
}


Tensors = list[tuple[str, tuple[str | None, tuple[int | None, ...] | None]]]
Signature = tuple[Tensors, Tensors]


def _message(**fields: tuple[int, str] | tuple[int, str, bool] | tuple[int, str, bool, int]) -> dict[int, Field]:
    return {entry[0]: Field(name, *entry[1:]) for name, entry in fields.items()}


_META = (14, "Entry", True)
_SCHEMA: Schema = {
    "Model": _message(
        ir_version=(1, INT, False, _SMALL),
        producer_name=(2, TEXT),
        producer_version=(3, TEXT),
        domain=(4, TEXT),
        model_version=(5, INT),
        doc_string=(6, TEXT),
        graph=(7, "Graph"),
        opset_import=(8, "Opset", True),
        metadata_props=_META,
        training_info=(20, BYTES, True),
        functions=(25, BYTES, True),
    ),
    "Opset": _message(domain=(1, TEXT), version=(2, INT, False, _SMALL)),
    "Entry": _message(key=(1, TEXT), value=(2, TEXT)),
    "Graph": _message(
        node=(1, "Node", True),
        name=(2, TEXT),
        initializer=(5, "Tensor", True),
        doc_string=(10, TEXT),
        input=(11, "ValueInfo", True),
        output=(12, "ValueInfo", True),
        value_info=(13, "ValueInfo", True),
        sparse_initializer=(15, BYTES, True),
        metadata_props=(16, "Entry", True),
    ),
    "Node": _message(
        input=(1, TEXT, True),
        output=(2, TEXT, True),
        name=(3, TEXT),
        op_type=(4, TEXT),
        attribute=(5, "Attribute", True),
        doc_string=(6, TEXT),
        domain=(7, TEXT),
        metadata_props=(9, "Entry", True),
    ),
    "Attribute": _message(
        name=(1, TEXT),
        f=(2, FIXED32),
        i=(3, INT),
        s=(4, BYTES),
        t=(5, "Tensor"),
        g=(6, BYTES),
        floats=(7, FIXED32, True),
        ints=(8, INT, True),
        strings=(9, BYTES, True),
        tensors=(10, "Tensor", True),
        graphs=(11, BYTES, True),
        doc_string=(13, TEXT),
        type=(20, INT, False, 14),
        sparse_tensor=(22, BYTES),
        sparse_tensors=(23, BYTES, True),
    ),
    "Tensor": _message(
        dims=(1, INT, True, _INT32),
        data_type=(2, INT, False, _SMALL),
        float_data=(4, FIXED32, True),
        int32_data=(5, INT, True),
        string_data=(6, BYTES, True),
        int64_data=(7, INT, True),
        name=(8, TEXT),
        raw_data=(9, BYTES),
        double_data=(10, FIXED64, True),
        uint64_data=(11, INT, True),
        doc_string=(12, TEXT),
        external_data=(13, BYTES, True),
        data_location=(14, INT, False, _SMALL),
        metadata_props=(16, "Entry", True),
    ),
    "ValueInfo": _message(name=(1, TEXT), type=(2, "Type"), doc_string=(3, TEXT), metadata_props=(4, "Entry", True)),
    "Type": _message(tensor_type=(1, "TensorType"), denotation=(6, TEXT)),
    "TensorType": _message(elem_type=(1, INT, False, _SMALL), shape=(2, "Shape")),
    "Shape": _message(dim=(1, "Side", True)),
    "Side": _message(dim_value=(1, INT, False, _INT32), dim_param=(2, TEXT), denotation=(3, TEXT)),
}
# What says nothing about what is computed stays behind.
LEFT_OUT = frozenset(["producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props", "denotation"])
# ONNX Runtime takes bytes with this at 4 for its own format, whatever else they are.
_OTHER_FORMAT = b"ORTM"


def checked_graph(data: bytes, name: str) -> bytes:
    """`data` written again from its fields, each of which is allowed: what a runtime may be given.

    Raises `BundleError` unless `data` is an ONNX model that keeps to the list. `name` is for the message.
    """
    out = written(_kept(_checked(data, name)))
    if out[4:8] == _OTHER_FORMAT:
        raise BundleError(f"{name} could be taken for a file of ONNX Runtime's own format; export the bundle again")
    return out


def check_graph(data: bytes, name: str) -> Signature:
    """The model's signature, as `signature`. Raises `BundleError` unless `data` is an ONNX model that keeps to the list."""
    return _signature(_checked(data, name))


def _checked(data: bytes, name: str) -> Message:
    try:
        if data[4:8] == _OTHER_FORMAT:
            raise ValueError("it could be taken for a file of ONNX Runtime's own format")
        model = read(memoryview(data), "Model", _SCHEMA)
        _check_model(model, name)
    except ValueError as e:
        raise BundleError(f"{name} is not an ONNX model as bundles hold them: {e}; export the bundle again") from e
    return model


# Element types of TensorProto by numpy's names; any other is None.
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}


def signature(data: bytes, name: str) -> Signature:
    """Inputs and outputs of a model, as far as the file says: (name, (dtype, shape with the batch dimension)), a free side None.

    Raises `BundleError` where `data` is no ONNX model.
    """
    try:
        model = read(memoryview(data), "Model", _SCHEMA)
    except ValueError as e:
        raise BundleError(f"{name} is not an ONNX model as bundles hold them: {e}; export the bundle again") from e
    return _signature(model)


def _signature(model: Message) -> Signature:
    graphs = list(model.messages("graph"))
    inputs, outputs = ([_tensor(value) for graph in graphs for value in graph.messages(side)] for side in ("input", "output"))
    return inputs, outputs


def _tensor(value: Message) -> tuple[str, tuple[str | None, tuple[int | None, ...] | None]]:
    kind, shape = None, None
    for tensor in (inner for of_type in value.messages("type") for inner in of_type.messages("tensor_type")):
        kind = _DTYPES.get(tensor.integer("elem_type"))
        for found in tensor.messages("shape"):
            shape = tuple(side.integer("dim_value") or None for side in found.messages("dim"))
    return value.text("name"), (kind, shape)


def _refuse(name: str, what: str) -> BundleError:
    return BundleError(f"{name} {what}, which a bundle must not hold; export the graph with percodec export")


def _check_model(model: Message, name: str) -> None:
    _check_fields(model, name)
    opsets = list(model.messages("opset_import"))
    if not model.has("graph") or len(opsets) != 1:
        raise ValueError(f"{'one graph' if model.has('graph') else 'no graph'} and {len(opsets)} operator sets instead of one of each")
    if opsets[0].text("domain") not in ("", "ai.onnx"):
        raise _refuse(name, f"uses the operator domain {opsets[0].text('domain')[:40]!r}")
    version = opsets[0].integer("version")
    if not MIN_OPSET <= version <= MAX_OPSET:
        raise BundleError(f"{name} uses opset {version}, supported are {MIN_OPSET}..{MAX_OPSET}; export it again")


def _check_fields(message: Message, name: str) -> None:
    for number, _, value in message.fields:
        if (message.kind, number) in _REFUSED:
            raise _refuse(name, _REFUSED[message.kind, number])
        if isinstance(value, Message):
            _check_fields(value, name)
    if message.kind == "Node":
        domain, kind = message.text("domain"), message.text("op_type")
        if domain not in ("", "ai.onnx") or kind not in OPERATORS:
            raise _refuse(name, f"uses the operator {(domain + '.' if domain else '') + kind[:40]!r}")
    if message.kind == "Tensor" and message.integer("data_location"):
        raise _refuse(name, "keeps weights in another file")
    if message.kind == "Side" and message.has("dim_value") and message.has("dim_param"):
        raise ValueError("a side has a number and a name")


def _kept(message: Message) -> Message:
    fields = [
        (number, field, _kept(value) if isinstance(value, Message) else value)
        for number, field, value in message.fields
        if field.name not in LEFT_OUT or (message.kind in ("Node", "Opset") and field.name == "domain")
    ]
    return Message(message.kind, fields)


__all__ = ["LEFT_OUT", "OPERATORS", "Signature", "check_graph", "checked_graph", "signature"]
