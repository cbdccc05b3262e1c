"""Heads trained from packets: the same weights as from latents in memory, the same after an interruption, and clear words otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
pytest.importorskip("pyarrow", reason="needs the fleet extra")

from support import fleet  # noqa: E402
from support.once import Once  # noqa: E402

from percodec.export.data.crops import Batch  # noqa: E402
from percodec.export.fleet.dataset import PacketDataset  # noqa: E402
from percodec.export.fleet.labels import Labels  # noqa: E402
from percodec.export.train import from_config  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import train  # noqa: E402
from percodec.runtime.session import Session, default_bundle  # noqa: E402
from percodec.sdk import Latent  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import DataError, UsageError  # noqa: E402
from percodec.sdk.synthetic.road import RoadScene  # noqa: E402

ROAD = default_bundle()
TRAIN, VAL = 9, 2
SMALL = [
    "codec.name=refined",
    "codec.channels=48",
    "codec.levels=255",
    "head.name=fpn",
    "head.widths=[8, 8, 8]",
    "head.pyramid=8",
    "crops.size=64",
    "crops.batch=4",
    "schedule.steps=6",
    "schedule.warmup=1",
    "schedule.validate_every=6",
    "schedule.checkpoint_every=3",
    'data.train=[["packets:{packets}:train", 1.0]]',
    "data.val='packets:{packets}:val'",
]
CLASSES = [*(one for one in SMALL if not one.startswith("head")), "head.name=cresnet39", "head.width=0.125", "schedule.steps=2"]


def _scenes(number: int):
    return [RoadScene(seed=50 + k).render(0) for k in range(number)]


def _latents(count: int):
    with Session.open(heads=(), selftest=False) as session:
        return [(session.encode(image).symbols, label.astype(np.uint8)) for image, label in _scenes(count)]


@pytest.fixture(scope="module")
def known():
    return _latents(TRAIN + VAL)


@pytest.fixture(scope="module")
def packets(once: Once, known) -> Path:
    def make(folder: Path) -> None:
        with Session.open(heads=(), selftest=False) as session:
            bundle = session.bundle
        coded = fleet.packets_of(bundle, np.stack([symbols for symbols, _ in known]))
        fleet.write_log(folder / "a.mcap", bundle, coded[:5])
        fleet.write_log(folder / "b.mcap", bundle, coded[5:])
        rows = fleet.rows_of(folder)
        assert [row["counter"] for row in rows] == list(range(len(known)))
        labelled = [
            {**row, "labels": fleet.png(known[k][1]), "split": "train" if k < TRAIN else "val"} for k, row in enumerate(rows)
        ]  # fmt: skip
        fleet.write_labels(folder / "labels" / "maps.parquet", labelled)

    return once("labelled", make)


class FromMemory:
    """What `PacketCrops` gives, from arrays: the order is a dataset's, the latents never were packets."""

    def __init__(self, order, known, values, size, seed):
        self._order, self._known, self._values, self._n, self._seed = order, known, values, size // 8, seed

    def batch(self, step):
        inputs, labels = [], []
        for item, number in enumerate(self._order[step]):
            symbols, label = self._known[number]
            rng = np.random.default_rng((self._seed, step, item))
            y, x = int(rng.integers(symbols.shape[1] - self._n + 1)), int(rng.integers(symbols.shape[2] - self._n + 1))
            inputs.append(torch.from_numpy(symbols[:, y : y + self._n, x : x + self._n].copy()))
            labels.append(torch.from_numpy(label[8 * y :, 8 * x :][: 8 * self._n, : 8 * self._n].astype(np.int64)))
        return Batch(self._values(torch.stack(inputs)).contiguous(memory_format=torch.channels_last), torch.stack(labels))

    def state_dict(self):
        return {}


