"""A request in the words of neither protocol, checked once against the model that it is for."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from percodec.runtime.serve.models import INPUT, Model
from percodec.runtime.serve.refusal import Refusal, Why

MAX_ID = 256
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for, and how its elements are written."""

    name: str
    encoding: str


@dataclass(frozen=True)
class Given:
    """An input as it came: `shape` is what was said of `elements`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Sequence[bytes]


@dataclass(frozen=True)
class Asked:
    """An output as it was asked for; `encoding` None: as the model does it."""

    name: str
    encoding: str | None = None


@dataclass(frozen=True)
class Work:
    """Packets of one model, at least one, and the outputs to give."""

    model: Model
    packets: tuple[bytes, ...]
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True)
class Limits:
    """`body_bytes` of a request, `packets` in it, `frames` waiting and in work, of all requests.

    `timeout_s`: the longest that a request may take. `drain_s`: at the end, for requests that have begun.
    """

    body_bytes: int = 4 << 20
    packets: int = 64
    frames: int = 256
    timeout_s: float = 60.0
    drain_s: float = 30.0


def model_named(models: Mapping[str, Model], name: str, version: str) -> Model:
    """Raises `Refusal`."""
    model = models.get(name)
    if model is None:
        raise Refusal(Why.UNKNOWN, f"no model {_short(name)}; here are: {', '.join(models)}")
    if version not in ("", model.version):
        raise Refusal(Why.UNKNOWN, f"model {name} is here in version {model.version}, not {_short(version)}; it is the bundle's digest")
    return model


def work_of(model: Model, inputs: Sequence[Given], asked: Sequence[Asked], limits: Limits) -> Work:
    """Raises `Refusal`: INVALID or TOO_LARGE."""
    if len(inputs) != 1 or inputs[0].name != INPUT:
        names = ", ".join(_short(one.name) for one in inputs[:4]) or "none"
        raise Refusal(Why.INVALID, f"a request has one input, {INPUT!r}; got {names}")
    given = inputs[0]
    if given.datatype != "BYTES":
        raise Refusal(Why.INVALID, f"input {INPUT} is BYTES, got {_short(given.datatype)}")
    if len(given.elements) > limits.packets:
        raise _too_many(limits)
    if given.shape != (len(given.elements),):
        raise Refusal(Why.INVALID, f"input {INPUT} has the shape [n]; got {list(given.shape[:8])} and {len(given.elements)} packets")
    return Work(model, packets_of(model, given.elements, limits), wanted_of(model, asked))


def packets_of(model: Model, packets: Sequence[bytes], limits: Limits) -> tuple[bytes, ...]:
    """Raises `Refusal` for none, for too many, and for one too long to be of this bundle."""
    if not packets:
        raise Refusal(Why.INVALID, "a request needs at least one packet")
    if len(packets) > limits.packets:
        raise _too_many(limits)
    for k, packet in enumerate(packets):
        if len(packet) > model.max_packet_bytes:
            raise Refusal(Why.INVALID, f"packet {k} has {len(packet)} bytes; one of {model.name} has at most {model.max_packet_bytes}")
    return tuple(packets)


def wanted_of(model: Model, asked: Sequence[Asked]) -> tuple[Wanted, ...]:
    """Of none: those that come unasked. Raises `Refusal`."""
    if not asked:
        return tuple(Wanted(one.name, one.encodings[0]) for one in model.outputs.values() if one.unasked)
    if len(asked) > len(model.outputs):
        raise Refusal(Why.INVALID, f"{len(asked)} outputs asked for; {model.name} has {len(model.outputs)}")
    found = {}
    for one in asked:
        output = model.outputs.get(one.name)
        if output is None:
            raise Refusal(Why.INVALID, f"{model.name} has no output {_short(one.name)}; it gives {', '.join(model.outputs)}")
        encoding = output.encodings[0] if one.encoding is None else one.encoding
        if encoding not in output.encodings:
            raise Refusal(Why.INVALID, f"output {one.name} is given as {' or '.join(output.encodings)}, not {_short(encoding)}")
        if one.name in found:
            raise Refusal(Why.INVALID, f"output {one.name} is asked for twice")
        found[one.name] = Wanted(one.name, encoding)
    return tuple(found.values())


def elements_of(data: bytes, most: int) -> list[bytes]:
    """The elements of a BYTES tensor: each behind its length, 4 bytes little-endian. Raises `Refusal`; reads no more than `most`."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if len(found) > most:
            break  # too many, which whoever counts them says
        if at + _LENGTH.size > len(data):
            raise Refusal(Why.INVALID, f"input {INPUT}: the last {len(data) - at} bytes are no length of an element")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            raise Refusal(Why.INVALID, f"input {INPUT}: element {len(found)} is {size} bytes long, and {len(data) - at} are left")
        found.append(data[at : at + size])
        at += size
    return found


def bytes_of(elements: Sequence[bytes]) -> bytes:
    """The inverse of `elements_of`."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))


def _too_many(limits: Limits) -> Refusal:
    return Refusal(Why.TOO_LARGE, f"more than {limits.packets} packets in a request; send them in parts")


def _short(text: str) -> str:
    return ascii(text[:60])


__all__ = [
    "MAX_ID",
    "Asked",
    "Given",
    "Limits",
    "Wanted",
    "Work",
    "bytes_of",
    "elements_of",
    "model_named",
    "packets_of",
    "wanted_of",
    "work_of",
]
