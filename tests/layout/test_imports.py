"""Who may import whom, first way: the contracts of `[tool.importlinter]`; and no module of percodec imports pickle, at any depth.

numpy, OpenCV and ONNX Runtime import pickle for their own use, so its absence from `sys.modules` cannot be the test. What counts is that
no percodec module can unpickle a byte it was given.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

import pytest
from support.tree import Module

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


LINT = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from importlinter.cli import lint_imports_command as lint; lint()"


def _lint(root: Path, portions: Path) -> subprocess.CompletedProcess[str]:
    """Lint the sources under `portions`. `-S` leaves out the import hook of an editable install, which would answer with its own tree."""
    path = ":".join([*(str(portions / portion) for portion in ("sdk", "export", "runtime")), *{get_path("purelib"), get_path("platlib")}])
    command = [sys.executable, "-S", "-c", LINT, path, "--no-cache", "--config", str(root / "pyproject.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=portions)


def test_contracts_are_kept(root: Path) -> None:
    done = _lint(root, root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("sdk/percodec/sdk/types.py", "import percodec.runtime.engines.engine"),
        ("sdk/percodec/sdk/types.py", "import cv2"),
        ("runtime/percodec/runtime/engines/engine.py", "import torch"),
        ("runtime/percodec/runtime/engines/engine.py", "import percodec.export.commands"),
        ("runtime/percodec/runtime/engines/engine.py", "import pickle"),
        ("export/percodec/export/engines/build.py", "import torch"),
    ],
)
def test_contracts_catch_a_breach(root: Path, tmp_path: Path, file: str, line: str) -> None:
    for portion in ("sdk", "export", "runtime"):
        shutil.copytree(root / portion / "percodec", tmp_path / portion / "percodec", ignore=shutil.ignore_patterns("__pycache__", "road"))
    guilty = tmp_path / file
    guilty.write_text(guilty.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = _lint(root, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"is not allowed to import {line.split()[1].rsplit('.', 1)[0]}" in done.stdout, done.stdout


def _imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_nothing_can_unpickle(modules: list[Module]) -> None:
    guilty = []
    for module in modules:
        tree = ast.parse(module.path.read_text(encoding="utf-8"))
        guilty += [f"{module.name} imports {name}" for name in sorted(_imported(tree) & UNPICKLERS)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                guilty += [f"{module.name}:{node.lineno}: {key}=..." for key in _unsafe_arguments(node)]
    assert not guilty


def _unsafe_arguments(call: ast.Call) -> list[str]:
    """`np.load(..., allow_pickle=True)` and `torch.load(..., weights_only=False)` unpickle without an import of pickle."""
    safe = {"allow_pickle": False, "weights_only": True}
    given = {word.arg: word.value for word in call.keywords if word.arg in safe}
    return [name for name, value in given.items() if not (isinstance(value, ast.Constant) and value.value is safe[name])]