@pytest.fixture(scope="module")
def trained(packets, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "packets"
    best = train(load_config("lab-segmentation", SMALL), out, {"packets": str(packets)}, ROAD)
    assert 0 <= best["miou"] <= 1
    return out


def _equal(a: Path, b: Path) -> bool:
    first, second = (load_checkpoint(path / "last.pt") for path in (a, b))
    return all(torch.equal(first[kind][k], second[kind][k]) for kind in ("model", "average") for k in first[kind])


def test_a_head_from_packets_equals_one_from_latents_in_memory(packets, trained, known, tmp_path, monkeypatch):
    config = load_config("lab-segmentation", SMALL)
    dataset = PacketDataset(packets, ROAD, batch=4, labels=Labels(str(packets / "labels")), seed=config["seed"], drop_last=True)
    order = [[key.counter for key in batch.keys] for _ in range(3) for batch in dataset]
    assert len(order) == 6
    assert order[:2] != order[2:4]

    def in_memory(data, model, config, say):
        return FromMemory(order, known, model.codec.quantizer.values, config["crops"]["size"], config["seed"])

    monkeypatch.setattr(from_config, "packet_crops", in_memory)
    train(config, tmp_path / "memory", {"packets": str(packets)}, ROAD)
    assert _equal(trained, tmp_path / "memory")


def test_interrupted_and_resumed_within_an_epoch_equals_uninterrupted(packets, trained, tmp_path):
    config, places = load_config("lab-segmentation", SMALL), {"packets": str(packets)}

    def stop(step, steps, values):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", places, ROAD, progress=stop)
    train(config, tmp_path / "parts", places, ROAD)
    assert _equal(trained, tmp_path / "parts")


def test_the_command_takes_the_codec_from_the_bundle(packets, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "classification", "--data", f"packets={packets}", "--codec", str(ROAD), "--out", str(out), "--json"]
    sets = [f"--set={one}" for one in CLASSES if not one.startswith(("data", "codec"))]
    assert main([*words, *sets]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["map"] <= 1
    data = json.loads((out / "data.json").read_text())
    assert (data["train"][0]["pictures"], data["val"]["pictures"]) == (TRAIN, VAL)
    assert str(packets) not in (out / "command.txt").read_text()
    assert main(["train", "segmentation", "--data", f"packets={packets}", "--out", str(tmp_path / "x")]) == 2
    assert "--codec BUNDLE" in capsys.readouterr().err


def test_its_head_joins_the_bundle_without_a_data_set(trained, known, tmp_path, capsys, tiny_folder):
    words = ["export", str(ROAD), "--head", f"parking={trained / 'best.pt'}", "--out"]
    assert main([*words, str(tmp_path / "more"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["heads"][-1] == "parking"
    model = from_config.build_model(load_config("lab-segmentation", SMALL))
    model.load_state_dict(load_checkpoint(trained / "best.pt")["model"])
    model.eval()
    with Session.open(tmp_path / "more", heads=["parking"], selftest=False) as session, torch.no_grad():
        for number, (symbols, _) in enumerate(known[:3]):
            values = model.codec.quantizer.values(torch.from_numpy(symbols[None]))
            labels = session.predict(Latent(symbols, number, 0), "parking").labels
            assert (model.head(values).argmax(1)[0].numpy() == labels).mean() > 0.99  # weights are rounded
    assert main(["export", str(trained / "best.pt"), "--data", "packets=x", "--out", str(tmp_path / "y")]) == 2
    assert f"percodec export BUNDLE --head NAME={trained / 'best.pt'}" in capsys.readouterr().err
    words[1] = str(tiny_folder)
    assert main([*words, str(tmp_path / "z")]) != 0
    assert f"bundle {tiny_folder} holds no codec" in capsys.readouterr().err


SHARED = """
import sys
from pathlib import Path
from percodec.export.train.config import load_config
from percodec.export.train.from_config import train

out, packets, bundle, last, *sets = sys.argv[1:]

def stop(step, steps, values):
    if step == int(last):
        raise KeyboardInterrupt

train(load_config("lab-segmentation", sets), Path(out), {"packets": packets}, Path(bundle), progress=stop)
"""


@pytest.mark.long
def test_two_processes_share_the_packets_and_go_on_from_their_places(packets, tmp_path):
    (tmp_path / "shared.py").write_text(SHARED)
    alone = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", "0", "--standalone"]

    def run(out: Path, last: int) -> int:
        words = [tmp_path / "shared.py", out, packets, ROAD, last, *SMALL]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, *alone, *map(str, words)]
        return subprocess.run(command, capture_output=True, env=environment, timeout=900, check=False).returncode

    assert run(tmp_path / "whole", 0) == 0
    assert run(tmp_path / "parts", 4) != 0
    state = load_checkpoint(tmp_path / "parts" / "last.pt")
    assert state["step"] == 3
    assert [(one["shares"]["rank"], one["shares"]["world"]) for one in state["position"]] == [(0, 2), (1, 2)]
    assert run(tmp_path / "parts", 0) == 0
    assert _equal(tmp_path / "whole", tmp_path / "parts")


def test_what_cannot_be_trained_from_packets_is_refused(packets, tmp_path):
    places = {"packets": str(packets)}

    def run(*more, codec=ROAD):
        train(load_config("lab-segmentation", [*SMALL, *more]), tmp_path / "x", places, codec)

    with pytest.raises(UsageError, match="read latents"):
        run("head.input=decoded")
    with pytest.raises(UsageError, match="no other beside them"):
        run('data.train=[["packets:{packets}:train", 1.0], ["synthetic:4:1", 1.0]]')
    with pytest.raises(UsageError, match="--codec BUNDLE"):
        run(codec=None)
    with pytest.raises(UsageError, match=r"crops\.size is 512"):
        run("crops.size=512")
    with pytest.raises(DataError, match="than a batch, 16"):
        run("crops.batch=16")
    with pytest.raises(DataError, match=r"head\.classes is 3"):
        run("head.classes=3")
    assert not (tmp_path / "x" / "last.pt").exists()
