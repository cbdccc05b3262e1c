"""YAML from outside: read as plain data, or refused in one way, whatever it grows to."""

from __future__ import annotations

import pytest

from percodec.sdk.yaml_text import read_yaml


def test_plain_data_is_read_as_yaml_1_2_has_it() -> None:
    assert read_yaml("a: [off, no, on, yes, true, 1, 1.5, null]\nb: {c: &x [1], d: *x}") == {
        "a": ["off", "no", "on", "yes", True, 1, 1.5, None],
        "b": {"c": [1], "d": [1]},
    }
    assert read_yaml("") is None


def grown(line: str) -> str:
    return "\n".join(["a0: &a0 {x: 1}", *(line.replace("NOW", f"a{k}").replace("LAST", f"*a{k - 1}") for k in range(1, 20))])


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: 2\na: 3",
        "{1: a, true: b}",
        grown("NOW: &NOW {<<: [LAST, LAST, LAST, LAST]}"),
        grown("NOW: &NOW [LAST, LAST, LAST, LAST]"),
        "a: &a [*a]",
        "a: &a {b: *a}",
        "{!!merge x: {a: 1}}",
        "!!timestamp x",
        "!!int ''",
        "!!float ''",
        "!!bool maybe",
        "!!python/name:os.system x",
        "{[a]: b}",
        "1" + ":59" * 9000 + ".0",
        "9" * 5000 if hasattr(__import__("sys"), "get_int_max_str_digits") else "[",
        "2020-99-99",
        "[" * 20_000,
        "a\n---\nb",
        "\0",
    ],
)
def test_what_is_no_plain_data_is_one_error_of_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$"):
        read_yaml(text)
