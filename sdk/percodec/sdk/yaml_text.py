"""YAML from outside: plain data, of a size that is bounded by the text's, and one error for whatever is wrong with it.

As YAML 1.2 has it, `off`, `no`, `on` and `yes` are words. A key that stands twice is refused, for one of the two would be passed over;
so are merges (`<<`) and references that grow to more than a text of such length can hold.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

MOST_VALUES = 200_000
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012  # as the base class has it
        first: [(tag, pattern) for tag, pattern in rules if tag != f"{_TAG}bool"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                raise yaml.constructor.ConstructorError(None, None, "merges (<<) are not read", key.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key stands twice", node.start_mark)
        return found


_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_yaml(text: str) -> Any:
    """The one document in `text`. Raises ValueError that says in one line what is wrong."""
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader
        _weigh(value, {})
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML's constructors raise all of these for what a tag does not fit.
        said = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError | ValueError) else "a value is not what its tag says"
        raise ValueError(said[:200]) from error
    return value


def _weigh(value: Any, known: dict[int, int]) -> int:
    """How many values it is, written out without references."""
    if not isinstance(value, dict | list | tuple | set):
        return 1
    weight = known.get(id(value))
    if weight == 0:
        raise ValueError("a value holds itself")
    if weight is None:
        known[id(value)] = 0
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        weight = known[id(value)] = 1 + sum(_weigh(v, known) for v in inner)
    if weight > MOST_VALUES:
        raise ValueError("references make it too large")
    return weight


__all__ = ["MOST_VALUES", "read_yaml"]
