"""Who may import whom, second way: the vehicle's modules import, and a drive runs from frame to report, with the rest of the world blocked.

A module set to None in `sys.modules` raises ImportError when anything, at any depth, imports it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.tree import Module

FOREIGN = ["torch", "torchvision", "onnx", "onnxscript", "polygraphy", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "rclpy"]
FOREIGN += ["PIL", "matplotlib", "rich", "mcap", "rosbags", "av", "nats", "paho", "cryptography", "pyarrow", "fsspec"]
FOREIGN += ["grpc", "google", "aiohttp", "prometheus_client"]
ABOVE_SDK = [*FOREIGN, "cv2", "onnxruntime", "percodec.runtime", "percodec.export"]
ABOVE_RUNTIME = [*FOREIGN, "percodec.export"]

ROAD = Path(__file__).resolve().parents[2] / "benchmarks" / "bundles" / "road-edge"

BLOCK = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
"""
IMPORT = "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
COMMAND = "from percodec.sdk.cli import main\nsys.exit(main(sys.argv[1:]))\n"


def _run(code: str, blocked: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + code, ",".join(blocked), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_blocking_blocks() -> None:
    done = _run(IMPORT, ["json"], "json")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(("portion", "blocked"), [("sdk", ABOVE_SDK), ("runtime", ABOVE_RUNTIME)])
def test_modules_import_with_the_rest_blocked(modules: list[Module], portion: str, blocked: list[str]) -> None:
    names = [module.name for module in modules if module.name.startswith(f"percodec.{portion}")]
    done = _run(IMPORT, blocked, *names)
    assert done.returncode == 0, done.stderr


def test_the_demo_runs_with_the_rest_blocked(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = _run(COMMAND, ABOVE_RUNTIME, "demo", "--frames", "12", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_engines_are_built_with_torch_blocked(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the build extra")
    bundle = tmp_path / "road-edge"
    shutil.copytree(ROAD, bundle)
    words = ["build", str(bundle), "--target", "host", "--precision", "fp16"]
    done = _run(COMMAND, ["torch", "torchvision", "onnxscript", "cv2"], *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (bundle / "engines" / "host-fp16" / "encoder.onnx").is_file()


def test_a_bundle_is_added_to_with_torch_blocked(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the build extra")
    words = ["export", str(ROAD), "--head", f"again={ROAD}/head_segmentation.onnx:segmentation", "--out", str(tmp_path / "more")]
    done = _run(COMMAND, ["torch", "torchvision", "onnxscript", "PIL"], *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "more" / "head_again.onnx").is_file()
    assert (tmp_path / "more" / "engines" / "host-int8" / "encoder.json").is_file()


def test_an_older_bundle_is_freed_with_torch_blocked(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the build extra")
    done = _run(
        COMMAND, ["torch", "torchvision", "onnxscript", "PIL", "cv2"], "export", str(ROAD), "--any-size", "--out", str(tmp_path / "any")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "any" / "engines" / "host-int8" / "encoder.json").is_file()


def test_importing_does_no_work(modules: list[Module]) -> None:
    """The heavy libraries stay out until a command needs them: importing every sdk and runtime module loads no inference library."""
    names = [module.name for module in modules if module.name.startswith(("percodec.sdk", "percodec.runtime"))]
    code = IMPORT + "assert not {'onnxruntime', 'torch', 'onnx'} & set(sys.modules), sorted(set(sys.modules))\n"
    done = _run(code, ["percodec.export"], *names)
    assert done.returncode == 0, done.stderr
