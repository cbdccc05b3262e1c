"""The Polygraphy commands of export/README.md, on a graph of ours."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the export extra")
pytest.importorskip("polygraphy", reason="needs the polygraphy extra")

from percodec.export.engines.build import bound_graph
from percodec.export.engines.precision import Plan, make_explicit
from percodec.sdk.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
ROAD = ROOT / "benchmarks" / "bundles" / "road-edge"
COMMANDS = re.findall(r"^polygraphy .*$", (ROOT / "export" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_there_are_commands():
    assert {line.split()[1] for line in COMMANDS} == {"check", "surgeon", "debug"}


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.split()[1])
def test_the_command_runs(line, tmp_path):
    (tmp_path / "DIR").mkdir()
    made = make_explicit(bound_graph(Bundle.open(ROAD), "encoder"), Plan("fp16")).data  # as `percodec build` leaves it
    (tmp_path / "DIR" / "encoder-orin-jp6-int8.onnx").write_bytes(made)
    script = tmp_path / "fails.sh"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    program = Path(sys.executable).parent / "polygraphy"
    done = subprocess.run([program, *shlex.split(line)[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ("smaller.onnx", "reduced.onnx"):
        assert (name not in line) or (tmp_path / name).stat().st_size > 0
