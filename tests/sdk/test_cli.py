"""The command line: every failure is one line and a code, no traceback; a part that cannot load costs only its own commands."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from percodec.sdk import Bundle, UsageError, cli
from percodec.sdk.cli import Command, main

MODULE = "a_part_made_for_the_tests"
Run = Callable[[argparse.Namespace], int]


class Point:
    """An entry point that gives one command named "go", or one whose module is not there, or fails to load."""

    def __init__(self, name: str, run: Run | None = None, *, extra: str = "", broken: str = "") -> None:
        self.name, self.run, self._extra, self._broken = name, run, extra, broken

    def load(self) -> Any:
        if self._broken:
            raise ImportError(self._broken)
        if self.run is None:
            return lambda: [Command("train", "train on", "percodec.nowhere", self._extra)]
        return lambda: [Command("go", "go on", MODULE)]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*points: Point) -> None:
        monkeypatch.setattr(cli, "entry_points", lambda group: list(points))
        for point in points:
            module = ModuleType(MODULE)
            module.configure_go = lambda parser: parser.add_argument("--fast", action="store_true")  # type: ignore[attr-defined]
            module.go = point.run  # type: ignore[attr-defined]
            if point.run is not None:
                monkeypatch.setitem(sys.modules, MODULE, module)

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


def test_a_command_that_cannot_be_imported_costs_itself_only(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    part(Point("sdk", lambda args: 0), Point("export", extra="export"))
    assert main(["go"]) == 0
    assert main([]) == 0
    assert "train on" in capsys.readouterr().out
    for words in (["train", "codec", "--config", "edge"], ["train", "--help"]):
        assert main(words) == 1
        assert "pip install 'percodec[export]'" in capsys.readouterr().err


def test_a_part_that_cannot_be_imported_is_named(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    part(Point("sdk", lambda args: 0), Point("export", broken="no _rans"))
    assert main(["go"]) == 0
    assert main(["train"]) == 2
    assert "no command 'train'; known: go; part 'export' cannot be imported here (no _rans)" in capsys.readouterr().err


def test_the_overview_imports_nothing_heavy() -> None:
    """What `percodec --help` costs is what it imports: no numpy, and none of the modules in which the commands are."""
    code = (
        "import sys; from percodec.sdk import cli; cli.main(['--help']); commands = cli._commands()[0]\n"
        "print(sorted({'numpy', 'yaml', 'inspect', 'torch', 'cv2', *(c.module for c in commands)} & set(sys.modules)), len(commands))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, count = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert found == "[]"
    assert int(count) > 10


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
    assert shell(f"inspect {tiny.path} <&- >&- 2>&-").returncode == 0
    assert shell("inspect nothing <&- >&- 2>&-").returncode == 1


def test_what_is_printed_nowhere_is_in_no_file(tmp_path: Path) -> None:
    code = (
        "import os; from percodec.sdk.text import open_streams; open_streams(); file = open('file', 'w'); assert file.fileno() > 2; "
        "print('from Python', flush=True); os.write(1, b'from a library'); os.write(2, b'from a library')"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words], cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_an_empty_argument_is_no_folder(tiny: Bundle) -> None:
    for words in ('inspect ""', f'inspect "" {tiny.path}', f'inspect {tiny.path} ""'):
        done = shell(words)
        assert (done.returncode, done.stderr) == (2, "percodec: error: an argument is empty: is a variable of the shell not set?\n")


def test_every_public_name_is_there() -> None:
    import percodec.sdk

    for name in percodec.sdk.__all__:
        assert getattr(percodec.sdk, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Packet'"):
        _ = percodec.sdk.Packet  # type: ignore[attr-defined]
