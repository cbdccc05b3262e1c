"""Drives left out: each run is judged on the drive it lacked, on classes shown there; intervals are of blocks; other runs are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
image_module = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.data.sets import load  # noqa: E402
from percodec.export.evaluate.left_out import Seen, drawn, left_out_by, miou, table  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import build_model, train  # noqa: E402
from percodec.export.train.validate import validate_head  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402
from percodec.sdk.synthetic.road import RoadScene  # noqa: E402

BUNDLE = Path(__file__).parents[2] / "benchmarks/bundles/fast-0.330"
SMALL = [
    "codec.name=fast",
    "head.width=0.125",
    "head.widths=[8,8,8]",
    "head.pyramid=8",
    "crops.size=64",
    "crops.batch=2",
    "crops.views=1",
    "schedule.steps=2",
    "schedule.warmup=1",
]
DRIVES = ("A", "B")


def left_out(drive: str) -> str:
    return f'data.train=[["camvid:{{camvid}}:train/not-{drive}", 1]]'


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """Two drives of two frames each, CamVid's layout."""
    root = tmp_path_factory.mktemp("camvid")
    for folder in ("train", "train_labels"):
        (root / folder).mkdir()
    for k, name in enumerate(f"{drive}_{frame}" for drive in DRIVES for frame in range(2)):
        image, label = RoadScene(k, 176, 240).render(0)
        image_module.fromarray(image).save(root / "train" / f"{name}.png")
        image_module.fromarray(label.astype(np.uint8)).save(root / "train_labels" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def runs(drives, tmp_path_factory):
    root, places = tmp_path_factory.mktemp("runs"), {"camvid": str(drives)}
    for drive in DRIVES:
        for reads, network in (("latent", "fpn"), ("original", "resnet50-d")):
            more = [left_out(drive), f"data.val=camvid:{{camvid}}:train/{drive}", f"head.name={network}", f"head.input={reads}"]
            codec = BUNDLE if reads == "latent" else None
            train(load_config("lab-segmentation", [*SMALL, *more]), root / f"{reads}-{drive}", places, codec)
    return root


def evaluated(drives, capsys, *words: str) -> tuple[int, str, str]:
    data = ["--protocol", "leave-one-drive-out", "--data", f"camvid:{drives}:train"]
    code = main(["evaluate", "segmentation", *data, *words])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_every_run_is_judged_on_the_drive_it_lacked(drives, runs, capsys, tmp_path):
    checkpoints = [w for r in ("latent", "original") for d in DRIVES for w in ("--checkpoint", str(runs / f"{r}-{d}/best.pt"))]
    words = (*checkpoints, "--bundle", str(BUNDLE), "--rivals", "jpeg", "--out", str(tmp_path), "--json")
    code, out, err = evaluated(drives, capsys, *words)
    assert code == 0, err
    result = json.loads(out)
    rows = {row["input"]: row for row in result["rows"]}
    assert list(rows) == ["latent", "original", "decoded", "jpeg"]
    for drive in DRIVES:
        state = load_checkpoint(runs / f"latent-{drive}/best.pt")
        model = build_model(state["config"])
        model.load_state_dict(state["model"])
        found = validate_head(model.eval(), state["config"], load(f"camvid:{drives}:train/{drive}"), None, torch.device("cpu"), half=False)
        assert [v if v is None else round(v, 9) for v in rows["latent"]["iou"][drive]] == [
            None if np.isnan(v) else round(v, 9) for v in found["iou"]
        ]
    assert rows["latent"]["bpp"] == rows["decoded"]["bpp"] >= rows["jpeg"]["bpp"] > 0
    assert rows["original"]["bpp"] is None
    assert rows["jpeg"]["latent_lead"] == pytest.approx(rows["latent"]["miou"] - rows["jpeg"]["miou"])
    assert set(result["data"]["sha256"]) == {"camvid/train/A", "camvid/train/B"}
    assert (tmp_path / "segmentation.html").exists()


def test_what_makes_no_table_is_refused(drives, runs, capsys):
    one = str(runs / "latent-A/best.pt")
    for words, said in (
        (("--checkpoint", str(BUNDLE)), "is not a run of segmentation"),
        (("--checkpoint", one, "--checkpoint", one), "a second fpn on latent that left A out"),
        (("--checkpoint", one, "--checkpoint", str(runs / "original-B/best.pt"), "--rivals", ""), "left B out, others A"),
        (("--checkpoint", one, "--limit", "1"), "no --limit"),
        ((), "needs --data camvid:DIR:train and a --checkpoint"),
    ):
        code, _, err = evaluated(drives, capsys, *words)
        assert code == 2
        assert said in err


@pytest.mark.parametrize(
    "specs", [["camvid:{camvid}:train"], ["camvid:{camvid}:train/not-A", "camvid:{camvid}:val"], ["synthetic:9:1"], ["camvid:x:train/A"]]
)
def test_a_run_that_has_seen_all_drives_is_none(specs):
    with pytest.raises(UsageError, match="has not left one drive out"):
        left_out_by({"data": {"train": [[spec, 1.0] for spec in specs]}}, "runs/x")
    assert left_out_by({"data": {"train": [["synthetic:9:1", 1], ["camvid:{camvid}:train/not-A", 1]]}}, "x") == "A"


def test_classes_that_a_drive_does_not_show_are_not_judged_there():
    counts = np.zeros((3, 3), np.int64)
    counts[0] = 6, 2, 2  # two pixels of class 0 taken for class 2, which the drive does not show
    counts[1, 1] = 8
    assert miou(counts) == pytest.approx((6 / 10 + 8 / 10) / 2)
    assert np.isnan(miou(np.zeros((3, 3), np.int64)))


def test_the_interval_is_of_blocks_and_equal_for_equal_rows():
    rng = np.random.default_rng(1)
    good = np.repeat((rng.random(6) * 90).astype(int), 10)  # ten frames alike, six times
    counts = np.zeros((60, 2, 2), np.int64)
    counts[:, 0, 0], counts[:, 0, 1], counts[:, 1, 1] = good, 100 - good, 50
    blocks, frames = drawn({"A": counts}), drawn({"A": counts}, block=1)
    assert np.std(blocks) > 2 * np.std(frames), "neighbours are nearly one scene"
    rows = table([Seen("fpn", "latent", "latent", counts={"A": counts}), Seen("r", "original", "original", counts={"A": counts})])
    assert rows[1]["latent_lead"] == 0
    assert rows[1]["lead_interval"] == "0.000 to 0.000"
