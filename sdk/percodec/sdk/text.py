"""Text from outside, and what others get of it: native libraries names as bytes, terminals and pictures only what they can show.

A file name is bytes. Python carries those that are not text as lone surrogates, which have no UTF-8 form: a native library that asks for
one gets a null pointer.
"""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")  # all but tab and newline; of direction, too
_HOME = re.compile(r"(-\w|(?:[\w-]+=)*)(~)(?=/|$)")


def native_name(path: Path | str) -> bytes:
    """The name of a file for a native library: its own bytes, and absolute, so that a colon makes no URL of it."""
    return os.fsencode(os.path.abspath(path))


def shown(text: str) -> str:
    """`text` with what has no UTF-8 form escaped, for files and libraries that take Unicode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """`text` with what steers a terminal escaped: names and values from outside must not move its cursor, or rename its window."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def has_utf8(text: str) -> bool:
    """False where `text` holds half of a surrogate pair."""
    return shown(text) == text


def with_home(word: str) -> str:
    """A word of the command line with its `~` expanded where shells leave it: `--out=~/x`. A folder named `~` is `./~`."""
    found = _HOME.match(word)
    return word if found is None else found[1] + os.path.expanduser(word[found.start(2) :])


def open_streams() -> None:
    """Standard input, output and error that this process was begun without lead nowhere from now on.

    Without this the next file that is opened would have their number, and what libraries print would be in it.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere, number)
        setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))


def escape_output() -> None:
    """From now on standard output and error escape what they cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


__all__ = ["escape_output", "has_utf8", "native_name", "open_streams", "printable", "shown", "with_home"]
