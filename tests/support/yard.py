"""A folder with one of everything a user may point percodec at, good and bad, and a judge of what a command made of it."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import resource
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import cv2
import numpy as np

from percodec.sdk import cli

MEMORY_KB = 500_000
GOOD = {0, 1, 2, 3, 130}  # 3: a budget that was broken; 130: the judge's patience ended


def fill(yard: Path, bundle: Path) -> None:
    """Everything a walk needs that is the same each time."""
    from support.bags import write_bag
    from support.tiny_bundle import array_graph
    from support.video import write_video

    noise = np.random.default_rng(1)
    shutil.copytree(bundle, yard / "bundle")
    for folder in ("pictures", "camvid/train", "camvid/val", "camvid/train_labels", "camvid/val_labels", "empty"):
        (yard / folder).mkdir(parents=True)
        for k in range(3):
            labels = folder.endswith("_labels")
            picture = noise.integers(0, 11, (184, 240), np.uint8) if labels else noise.integers(0, 256, (184, 240, 3), np.uint8)
            if folder != "empty":
                cv2.imwrite(str(yard / folder / f"{k}.png"), picture)
    shutil.copyfile(yard / "pictures" / "0.png", yard / "picture.png")
    write_video(yard / "clip.avi", 3)
    write_bag(yard / "bag", "sqlite3", frames=2)
    write_bag(yard / "one.bag", "ros1", frames=2)
    shutil.copyfile(next(write_bag(yard / "rosbag", frames=2).glob("*.mcap")), yard / "bag.mcap")
    (yard / "head.onnx").write_bytes(array_graph())
    say("encode", "clip.avi", "-o", "log.mcap", "--bundle", "bundle", at=yard)
    say("encode", "picture.png", "-o", "packet.pcpk", "--bundle", "bundle", at=yard)
    say("run", "clip.avi", "--out", "done", "--bundle", "bundle", "--no-selftest", "--no-overlay", "--no-sheet", at=yard)
    log = bytearray((yard / "log.mcap").read_bytes())
    (yard / "cut.mcap").write_bytes(log[: len(log) * 2 // 3])
    log[len(log) // 2] ^= 1
    (yard / "bad.mcap").write_bytes(log)
    for name, data in (("text.txt", b"hello\n"), ("none.png", b""), ("none.mcap", b""), ("bad.yaml", b"a: [1,\n"), ("bad.pt", b"PK\3\4")):
        (yard / name).write_bytes(data)
    (yard / "config.yaml").write_text(
        "task: codec\ncodec: {name: edge, channels: 8}\nschedule: {steps: 5, lr: 1.0e-3}\n"
        "crops: {size: 64, scale: [0.5, 1.0]}\ndata: {train: [['folder:{x}', 1.0]], val: 'folder:{x}'}\n"
    )
    (yard / "list.yaml").write_text("- 1\n- 2\n")
    (yard / "budget.yaml").write_text("latency_ms: {p99: 1}\n")


def special(yard: Path) -> None:
    """What cannot be copied: links, pipes, devices (where that is allowed), a name that is not UTF-8."""
    os.symlink("nowhere", yard / "dangling")
    os.symlink("loop", yard / "loop")
    os.mkfifo(yard / "pipe")
    os.mkfifo(yard / "pipe.yaml")
    os.mkfifo(yard / "pipe.png")
    shutil.copyfile(yard / "picture.png", os.fsencode(yard) + b"/\xe4.png")
    for name, minor in (("zero", 5), ("full", 7), ("void", 3)):
        with contextlib.suppress(PermissionError):
            os.mknod(yard / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))


def say(*words: str, at: Path) -> None:
    """A command that must succeed."""
    with _at(at):
        assert cli.main(words) == 0, words


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Walk:
    """Runs commands in a fresh copy of the yard, `change`d, each for at most `patience_s`.

    `__call__` returns what was wrong, or "". `impatient`: not to have ended by then is. `last`: exit code and error output.
    """

    def __init__(self, pristine: Path, place: Path, patience_s: float = 4.0) -> None:
        self._pristine, self._place, self._patience_s = pristine, place, patience_s
        self.count = 0
        self.last = (0, "")

    def __call__(self, words: list[str], impatient: bool = False, change: Callable[[Path], None] | None = None) -> str:
        self.count += 1
        yard = self._place / f"y{self.count}"
        shutil.copytree(self._pristine, yard)
        special(yard)
        if change is not None:
            change(yard)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            with _at(yard), _patience(self._patience_s) as patience:
                out, err, code = _run(words)
            self.last = (code, err)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            return _wrong(out, err, code, grown, patience["ended"] and impatient)
        finally:
            shutil.rmtree(yard, ignore_errors=True)


def _run(words: list[str]) -> tuple[str, str, int]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = cli.main(words)
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return out, err, code


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[dict[str, bool]]:
    said = {"ended": False}

    def end(number: int, frame: FrameType | None) -> None:
        said["ended"] = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, end)
    faulthandler.dump_traceback_later(20 * seconds + 40, exit=True)  # for what no signal reaches
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield said
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _wrong(out: str, err: str, code: int, grown_kb: int, hung: bool) -> str:
    if code not in GOOD:
        return f"exit {code}: {err[-600:]}"
    if "Traceback" in out + err and code != 130:
        return f"a traceback: {err[-1500:]}"
    if (code in (1, 2) and not (out.strip() or err.strip())) or (code == 2 and not err.strip().splitlines()[-1:]):
        return f"exit {code} without a word"
    if code in (1, 2, 3) and err.strip() and not err.strip().splitlines()[-1].startswith("percodec: error: "):
        return f"exit {code}, last words: {err[-300:]}"
    if hung:
        return "it did not end"
    return f"{grown_kb} kB" if grown_kb > MEMORY_KB else ""


__all__ = ["Walk", "fill", "say", "special"]
