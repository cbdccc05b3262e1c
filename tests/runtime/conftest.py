"""Shared by the runtime's tests: the tiny bundle, a tiny video, and the real command line in a subprocess."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Percodec
from support.command import percodec as command
from support.once import Once

from percodec.runtime.capture.opencv import opencv

opencv()  # quiet, before a test module imports cv2 by itself


@pytest.fixture(scope="session")
def bundle_folder(tiny_folder: Path) -> Path:
    """The tiny bundle on disk."""
    return tiny_folder


@pytest.fixture(scope="session")
def rich_bundle(bundle_folder: Path, once: Once) -> Path:
    """The tiny bundle with a head of every task and tables of predicted packets, made as a user would."""
    from support.tiny_bundle import array_graph, classification_graph

    from percodec.sdk.cli import main

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "depth.onnx").write_bytes(array_graph())
        (folder / "light.onnx").write_bytes(classification_graph())
        words = ["--head", f"light={folder}/light.onnx:classification", "--head", f"depth={folder}/depth.onnx:array"]
        words += ["--stream", "--stream-from", "synthetic://road?frames=24&seed=3"]
        assert main(["export", str(bundle_folder), "--out", str(folder / "rich"), *words]) == 0

    return once("rich", make) / "rich"


@pytest.fixture(scope="session")
def video(once: Once) -> Path:
    """A 40-frame 128x96 AVI at 20 fps."""
    from support.video import write_video

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        write_video(folder / "drive.avi", 40)

    return once("video", make) / "drive.avi"


@pytest.fixture(scope="session")
def percodec() -> Percodec:
    """Run `percodec ARGS` in a subprocess: percodec("run", path, cwd=..., limit_bytes=...)."""
    return command


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal() -> Iterator[None]:
    """Processes inherit an ignored SIGHUP or SIGINT (nohup, `&`), and percodec respects that: here they begin with the defaults."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
