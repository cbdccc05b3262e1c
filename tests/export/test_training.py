"""Training: configurations are checked, interrupted + resumed equals uninterrupted, and the loss goes down."""

import csv
import json

import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.train.config import DEFAULTS, load_config, names, resolve  # noqa: E402
from percodec.export.train.loop import Schedule, load_checkpoint  # noqa: E402
from percodec.export.train.run import build_model, train  # noqa: E402
from percodec.sdk.errors import DataError, UsageError  # noqa: E402

TINY = [
    "head.widths=[8, 8, 8]",
    "head.pyramid=8",
    "codec.channels=4",
    "crops.size=64",
    "crops.batch=2",
    "schedule.steps=6",
    "schedule.warmup=2",
    "schedule.validate_every=3",
    "schedule.checkpoint_every=3",
    'data.train=[["camvid:{camvid}:train", 0.7], ["synthetic:2:1", 0.3]]',
]


def test_every_packaged_configuration_loads_and_builds():
    assert {"edge", "road-edge", "theis3-0.0983", "theis3-0.330", "theis3-0.635"} <= set(names())
    for name in names():
        config = load_config(name, [])
        model = build_model(config)
        assert model.codec.channels == config["codec"]["channels"]
        assert (model.head is not None) == (config["task"] == "segmentation")
        Schedule(**config["schedule"])


@pytest.mark.parametrize(
    ("name", "channels", "bits"), [("theis3-0.0983", 8, 0.786), ("theis3-0.330", 16, 1.32), ("theis3-0.635", 32, 1.27)]
)
def test_operating_points_are_the_papers(name, channels, bits):
    config = load_config(name, [])
    assert config["codec"]["channels"] == channels
    assert 64 * config["loss"]["bpp"] / channels == pytest.approx(bits, abs=0.001)


@pytest.mark.parametrize(
    "override", ["nothing=1", "loss.betta=3", "schedule.steps=many", "seed", "codec=3", "crops.size=64.5", "schedule.lr=fast"]
)
def test_wrong_overrides_are_usage_errors(override):
    with pytest.raises(UsageError):
        load_config("edge", [override])


def test_overrides_do_not_touch_the_defaults():
    before = json.dumps(DEFAULTS)
    assert load_config("edge", ["schedule.lr=1e-4"])["schedule"]["lr"] == 1e-4
    assert json.dumps(DEFAULTS) == before


def test_unresolved_data_names_what_to_give():
    with pytest.raises(UsageError, match="--data camvid=PATH"):
        resolve("camvid:{camvid}:train", {})


def test_interrupted_and_resumed_equals_uninterrupted(camvid, tmp_path):
    config = load_config("road-edge", TINY)
    places = {"camvid": str(camvid)}
    train(config, tmp_path / "whole", places)

    def stop_at_five(step, steps, values):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", places, progress=stop_at_five)
    assert load_checkpoint(tmp_path / "parts/last.pt")["step"] == 3
    train(config, tmp_path / "parts", places)
    a, b = (load_checkpoint(tmp_path / f / "last.pt") for f in ("whole", "parts"))
    for key in ("model", "average"):
        assert all(torch.equal(a[key][k], b[key][k]) for k in a[key])
    with (tmp_path / "parts/train.csv").open() as f:
        assert [int(r["step"]) for r in csv.DictReader(f)] == list(range(6))


def test_resuming_with_another_configuration_is_refused(camvid, tmp_path):
    places = {"camvid": str(camvid)}
    train(load_config("road-edge", TINY), tmp_path / "run", places)
    with pytest.raises(DataError, match="another configuration"):
        train(load_config("road-edge", [*TINY, "seed=2"]), tmp_path / "run", places)
    train(load_config("road-edge", [*TINY, "seed=2"]), tmp_path / "run", places, restart=True)


def test_a_codec_learns(camvid, tmp_path):
    overrides = [
        *TINY[2:6],
        "schedule.steps=60",
        "schedule.validate_every=4",
        "schedule.lr=0.003",
        'data.train=[["camvid:{camvid}:train", 1.0]]',
    ]
    train(load_config("edge", overrides), tmp_path / "run", {"camvid": str(camvid)})
    with (tmp_path / "run/val.csv").open() as f:
        psnrs = [float(r["psnr"]) for r in csv.DictReader(f)]
    assert psnrs[-1] > psnrs[0] + 3


def test_a_codec_of_another_shape_is_refused(camvid, tmp_path):
    places = {"camvid": str(camvid)}
    train(load_config("edge", [*TINY[2:], "codec.channels=4"]), tmp_path / "codec", places)
    with pytest.raises(UsageError, match="another codec"):
        train(load_config("road-edge", [*TINY, "codec.channels=8"]), tmp_path / "x", places, tmp_path / "codec/best.pt")


def test_a_checkpoint_that_is_not_one_is_a_data_error(tmp_path):
    (tmp_path / "best.pt").write_text("hello")
    with pytest.raises(DataError, match=r"best\.pt"):
        load_checkpoint(tmp_path / "best.pt")
