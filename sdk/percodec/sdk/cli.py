"""`percodec`: one command line, to which each part adds its own commands.

Parts register `commands() -> list[Command]` under the entry-point group "percodec.commands"; this module imports none of them by
name. A part whose extra is not installed costs its own commands only. Whatever goes wrong ends in one line on stderr and a non-zero
exit; PERCODEC_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import NoReturn

from percodec.sdk.errors import BackendError, PercodecError, UsageError

_GROUP = "percodec.commands"
# What a part would offer if it could be imported: its command names and the extra that brings what it lacks, "" for none.
_PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "sdk": (("inspect",), ""),
    "runtime": (("run", "demo", "encode", "decode", "replay", "profile", "doctor"), "ort"),
    "export": (("train", "evaluate", "export"), "export"),
}


@dataclass(frozen=True)
class Command:
    """One subcommand: `configure` adds its arguments, `run` returns the exit code or raises a `PercodecError`."""

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1, 2 for wrong usage, 70 for a defect of ours, 130 when interrupted."""
    try:
        try:
            code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        except SystemExit as e:  # argparse after --help and --version
            code = e.code if isinstance(e.code, int) else 0
        if sys.stdout is not None:  # None: started with it closed
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


def _drop_output() -> None:
    """Send what stdout could not take nowhere, where it still refuses it: the interpreter would complain about it at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _fail(error: BaseException, text: str, code: int) -> int:
    if os.environ.get("PERCODEC_DEBUG") == "1":
        raise error
    print(f"percodec: error: {' '.join(text.split())}", file=sys.stderr)
    return code


def _dispatch(argv: list[str]) -> int:
    commands = _commands()
    parser = _Parser(
        prog="percodec",
        description="One learned encoder for perception and compression.",
        epilog="percodec COMMAND --help explains a command. First steps: percodec demo, percodec doctor.",
    )
    parser.add_argument("--version", action="version", version=f"percodec {_version()}")
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)
    for command in commands:
        command.configure(sub.add_parser(command.name, help=command.help, description=command.help[0].upper() + command.help[1:] + "."))
    word = next((a for a in argv if not a.startswith("-")), None)
    known = {c.name: c for c in commands}
    if word is not None and word not in known:
        near = difflib.get_close_matches(word, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UsageError(f"no command {word!r}; {hint}")
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "absent", False):
        (sub.choices[args.command] if args.command else parser).error(f"unrecognized arguments: {' '.join(rest)}")
    if args.command is None:
        parser.print_help()
        return 0
    return known[args.command].run(args)


def _commands() -> list[Command]:
    out: list[Command] = []
    order = {"runtime": 0, "sdk": 1, "export": 2}
    for point in sorted(entry_points(group=_GROUP), key=lambda p: order.get(p.name, 3)):
        try:
            out += point.load()()
        except ImportError as e:
            names, extra = _PARTS.get(point.name, ((), point.name))
            out += [_absent(name, extra, e) for name in names]
    return out


def _absent(name: str, extra: str, reason: ImportError) -> Command:
    """Stands in for a command whose part cannot be imported here."""
    install = f"pip install 'percodec[{extra}]'" if extra else "pip install --force-reinstall percodec"

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(absent=True)  # its arguments are not known here, so none of them is wrong

    def run(args: argparse.Namespace) -> int:
        raise BackendError(f"percodec {name} cannot run here ({reason}); install with: {install}")

    return Command(name, f"needs: {install}", configure, run)


def _version() -> str:
    try:
        return version("percodec")
    except PackageNotFoundError:
        return "(not installed)"


__all__ = ["Command", "main"]


if __name__ == "__main__":
    raise SystemExit(main())
