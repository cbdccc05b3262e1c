"""Two processes with half a batch each do what one does with the whole: gradients, batch-norm statistics, a run's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402

SCRIPT = Path(__file__).parents[1] / "support" / "gradients.py"
COMMON = [
    "codec.channels=4",
    "crops.size=64",
    "crops.batch=4",
    "loss.bpp=0.02",
    "head.widths=[8, 8, 8]",
    "head.pyramid=8",
    "head.dropout=0.0",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", "0", "--standalone"]


def launch(processes: int, words: list[str]) -> None:
    start = TORCHRUN if processes == 2 else []
    done = subprocess.run([sys.executable, *start, *words], capture_output=True, text=True, env=ENVIRONMENT, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_gradients_of_two_processes_are_those_of_one(camvid, tmp_path):
    for processes in (1, 2):
        launch(processes, [str(SCRIPT), str(camvid), "edge,road-edge", str(tmp_path / f"{processes}.pt"), *COMMON])
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    assert one.keys() == two.keys() == {"edge", "road-edge"}
    for name in one:
        for kind in ("gradients", "buffers"):
            ours, theirs = one[name][kind], two[name][kind]
            assert ours.keys() == theirs.keys()
            for key, a in ours.items():
                scale = max(float(a.abs().max()), 1e-3 * max(float(g.abs().max()) for g in ours.values()))
                assert float((a - theirs[key]).abs().max()) <= 2e-3 * scale, (name, key)


def test_torchrun_trains_and_its_checkpoint_goes_on_alone(camvid, tmp_path):
    sets = [*COMMON, "schedule.warmup=1", "schedule.checkpoint_every=2", "schedule.validate_every=2", "schedule.precision=fp32"]
    sets.append('data.train=[["camvid:{camvid}:train", 1.0]]')
    words = ["-m", "percodec.sdk.cli", "train", "codec", "--config", "edge", "--data", f"camvid={camvid}", "--out", str(tmp_path / "run")]
    words += ["--threads", "1", *(w for s in [*sets, "schedule.steps=2"] for w in ("--set", s))]
    launch(2, words)
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert state["step"] == 2
    assert not any(k.startswith("module.") for k in state["model"])
    assert (tmp_path / "run/curves.png").exists()
