"""Protobuf, read strictly: every byte of a message is a field of its schema, in the one form that all readers agree on.

Readers of protobuf differ where a message is odd: tags of more than 32 bits, numbers with needless bytes, unknown fields, a field twice.
What one of them skips, another may run. Here such a message is an error, and what was read can be written again from the fields alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

INT, FIXED32, FIXED64, BYTES, TEXT = "int", "fixed32", "fixed64", "bytes", "text"
_WIRE = {INT: 0, FIXED64: 1, BYTES: 2, TEXT: 2, FIXED32: 5}
_PACKED_BYTES = 1 << 20  # of numbers that are looked at one by one


class Field(NamedTuple):
    """A field of a message. `kind`: one of the constants above, or the name of a message; `most` bounds an INT."""

    name: str
    kind: str
    repeated: bool = False
    most: int = (1 << 64) - 1


Schema = Mapping[str, Mapping[int, Field]]


class Message:
    """Fields in the order of the file: (number, what it is, value). `data` stays alive behind the values."""

    def __init__(self, kind: str, fields: list[tuple[int, Field, int | memoryview | Message]]) -> None:
        self.kind, self.fields = kind, fields

    def all(self, name: str) -> Iterator[int | memoryview | Message]:
        return (value for _, field, value in self.fields if field.name == name)

    def messages(self, name: str) -> Iterator[Message]:
        return (value for value in self.all(name) if isinstance(value, Message))

    def integer(self, name: str, default: int = 0) -> int:
        return next((value for value in self.all(name) if isinstance(value, int)), default)

    def text(self, name: str) -> str:
        return next((str(value, "utf-8") for value in self.all(name) if isinstance(value, memoryview)), "")

    def has(self, name: str) -> bool:
        return any(True for _ in self.all(name))


def read(data: memoryview, kind: str, schema: Schema) -> Message:
    """The message `kind` that fills `data`. Raises ValueError for anything else; the depth is the schema's."""
    known, fields, seen = schema[kind], [], set()
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        field = known.get(number)
        if key >= 1 << 32 or field is None:
            raise ValueError(f"{kind} has a field {number} that is none of its own")
        if number in seen and not field.repeated:
            raise ValueError(f"{kind} has {field.name} twice")
        seen.add(number)
        value: int | memoryview | Message
        expected = _WIRE.get(field.kind, 2)
        packed = field.repeated and wire == 2 != expected
        if wire != expected and not packed:
            raise ValueError(f"{kind}.{field.name} has the wire type {wire}")
        if wire == 0:
            value, at = _varint(data, at)
            if value > field.most:
                raise ValueError(f"{kind}.{field.name} is {value}, at most {field.most} can be")
        else:
            size = 8 if wire == 1 else 4
            if wire == 2:
                size, at = _varint(data, at)
            if size > end - at:
                raise ValueError(f"{kind}.{field.name} reaches past the end")
            value = data[at : at + size]
            at += size
            if packed:
                _check_packed(value, field, kind)
            elif field.kind == TEXT:
                str(value, "utf-8")
            elif field.kind not in _WIRE:
                value = read(value, field.kind, schema)
        fields.append((number, field, value))
    return Message(kind, fields)


def written(message: Message) -> bytes:
    """The message's bytes: what `read` found, fields by rising number."""
    return b"".join(_pieces(message))


def _pieces(message: Message) -> list[bytes | memoryview]:
    out: list[bytes | memoryview] = []
    for number, field, value in sorted(message.fields, key=lambda entry: entry[0]):
        if isinstance(value, int):
            out += [_varint_bytes(number << 3), _varint_bytes(value)]
            continue
        if isinstance(value, memoryview) and field.kind in (FIXED32, FIXED64) and len(value) == (4 if field.kind == FIXED32 else 8):
            # A packed list of one number and the number itself are read alike.
            out += [_varint_bytes(number << 3 | _WIRE[field.kind]), value]
            continue
        inner = _pieces(value) if isinstance(value, Message) else [value]
        out += [_varint_bytes(number << 3 | 2), _varint_bytes(sum(map(len, inner))), *inner]
    return out


def _check_packed(data: memoryview, field: Field, kind: str) -> None:
    if field.kind in (FIXED32, FIXED64):
        if len(data) % (4 if field.kind == FIXED32 else 8):
            raise ValueError(f"{kind}.{field.name} is not a whole number of numbers")
        return
    if len(data) > _PACKED_BYTES:
        raise ValueError(f"{kind}.{field.name} has {len(data)} bytes of numbers, at most {_PACKED_BYTES} are read; keep them as raw data")
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        if value > field.most:
            raise ValueError(f"{kind}.{field.name} holds {value}, at most {field.most} can be")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >= 1 << 64:
                raise ValueError("a number has needless bytes, or more than 64 bits")
            return value, at
    raise ValueError("a number of more than 64 bits")


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


__all__ = ["BYTES", "FIXED32", "FIXED64", "INT", "TEXT", "Field", "Message", "Schema", "read", "written"]
