"""The process of the engines may be anybody's: what it can reach, use up, and say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.command import Percodec
from support.drive import Drive
from support.onnx_bytes import model, node, tensor_info
from support.tiny_bundle import CHANNELS, HEIGHT, WIDTH, frames, head_graph, make_bundle

from percodec.runtime.engines.limits import memory_bounded
from percodec.runtime.engines.onnxruntime import open_session
from percodec.runtime.session import DEFAULT_BUNDLE, Demand, Session, open_bundle
from percodec.sdk import PacketCodec
from percodec.sdk.bundle import Bundle, SelfTest
from percodec.sdk.errors import BackendError

ROAD = "synthetic://road?frames=3"


def worker(hostile: str) -> tuple[str, ...]:
    """A command that starts a worker with `hostile` run before."""
    return sys.executable, "-c", f"import percodec.runtime.supervise.worker as w\n{hostile}\nraise SystemExit(w.main())"


def memory_graph() -> bytes:
    """1 GB out of 64 KB: one array beside itself, again and again, of operators that every bundle may use."""
    nodes = [node("Concat", ["seed"] * 64, ["wide"], axis=0), node("Concat", ["wide"] * 256, ["huge"], axis=0)]
    return _with_work(nodes, "huge", {"seed": np.zeros((1 << 14, 1), np.float32)})


def endless_graph() -> bytes:
    """Hours of work on 4 MB."""
    nodes, last = [], "seed"
    for k in range(20_000):
        nodes.append(node("MatMul", [last, "seed"], [f"p{k}"]))
        last = f"p{k}"
    return _with_work(nodes, last, {"seed": np.full((1024, 1024), 1e-3, np.float32)})


def _with_work(nodes: list[bytes], result: str, constants: dict[str, NDArray[Any]]) -> bytes:
    """A head whose labels need `result`."""
    work = [
        *nodes,
        node("ReduceMean", [result, "axes"], ["mean"], keepdims=0),
        node("Cast", ["symbols"], ["float"], to=1),
        node("ReduceMean", ["float", "channel"], ["flat"], keepdims=0),
        node("Add", ["flat", "mean"], ["sum"]),
        node("Unsqueeze", ["sum", "channel"], ["plane"]),
        node("Resize", ["plane", "", "zoom"], ["large"], mode="nearest"),
        node("Squeeze", ["large", "channel"], ["whole"]),
        node("Cast", ["whole"], ["labels"], to=2),
    ]
    rest = {"axes": np.array([0, 1]), "channel": np.array([1]), "zoom": np.array([1, 1, 8, 8], np.float32)}
    takes = [tensor_info("symbols", "uint8", (1, CHANNELS, HEIGHT // 8, WIDTH // 8))]
    return model("work", work, takes, [tensor_info("labels", "uint8", (1, HEIGHT, WIDTH))], {**constants, **rest})


def bundle_with(folder: Path, head: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("support.tiny_bundle.head_graph", lambda *size: head)
    symbols = np.zeros((1, CHANNELS, HEIGHT // 8, WIDTH // 8), np.uint8)
    return make_bundle(folder, selftest=SelfTest(frames(1), symbols, np.zeros((1, HEIGHT, WIDTH), np.uint8), 0.001, 0.999)).path


def test_a_network_that_asks_for_all_memory_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle_with(tmp_path / "greedy", memory_graph(), monkeypatch)
    with pytest.raises(BackendError, match=r"head_segmentation.*llocat"):
        Drive(folder, config={"selftest": False, "limits": {"memory": 256 << 20}})
    monkeypatch.setattr("percodec.runtime.engines.limits.MEMORY", 256 << 20)
    with pytest.raises(BackendError, match=r"head_segmentation.*llocat"):  # in this process, too
        Session.open(folder, selftest=False)
    assert open_session(head_graph())  # and only while that one was loaded


def test_a_network_that_takes_hours_to_load_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle_with(tmp_path / "slow", endless_graph(), monkeypatch)
    with pytest.raises(BackendError, match="processor time"):
        Drive(folder, config={"selftest": False, "limits": {"cpu_s": 2}})


def test_memory_is_bounded_while_a_graph_is_loaded_and_not_after() -> None:
    with memory_bounded(256 << 20), memory_bounded(1 << 10):
        np.ones(1 << 20)
        with pytest.raises(MemoryError):
            np.ones(512 << 20, np.uint8)
    np.ones(512 << 20, np.uint8)


def test_the_worker_holds_its_own_descriptors_and_limits_alone(bundle_folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the log")
    handle = os.open(secret, os.O_RDONLY)
    os.set_inheritable(handle, True)
    run = Drive(bundle_folder)
    try:
        place = Path(f"/proc/{run.supervisor.worker_pid}")
        held = {os.readlink(entry) for entry in (place / "fd").iterdir()}
        assert str(secret) not in held
        assert not [name for name in held if name.startswith(str(tmp_path))]
        assert len([name for name in held if name.startswith("socket:")]) == len(run.pipeline.ring.slots), "its answers, and no other"
        assert os.readlink(place / "fd" / "1") == os.devnull
        limits = {line[:26].strip(): line[26:].split() for line in (place / "limits").read_text().splitlines()[1:]}
        assert limits["Max core file size"][:2] == ["0", "0"]
        assert limits["Max open files"][1] == "256"
        assert int(limits["Max file size"][1]) == 16 << 20
        assert 4 << 30 <= int(limits["Max data size"][1]) < 8 << 30
        assert limits["Max cpu time"][0] == limits["Max cpu time"][1], "free again, once it is loaded"
    finally:
        os.close(handle)
        run.supervisor.close()


SCRIBBLER = """
import random, threading
serve = w._Worker.serve
def serving(self):
    def scribble():
        while True:
            for arrays in self._shared:
                for array in arrays[1:]:
                    array.reshape(-1)[:] = random.randrange(6)
    threading.Thread(target=scribble, daemon=True).start()
    serve(self)
