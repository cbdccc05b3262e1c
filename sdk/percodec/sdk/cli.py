"""`percodec`: one command line, to which each part adds its own commands.

Parts register `commands() -> list[Command]` under the entry-point group "percodec.commands"; this module imports none of them by
name. `percodec --help` needs names and one-line helps only, so a command's module is imported when that command is used. What is missing
here then costs that command only. Whatever goes wrong ends in one line on stderr and a non-zero exit; PERCODEC_DEBUG=1 shows the
traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from percodec.sdk.errors import BackendError, PercodecError, UsageError
from percodec.sdk.text import escape_output, has_utf8, open_streams, printable, shown, with_home

_GROUP = "percodec.commands"


class Command(NamedTuple):
    """One subcommand. `module` has `configure_NAME(parser)`, which adds its arguments, and `NAME(args)`, which returns the exit code;
    dashes in the name are underscores there.

    `extra`: what `pip install percodec[...]` has to bring where that module cannot be imported.
    """

    name: str
    help: str
    module: str
    extra: str = ""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add this command's arguments to `parser`. Raises `BackendError` where its module cannot be imported here."""
        self._function(f"configure_{self.name}")(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Returns the exit code or raises a `PercodecError`."""
        return int(self._function(self.name)(args))

    def _function(self, name: str) -> Any:
        try:
            return getattr(import_module(self.module), name.replace("-", "_"))
        except ImportError as error:
            raise BackendError(f"percodec {self.name} cannot run here ({error}); {_install(self.extra)}") from error


def require(extra: str, *modules: str) -> None:
    """Raises `BackendError` where one of `modules` is not installed; `extra` is what brings them."""
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        raise BackendError(f"this command needs {', '.join(missing)}; {_install(extra)}")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # what it is a part of is not there
        return False


def _install(extra: str) -> str:
    return "install with: " + (f"pip install 'percodec[{extra}]'" if extra else "pip install --force-reinstall percodec")


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1, 2 for wrong usage, 70 for a defect of ours, 130 when interrupted."""
    open_streams()
    escape_output()
    with _closing_signals():
        return _main(sys.argv[1:] if argv is None else argv)


@contextlib.contextmanager
def _closing_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that files are closed; not where somebody else handles or ignores them (nohup)."""

    def end(number: int, frame: FrameType | None) -> None:
        for other in taken:
            signal.signal(other, signal.SIG_DFL)  # a second one ends at once
        raise SystemExit(128 + number)

    taken: list[signal.Signals] = []
    with contextlib.suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _main(argv: Sequence[str]) -> int:
    try:
        try:
            _check_given(argv)
            code = _dispatch([with_home(_bytes_checked(word)) for word in argv])
        except SystemExit as e:  # argparse after --help and --version
            code = e.code if isinstance(e.code, int) else 0
        sys.stdout.flush()
        return code
    except PercodecError as e:
        return _fail(e, str(e), e.exit_code)
    except KeyboardInterrupt:
        print("percodec: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141  # nobody reads on: leave quietly
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        _drop_output()
        return _fail(e, f"{where}{e.strerror or e}", 1)
    except MemoryError as e:
        return _fail(e, "out of memory; use a smaller input or fewer slots", 1)
    except Exception as e:
        return _fail(e, f"internal: {type(e).__name__}: {e}; set PERCODEC_DEBUG=1 for the traceback", 70)


def _check_given(argv: Sequence[str]) -> None:
    """Raises `UsageError` for an empty file or folder, which would be the current one. An option may have an empty value."""
    for before, word in zip(("", *argv), argv, strict=False):
        if not word and not before.startswith("-"):
            raise UsageError("an argument is empty: is a variable of the shell not set?")


def _bytes_checked(word: str) -> str:
    """Raises `UsageError` where `word`, from a caller in this process, has no bytes: no file has such a name."""
    try:
        os.fsencode(word)
    except UnicodeEncodeError as error:
        raise UsageError(f"{shown(word)!r} is no text: it holds half of a surrogate pair") from error
    return word


def text_argument(word: str) -> str:
    """`type` of arguments that are written into files as UTF-8: topics, names. Bytes that are not are refused there."""
    if not has_utf8(word):
        raise argparse.ArgumentTypeError(f"{shown(word)!r} is not UTF-8")
    return word


def _drop_output() -> None:
    """Send what stdout could not take nowhere, where it still refuses it: the interpreter would complain about it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _fail(error: BaseException, text: str, code: int) -> int:
    if os.environ.get("PERCODEC_DEBUG") == "1":
        raise error
    with contextlib.suppress(OSError):  # the terminal was closed
        print(f"percodec: error: {printable(' '.join(text.split()))}", file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> int:
    found, missing = _commands()
    commands = {command.name: command for command in found}
    place = next((k for k, word in enumerate(argv) if not word.startswith("-")), len(argv))
    everything = _overview(commands)
    everything.parse_args(argv[:place])
    if place == len(argv):
        everything.print_help()
        return 0
    word, rest = argv[place], argv[place + 1 :]
    if word not in commands:
        import difflib

        near = difflib.get_close_matches(word, commands, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(commands)}"
        raise UsageError("; ".join([f"no command {word!r}", hint, *missing]))
    return commands[word].run(parser_of(commands[word]).parse_args(rest))


def _overview(commands: dict[str, Command]) -> argparse.ArgumentParser:
    width = max(map(len, commands), default=0)
    lines = "\n".join(f"  {command.name:<{width}}  {command.help}" for command in commands.values())
    parser = _Parser(
        prog="percodec",
        usage="percodec [-h] [--version] COMMAND ...",
        description=f"One learned encoder for perception and compression.\n\ncommands:\n{lines}",
        epilog="percodec COMMAND --help explains a command. First steps: percodec demo, percodec doctor.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"percodec {_version()}")
    return parser


def parser_of(command: Command) -> argparse.ArgumentParser:
    """The parser of one command's arguments; it raises `UsageError`. Raises `BackendError` where the command cannot be imported."""
    parser = _Parser(prog=f"percodec {command.name}", description=f"{command.help[0].upper()}{command.help[1:]}.")
    command.configure(parser)
    return parser


def _commands() -> tuple[list[Command], list[str]]:
    """What there is, and why a part's commands are missing, for parts that cannot be imported here."""
    order = {"runtime": 0, "sdk": 1, "export": 2}
    found: list[Command] = []
    missing = []
    for point in sorted(entry_points(group=_GROUP), key=lambda p: order.get(p.name, 3)):
        try:
            found += point.load()()
        except ImportError as error:
            missing.append(f"part {point.name!r} cannot be imported here ({error}); {_install('')}")
    return found, missing


def _version() -> str:
    try:
        return version("percodec")
    except PackageNotFoundError:
        return "(not installed)"


__all__ = ["Command", "main", "parser_of", "require", "text_argument"]


if __name__ == "__main__":
    raise SystemExit(main())
