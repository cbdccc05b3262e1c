"""The ground floor's tests need numpy, PyYAML, pytest and hypothesis: the rest is blocked here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = ["torch", "onnx", "onnxruntime", "onnxscript", "cv2", "PIL", "mcap", "constriction", "rich", "matplotlib"]
ABSENT += ["tensorrt", "tensorrt_rtx", "pycuda", "cuda", "polygraphy", "ray", "percodec.runtime", "percodec.export"]
PYTEST = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def _pytest(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PYTEST, ",".join(ABSENT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, stdin=subprocess.DEVNULL)


def test_all_are_collected(root: Path) -> None:
    done = _pytest(root, "--collect-only", "tests/sdk")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("part", ["tests/sdk/bundle", pytest.param("tests/sdk", marks=pytest.mark.long)])
def test_they_run(root: Path, part: str) -> None:
    done = _pytest(root, part)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
