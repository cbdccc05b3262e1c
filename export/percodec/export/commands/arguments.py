"""What `train` and `export` read and print alike."""

from __future__ import annotations

from typing import Any

from percodec.sdk.errors import UsageError


def places_from_arguments(items: list[str]) -> dict[str, str]:
    """{NAME: PATH} of `--data NAME=PATH` arguments. Raises `UsageError`."""
    places = {}
    for item in items:
        name, sign, path = item.partition("=")
        if not sign or not name.isidentifier():
            raise UsageError(f"--data {item!r}: write it as NAME=PATH, for example camvid=/data/camvid")
        places[name] = path
    return places


def print_record(record: dict[str, Any]) -> None:
    """The numbers of a record, a line each."""
    for key, value in record.items():
        if isinstance(value, int | float):
            print(f"  {key:<28} {value:.4g}" if isinstance(value, float) else f"  {key:<28} {value}")


__all__ = ["places_from_arguments", "print_record"]
