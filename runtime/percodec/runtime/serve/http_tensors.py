"""Requests and answers of the protocol in HTTP bodies: JSON, and behind it tensors in binary."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from percodec.runtime.serve.desk import seconds_of
from percodec.runtime.serve.models import Model
from percodec.runtime.serve.predictor import Tensor
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import MAX_ID, Asked, Given, elements_of

HEADER = "Inference-Header-Content-Length"
_MAX_TENSORS = 64


@dataclass(frozen=True)
class Question:
    """A body, read. `binary`: names of outputs that are to come in binary; `all_binary`: of those that do not say."""

    id: str
    inputs: Sequence[Given]
    asked: Sequence[Asked]
    binary: dict[str, bool]
    all_binary: bool
    seconds: float | None


def question_of(body: bytes, header: str | None, most: int) -> Question:
    """`header`: the length of the JSON, where binary tensors follow it. Raises `Refusal`; reads no more than `most` packets."""
    length = len(body)
    if header is not None:
        if not header.isascii() or not header.isdigit() or len(header) > 12 or int(header) > len(body):
            raise Refusal(Why.INVALID, f"{HEADER}: a number of bytes, at most the {len(body)} of the body")
        length = int(header)
    head = _json(body[:length])
    parameters = _object(head.get("parameters", {}), "parameters")
    inputs, at = [], length
    for one in _list(head.get("inputs"), "inputs"):
        given, at = _input(one, body, at, most)
        inputs.append(given)
    if at != len(body):
        raise Refusal(Why.INVALID, f"{len(body) - at} bytes behind the inputs belong to none")
    asked, binary = [], {}
    for one in _list(head.get("outputs", []), "outputs"):
        name, said = _text(one.get("name"), "an output's name"), _object(one.get("parameters", {}), "an output's parameters")
        asked.append(Asked(name, None if said.get("encoding") is None else _text(said["encoding"], "encoding")))
        if "binary_data" in said:
            binary[name] = said["binary_data"] is True
    identity = _text(head.get("id", ""), "id")
    if len(identity) > MAX_ID:
        raise Refusal(Why.INVALID, f"an id has at most {MAX_ID} characters")
    return Question(identity, inputs, asked, binary, parameters.get("binary_data_output") is True, seconds_of(parameters.get("timeout")))


def answer_of(model: Model, question: Question, tensors: Sequence[Tensor]) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where binary tensors follow it."""
    outputs: list[dict[str, Any]] = []
    tail = []
    for tensor in tensors:
        if question.binary.get(tensor.name, question.all_binary):
            one = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
            outputs.append(one | {"parameters": {"binary_data_size": len(tensor.data)}})
            tail.append(tensor.data)
        else:
            outputs.append(in_json(tensor))
    said = {"model_name": model.name, "model_version": model.version, "parameters": {"digest": model.digest}, "outputs": outputs}
    head = json.dumps({"id": question.id, **said} if question.id else said).encode()
    return b"".join([head, *tail]), len(head) if tail else None


def in_json(tensor: Tensor) -> dict[str, Any]:
    """A tensor as the protocol's JSON has it; BYTES in base64."""
    if tensor.datatype == "BYTES":
        data = [base64.b64encode(element).decode() for element in elements_of(tensor.data, tensor.shape[0])]
    else:
        data = tensor.array().reshape(-1).tolist()
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "data": data}


def _input(one: dict[str, Any], body: bytes, at: int, most: int) -> tuple[Given, int]:
    name, datatype = _text(one.get("name"), "an input's name"), _text(one.get("datatype"), "an input's datatype")
    shape = one.get("shape")
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(side) is int and 0 <= side < 1 << 62 for side in shape):
        raise Refusal(Why.INVALID, "an input's shape is a list of whole numbers")
    parameters = _object(one.get("parameters", {}), "an input's parameters")
    size = parameters.get("binary_data_size")
    if size is None:
        return Given(name, datatype, tuple(shape), _decoded(one.get("data"), most) if datatype == "BYTES" else []), at
    if type(size) is not int or not 0 <= size <= len(body) - at:
        raise Refusal(Why.INVALID, f"binary_data_size of input {name[:60]!a}: {len(body) - at} bytes are left")
    if "data" in one:
        raise Refusal(Why.INVALID, f"the data of input {name[:60]!a} are there twice")
    return Given(name, datatype, tuple(shape), elements_of(body[at : at + size], most) if datatype == "BYTES" else []), at + size


def _decoded(data: Any, most: int) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(element, str) for element in data):
        raise Refusal(Why.INVALID, "the data of a BYTES input in JSON are a list of base64 texts; or send them in binary")
    try:
        return [base64.b64decode(element, validate=True) for element in data[: most + 1]]
    except (binascii.Error, ValueError):
        raise Refusal(Why.INVALID, "the data of a BYTES input in JSON are base64 texts, and one is not") from None


def _json(data: bytes) -> dict[str, Any]:
    try:
        return _object(json.loads(data.decode("utf-8")), "a request")
    except (ValueError, RecursionError):
        raise Refusal(Why.INVALID, f"the body is no JSON; where tensors follow it in binary, {HEADER} says where it ends") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(Why.INVALID, f"{what}: a JSON object is expected")
    return value


def _list(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > _MAX_TENSORS:
        raise Refusal(Why.INVALID, f"{what}: a list of at most {_MAX_TENSORS} objects is expected")
    return [_object(one, what) for one in value]


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Refusal(Why.INVALID, f"{what} is a text")
    return value


__all__ = ["HEADER", "Question", "answer_of", "in_json", "question_of"]
