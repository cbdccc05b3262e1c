"""Classes of one's own: from pictures, label maps and classes.yaml to labels of a run."""

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.data.sets import load  # noqa: E402
from percodec.sdk.bundle import Bundle  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import DataError  # noqa: E402

CLASSES = """classes:
  - {name: lawn, colour: [20, 160, 40], ids: [3, 7]}
  - {name: hedge, colour: [0, 90, 20], ids: [8]}
ignore: [0, 255]
"""


@pytest.fixture
def garden(tmp_path):
    """Bright pictures whose lower half is light green, lawn, with a strip without a label."""
    root = tmp_path / "garden"
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        (root / f"{split}_labels").mkdir()
        for k in range(3):
            rng = np.random.default_rng(k)
            picture = np.full((192, 240, 3), (10, 60, 20), np.uint8) + rng.integers(0, 20, (192, 240, 3), np.uint8)
            label = np.full((192, 240), 8, np.uint8)
            picture[96:] += np.uint8(100)
            label[96:144], label[144:], label[:8] = 3, 7, 0
            Image.fromarray(picture).save(root / split / f"{k}.png")
            Image.fromarray(label).save(root / f"{split}_labels" / f"{k}.png")
    (root / "classes.yaml").write_text(CLASSES)
    return root


def test_ids_are_merged_and_ignored(garden):
    data = load(f"own:{garden}:val")
    assert data.classes == (("lawn", (20, 160, 40)), ("hedge", (0, 90, 20)))
    assert data.labels[0][[0, 40, 120, 160], 0].tolist() == [255, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write it as"),
        ("classes: 3", "write it as"),
        ("classes: [1, 2]", "write it as"),
        ("classes: []\nignore: [255]", "has 0 classes"),
        (CLASSES.replace("[8]", "[7]"), "the id 7 is there twice"),
        (CLASSES.replace("[8]", "[256]"), "0 to 255"),
        (CLASSES.replace("[8]", "[true]"), "0 to 255"),
        (CLASSES.replace("[8]", "[]"), "at least one id"),
        (CLASSES.replace("hedge", "lawn"), "the name lawn is there twice"),
        (CLASSES.replace("hedge", '"a\\e[31m"'), "printable"),
        (CLASSES.replace("[0, 90, 20]", "[0, 90]"), "three numbers"),
        (CLASSES.replace("ids: [8]", "id: [8]"), "write it as"),
        (CLASSES.replace("[0, 255]", "{"), "is not YAML"),
        (CLASSES.replace("[8]", "[9]"), "holds class"),
        ("[" * 5000, "is not YAML"),
        (CLASSES + "#" * (1 << 17), "bytes"),
    ],
)
def test_a_classes_file_that_is_wrong_is_refused_with_the_reason(garden, text, reason):
    (garden / "classes.yaml").write_text(text)
    with pytest.raises(DataError, match=reason):
        load(f"own:{garden}:train")


def test_a_missing_file_and_a_pipe_are_refused(garden):
    path = garden / "classes.yaml"
    path.unlink()
    with pytest.raises(DataError, match=r"classes\.yaml"):
        load(f"own:{garden}:train")
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"classes\.yaml"):
        load(f"own:{garden}:train")


def test_from_pictures_to_labels_of_a_run(garden, tmp_path, capsys):
    def percodec(*words):
        assert main([str(w) for w in words]) == 0
        return capsys.readouterr().out

    own = ["--data", f"own={garden}", "--set", 'data.train=[["own:{own}:train", 1.0]]', "--set", "data.val=own:{own}:val"]
    for key in ("crops.size=64", "crops.batch=4", "crops.scale=[0.8, 1.2]", "schedule.warmup=2", "codec.channels=8", "codec.width=0.1"):
        own += ["--set", key]
    codec, head = tmp_path / "codec", tmp_path / "head"
    percodec("train", "codec", "--config", "block", "--init", "klt", *own, "--set", "schedule.steps=2", "--out", codec)
    for key in ("codec.name=block", "crops.margin=0", "schedule.lr=0.02", "schedule.ema=0.5", "schedule.steps=40"):
        own += ["--set", key]
    for key in ("head.widths=[8, 8, 8]", "head.pyramid=8", "head.classes=2"):
        own += ["--set", key]
    percodec("train", "segmentation", "--config", "road", *own, "--codec", codec / "last.pt", "--out", head)
    percodec("export", head / "best.pt", "--data", f"own={garden}", "--size", "240x192", "--out", tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert [label.name for label in bundle.labels] == ["lawn", "hedge"]
    percodec("run", garden / "val", "--bundle", tmp_path / "bundle", "--out", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/frames.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert abs(line["classes"]["lawn"] - 0.5) < 0.1
        assert abs(line["classes"]["hedge"] - 0.5) < 0.1
