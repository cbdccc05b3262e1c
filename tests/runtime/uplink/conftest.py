"""A bundle, packets, a broker on loopback, and the commands as processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.command import percodec_command, quiet_environment

from percodec.sdk import Bundle, PacketCodec, SegmentedLogWriter, SegmentLimits

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Bundle:
    return Bundle.open(tiny_folder)


@pytest.fixture(scope="session")
def packets(tiny: Bundle) -> list[bytes]:
    """400 packets of stream 3, in order."""
    coder = PacketCodec(tiny.entropy_model, *tiny.latent_shape[1:], stream_id=3)
    rng = np.random.default_rng(7)
    return [coder.encode(rng.integers(0, tiny.levels, tiny.latent_shape, dtype=np.uint8), k, 1000 * k) for k in range(400)]


@pytest.fixture
def write(tiny: Bundle, packets: list[bytes]) -> Callable[..., SegmentedLogWriter]:
    """write(folder, first, end, close=, size=): a log of some of the packets, in segments."""

    def log(folder: Path, first: int = 0, end: int = 400, close: bool = True, size: int = 4096) -> SegmentedLogWriter:
        writer = SegmentedLogWriter(folder, tiny, SegmentLimits(size), stream_id=3, live=True)
        for k in range(first, end):
            writer.append(packets[k], k, 1000 * k)
        if close:
            writer.close()
        return writer

    return log


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start("uplink", ...): the command as a process, ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            percodec_command(*words), cwd=tmp_path, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=quiet_environment(),
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()
