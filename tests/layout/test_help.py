"""The help of every command of every layer."""

from __future__ import annotations

import argparse
from importlib.metadata import entry_points

from percodec.sdk import cli


def test_a_percent_sign_in_a_help_text_stays_one() -> None:
    """argparse fills `%` in; an unescaped one prints its innards."""
    commands = [command for point in entry_points(group="percodec.commands") for command in point.load()()]
    assert len(commands) > 10
    for command in commands:
        parsers = [cli.parser_of(command)]
        for parser in parsers:
            parsers += [p for a in parser._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
            assert "option_strings" not in parser.format_help(), command.name
