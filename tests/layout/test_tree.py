"""The shape of the tree: what has to be there, what must never be there, and how long a file may get."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from support.tree import Module

PORTIONS = ("sdk", "export", "runtime")
TOP_FOLDERS = {".ci", "benchmarks", "cmake", "export", "runtime", "sdk", "tests"}
TOP_FILES = {".gitignore", "LICENSE", "Makefile", "constraints.txt", "constraints-ros.txt", "pyproject.toml"}
TOP_FILES |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
CODE = {".py", ".cpp", ".hpp", ".h", ".cmake", ".sh"}
TEXT = CODE | {".md", ".txt", ".toml", ".yaml", ".yml", ".json", ""}
MAX_LINES = 400

# Written in pieces, so that this file does not find itself.
UNFINISHED = re.compile("|".join(["NotImplemented" + "Error", "TO" + "DO", "FIX" + "ME", "XX" + "X", r"pragma:\s*no " + "cover"]))
MACHINE = re.compile(r"(?<![\w.<>/~])/(?:" + "|".join(["work", "tmp", "root", "home"]) + r")/")


def test_the_top_level_is_as_agreed(root: Path, files: list[Path]) -> None:
    parts = [path.relative_to(root).parts for path in files]
    assert {p[0] for p in parts if len(p) > 1} <= TOP_FOLDERS
    assert {p[0] for p in parts if len(p) == 1} == TOP_FILES


@pytest.mark.parametrize("portion", PORTIONS)
def test_percodec_stays_a_namespace(root: Path, portion: str) -> None:
    """One `percodec/__init__.py` hides the other portions from editors and from a plain PYTHONPATH, while the tests stay green."""
    assert (root / portion / "percodec" / portion / "__init__.py").is_file() or any((root / portion / "percodec" / portion).glob("*.py"))
    assert not (root / portion / "percodec" / "__init__.py").exists()
    assert not (root / portion / "__init__.py").exists()


@pytest.mark.parametrize("portion", PORTIONS)
def test_each_portion_is_typed(root: Path, portion: str) -> None:
    assert (root / portion / "percodec" / portion / "py.typed").is_file()


def test_files_stay_readable(root: Path, files: list[Path]) -> None:
    long = {}
    for path in files:
        if path.suffix in CODE:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MAX_LINES:
                long[str(path.relative_to(root))] = lines
    assert not long, f"over {MAX_LINES} lines; one idea per file"


def _matches(pattern: re.Pattern[str], root: Path, files: list[Path], suffixes: set[str]) -> list[str]:
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in files
        if path.suffix in suffixes
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_nothing_is_left_unfinished(root: Path, files: list[Path]) -> None:
    assert not _matches(UNFINISHED, root, files, CODE | {".md"})


def test_no_path_of_one_machine(root: Path, files: list[Path]) -> None:
    assert not _matches(MACHINE, root, files, TEXT)


def test_the_patterns_find_what_they_look_for() -> None:
    assert UNFINISHED.search("raise NotImplemented" + "Error")
    assert MACHINE.search('open("/' + 'tmp/x")')
    assert not MACHINE.search("see ~/work/x and out/" + "tmp/y")


def test_every_module_says_what_it_is(modules: list[Module]) -> None:
    silent = [module.name for module in modules if module.path.read_text(encoding="utf-8").strip() and not _docstring(module)]
    assert not silent


def _docstring(module: Module) -> str | None:
    return ast.get_docstring(ast.parse(module.path.read_text(encoding="utf-8")))