w._Worker.serve = serving
"""


def test_symbols_that_the_worker_goes_on_changing_are_coded_as_they_were_checked(bundle_folder: Path) -> None:
    """Every packet decodes to valid symbols, and what a slot holds does not change under its holder."""
    run = Drive(bundle_folder, count=200, period_s=0, command=worker(SCRIBBLER), config={"selftest": False})
    coder, changed = run.pipeline._coder, []

    class Watching:
        def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int) -> bytes:
            before = symbols.copy()
            packet = coder.encode(symbols, frame_id, timestamp_ns)
            time.sleep(0.001)
            if not np.array_equal(before, symbols) or not np.array_equal(decoder.decode(packet)[1], before):
                changed.append(frame_id)
            return packet

    bundle = Bundle.open(bundle_folder)
    decoder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    run.pipeline._coder = Watching()
    run.pipeline.start()
    run.until(lambda: run.pipeline.wait(0.01), 60)
    counts = run.end()
    assert (counts.captured, changed) == (200, [])
    assert counts.coded > 0


@pytest.mark.parametrize(
    "says",
    [
        "'no json'",
        "'x' * 10**6",
        """'{"frame_ms": 1e300, "backend": "ort"}'""",
        """'{"frame_ms": 1' + "0" * 400 + ', "backend": "ort"}'""",
        "'[' * 10**4",
    ],
)
def test_a_worker_that_talks_nonsense_is_ended(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    monkeypatch.setattr("percodec.runtime.supervise.supervisor.GIVE_UP", 1)
    hostile = f"say = w._Worker._say\nw._Worker._say = lambda self, pipe, text: say(self, pipe, {says})\n"
    with pytest.raises(BackendError, match="what is no answer"):
        Drive(bundle_folder, command=worker(hostile), config={"selftest": False})


@pytest.mark.parametrize(
    "says",
    [
        "reply[:3]",
        "reply + b'x'",
        "w.REPLY.pack(99, 1)",
        "w.REPLY.pack(reply[0], 2**64 - 1)",
        "bytes(10**5)",
        "b''",
    ],
)
def test_what_is_no_answer_about_a_frame_ends_the_worker(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str
) -> None:
    """And whoever waits for that frame goes on, though a process of the worker's keeps its sockets open."""
    monkeypatch.setattr("percodec.runtime.supervise.supervisor.GIVE_UP", 1)
    hostile = f"""
import os, time
write, child = os.write, os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
open({str(tmp_path / "child")!r}, "w").write(str(child))
os.write = lambda number, reply: write(number, {says})
"""
    run = Drive(bundle_folder, command=worker(hostile), config={"selftest": False})
    run.pipeline.start()
    run.until(lambda: run.pipeline.wait(0.01), 30)
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # which lives, and holds them
    with pytest.raises(BackendError, match="no answer"):
        run.pipeline.finish()
    run.supervisor.close()


def options_of(percodec: Percodec, folder: Path, bundle: Path | None, *words: str) -> dict[str, Any]:
    which = () if bundle is None else ("--bundle", str(bundle))
    done = percodec("run", ROAD, "--out", str(folder), *which, "--no-overlay", "--no-sheet", *words, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report["options"]


def test_a_bundle_that_nobody_vouches_for_runs_in_a_process_of_its_own(bundle_folder: Path, percodec: Percodec, tmp_path: Path) -> None:
    assert options_of(percodec, tmp_path / "a", bundle_folder).get("isolated") is True
    assert "isolated" not in options_of(percodec, tmp_path / "b", bundle_folder, "--no-isolate")


def test_what_a_bundle_must_be_to_be_vouched_for(bundle_folder: Path, tmp_path: Path) -> None:
    crypto: Callable[..., Any] = pytest.importorskip("percodec.runtime.trust.keys").generate
    pytest.importorskip("cryptography", reason="needs the sign extra")
    from percodec.runtime.trust.keys import PrivateKey
    from percodec.runtime.trust.signature import sign

    if DEFAULT_BUNDLE.is_dir():
        assert open_bundle(DEFAULT_BUNDLE).vouched
    folder = shutil.copytree(bundle_folder, tmp_path / "signed")
    private, public, _ = crypto(tmp_path, "fleet")
    (tmp_path / "trust.yaml").write_text(f"unsigned: warn\nkeys: [{{file: {public.name}}}]\n")
    demand = Demand(tmp_path / "trust.yaml")
    assert not open_bundle(folder, demand).vouched
    sign(folder, PrivateKey.read(private), sequence=1)
    assert open_bundle(folder, demand).vouched
    assert not open_bundle(folder, Demand()).vouched, "no policy of this machine trusts that key"
