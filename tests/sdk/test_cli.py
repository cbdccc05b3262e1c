"""The command line: every failure is one line and a code, no traceback; a part that cannot load costs only its own commands."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest

from percodec.sdk import Bundle, UsageError, cli
from percodec.sdk.cli import Command, main


class Point:
    """An entry point that gives one command named "go", or fails to load."""

    def __init__(self, name: str, run: Callable[[argparse.Namespace], int] | Exception) -> None:
        self.name = name
        self._run = run

    def load(self) -> Any:
        if isinstance(self._run, Exception):
            raise self._run
        run = self._run
        return lambda: [Command("go", "go on", lambda parser: parser.add_argument("--fast", action="store_true"), run)]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*points: Point) -> None:
        monkeypatch.setattr(cli, "entry_points", lambda group: list(points))

    return install


def shell(words: str) -> subprocess.CompletedProcess[str]:
    """`percodec WORDS` in bash, its output buffered as users have it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONUNBUFFERED", "PERCODEC_DEBUG")}
    command = ["bash", "-c", f"{sys.executable} -m percodec.sdk.cli {words}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def raising(error: BaseException) -> Point:
    def run(args: argparse.Namespace) -> int:
        raise error

    return Point("sdk", run)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("bad\nvalue"), 2, "percodec: error: bad value"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), 1, "percodec: error: /x/y: No space left on device"),
        (KeyboardInterrupt(), 130, "percodec: interrupted"),
        (MemoryError(), 1, "percodec: error: out of memory"),
        (ZeroDivisionError("oops"), 70, "percodec: error: internal: ZeroDivisionError: oops"),
    ],
)
def test_failures_are_one_line(part: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, text: str) -> None:
    part(raising(error))
    assert main(["go"]) == code
    out = capsys.readouterr()
    assert out.err.startswith(text)
    assert out.err.count("\n") == 1


def test_debug_shows_the_traceback(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    part(raising(ZeroDivisionError("oops")))
    monkeypatch.setenv("PERCODEC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["go"])


def test_the_command_gets_its_arguments_and_gives_the_code(part: Any) -> None:
    part(Point("sdk", lambda args: 5 if args.fast else 0))
    assert main(["go", "--fast"]) == 5
    assert main(["go"]) == 0


@pytest.mark.parametrize(
    ("argv", "word"), [(["goo"], "did you mean 'go'"), (["zzz"], "known: go"), (["go", "--slow"], "see percodec go --help")]
)
def test_wrong_usage_helps(part: Any, capsys: pytest.CaptureFixture[str], argv: list[str], word: str) -> None:
    part(Point("sdk", lambda args: 0))
    assert main(argv) == 2
    assert word in capsys.readouterr().err


def test_a_part_that_cannot_load_costs_only_its_commands(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    part(Point("sdk", lambda args: 0), Point("export", ModuleNotFoundError("No module named 'torch'")))
    assert main(["go"]) == 0
    for words in (["train", "codec", "--config", "edge"], ["export", "--out", "x"]):  # an option first is no wrong usage either
        assert main(words) == 1
        assert "pip install 'percodec[export]'" in capsys.readouterr().err
    assert main([]) == 0
    assert "train" in capsys.readouterr().out


def test_a_ground_floor_that_cannot_load_is_still_listed(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    part(Point("sdk", ImportError("no _rans")))
    assert main(["inspect", "x"]) == 1
    assert "no _rans" in capsys.readouterr().err


def test_version_is_a_code_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("percodec ")


def test_help_and_version_of_the_real_thing() -> None:
    for words in (["--version"], ["--help"], ["inspect", "--help"]):
        done = subprocess.run([sys.executable, "-m", "percodec.sdk.cli", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stdout


def test_a_reader_that_leaves_early_is_no_error(tiny: Bundle) -> None:
    for words in (f"inspect {tiny.path}", "--help"):
        assert shell(f"{words} | head -c 0").stderr == ""


def test_output_that_cannot_be_written_is_one_line(tiny: Bundle) -> None:
    for words in (f"inspect {tiny.path}", "--help"):
        done = shell(f"{words} >/dev/full")
        assert (done.returncode, done.stderr) == (1, "percodec: error: No space left on device\n")


def test_no_output_at_all_is_no_error(tiny: Bundle) -> None:
    done = shell(f"inspect {tiny.path} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_percent_sign_in_a_help_text_stays_one() -> None:
    """argparse fills `%` in; an unescaped one prints its innards."""
    for point in entry_points(group="percodec.commands"):
        for command in point.load()():
            parsers = [argparse.ArgumentParser()]
            command.configure(parsers[0])
            for parser in parsers:
                parsers += [p for a in parser._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
                assert "option_strings" not in parser.format_help(), command.name
