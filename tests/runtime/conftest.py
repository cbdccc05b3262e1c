"""Shared by the runtime's tests: the tiny bundle, a tiny video, and the real command line in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from percodec.runtime.capture.opencv import opencv

# importlib mode leaves sys.path alone; the fakes and the tiny bundle are shared modules
sys.path[:0] = [path for path in (str(Path(__file__).parent), str(Path(__file__).parent.parent)) if path not in sys.path]

opencv()  # quiet, before a test module imports cv2 by itself

Percodec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle on disk."""
    from tiny_bundle import make_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    make_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def rich_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a head of every task and tables of predicted packets, made as a user would."""
    from tiny_bundle import array_graph, classification_graph

    from percodec.sdk.cli import main

    folder = tmp_path_factory.mktemp("rich")
    (folder / "depth.onnx").write_bytes(array_graph())
    (folder / "light.onnx").write_bytes(classification_graph())
    words = ["--head", f"light={folder}/light.onnx:classification", "--head", f"depth={folder}/depth.onnx:array"]
    words += ["--stream", "--stream-from", "synthetic://road?frames=24&seed=3"]
    assert main(["export", str(bundle_folder), "--out", str(folder / "rich"), *words]) == 0
    return folder / "rich"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 40-frame 128x96 AVI at 20 fps."""
    return write_video(tmp_path_factory.mktemp("video") / "drive.avi", 40)


def write_video(path: Path, count: int) -> Path:
    import cv2
    from tiny_bundle import frames

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (128, 96))
    assert writer.isOpened()
    for image in frames(count, 96, 128):
        writer.write(image[..., ::-1].copy())
    writer.release()
    return path


@pytest.fixture(scope="session")
def percodec() -> Percodec:
    """Run `percodec ARGS` in a subprocess: percodec("run", path, cwd=..., limit_bytes=...)."""

    def run(*args: object, cwd: Path, limit_bytes: int | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            import resource

            assert limit_bytes is not None
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        return subprocess.run(
            percodec_command(*args), cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout, env=quiet_environment(),
            preexec_fn=limit if limit_bytes is not None else None,
        )  # fmt: skip

    return run


def percodec_command(*args: object) -> list[str]:
    return [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())", *map(str, args)]


def quiet_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PERCODEC_DEBUG"} | {"PYTHONDONTWRITEBYTECODE": "1"}
