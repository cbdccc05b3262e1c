"""The README keeps its word: marked blocks run, every command and option it shows exists, every link leads somewhere.

A block is marked by `<!-- test: run -->` on the line before it. Marked blocks run in one folder, in order.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
FENCE = re.compile(r"(?P<mark><!-- test: run -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    run: bool


def _blocks() -> list[Block]:
    return [Block(m["language"], m["text"], m["mark"] is not None) for m in FENCE.finditer(README.read_text(encoding="utf-8"))]


def _environment() -> dict[str, str]:
    """The environment of someone who has activated the one the tests run in."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _percodec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["percodec", *arguments], capture_output=True, text=True, check=False, env=_environment(), stdin=subprocess.DEVNULL
    )


@cache
def _help(*command: str) -> str:
    done = _percodec(*command, "--help")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _commands() -> list[str]:
    """Every `percodec ...` line of a shell block."""
    lines = [line for block in _blocks() if block.language == "sh" for line in block.text.splitlines()]
    return [line[line.index("percodec ") :] for line in lines if re.match(r"(\S*/)?percodec ", line)]


@pytest.mark.parametrize("number", [n for n, block in enumerate(_blocks()) if block.run])
def test_marked_blocks_run(number: int, tmp_path: Path) -> None:
    block = _blocks()[number]
    command = {"sh": ["bash", "-euo", "pipefail", "-c", block.text], "python": [sys.executable, "-c", block.text]}[block.language]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment(), stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


def test_some_blocks_are_marked() -> None:
    assert {block.language for block in _blocks() if block.run} == {"sh", "python"}


@pytest.mark.parametrize("line", sorted(set(_commands())))
def test_commands_and_options_exist(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    text = _help(name)
    for option in [argument for argument in arguments if re.fullmatch(r"--?[a-z][\w-]*", argument)]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{line}: percodec {name} has no {option}"


def test_options_in_the_text_exist() -> None:
    prose = FENCE.sub("", README.read_text(encoding="utf-8"))
    everything = "".join(_help(name) for name in ("run", "demo", "profile", "build", "train", "export"))
    for option in re.findall(r"`(--[a-z][\w-]*)", prose):
        if option != "--help":
            assert option in everything, option


def test_make_targets_exist() -> None:
    shown = set(re.findall(r"\bmake ([a-z]+)\b", "".join(block.text for block in _blocks() if block.language == "sh")))
    assert shown
    for target in shown:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    targets = [m["target"] for m in LINK.finditer(README.read_text(encoding="utf-8")) if "://" not in m["target"]]
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_tables_are_those_of_the_results() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
