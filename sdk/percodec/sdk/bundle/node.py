"""A value of manifest.json and where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from percodec.sdk.errors import BundleError
from percodec.sdk.text import has_utf8

PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}){0,3}")


class Node:
    """A JSON value and where it stands, for checks that can say what is wrong with it."""

    def __init__(self, value: Any, where: str) -> None:
        self.value = value
        self.where = where

    def fail(self, expected: str) -> BundleError:
        shown = repr(self.value)
        return BundleError(f"manifest.json: {self.where} must be {expected}, got {shown[:60]}; export the bundle again")

    def object(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        place = self.where or "the top level"
        for key in required:
            if key not in self.value:
                raise BundleError(f"manifest.json: {place} lacks {key!r}; export the bundle again")
        for key in self.value:
            if key not in required and key not in optional:
                raise BundleError(f"manifest.json: {place} has the unknown key {str(key)[:60]!r}; is this bundle of a newer version?")

    def __getitem__(self, key: str) -> Node:
        return Node(self.value[key], f"{self.where}.{key}" if self.where else key)

    def items(self) -> list[tuple[str, Node]]:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        return [(key, self[key]) for key in self.value]

    def elements(self, least: int = 0, most: int = 1 << 16) -> list[Node]:
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            raise self.fail(f"a list of {least}..{most} elements")
        return [Node(v, f"{self.where}[{k}]") for k, v in enumerate(self.value)]

    def integer(self, least: int, most: int) -> int:
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.fail(f"an integer in {least}..{most}")
        return self.value

    def number(self, least: float, most: float) -> float:
        if type(self.value) not in (int, float) or not least <= self.value <= most:
            raise self.fail(f"a number in {least:g}..{most:g}")
        return float(self.value)

    def text(self, pattern: re.Pattern[str] | None = None, most: int = 200) -> str:
        if not isinstance(self.value, str) or len(self.value) > most or (pattern and not pattern.fullmatch(self.value)):
            raise self.fail(f"text like {pattern.pattern}" if pattern else f"text of at most {most} characters")
        if not has_utf8(self.value) or not self.value.isprintable():
            raise self.fail("text that can be printed")
        return self.value

    def one_of(self, values: tuple[str, ...]) -> str:
        if not isinstance(self.value, str) or self.value not in values:
            raise self.fail("one of " + ", ".join(values))
        return self.value

    def listed(self, files: Mapping[str, Any]) -> None:
        if self.text(PATH) not in files:
            raise self.fail("a file listed under files")


__all__ = ["PATH", "Node"]
