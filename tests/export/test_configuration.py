"""Configurations of training: those that come along load, and what makes no sense is refused with its key."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.restore.train import build_restorer  # noqa: E402
from percodec.export.train.config import DEFAULTS, load_config, names, resolve  # noqa: E402
from percodec.export.train.from_config import build_model  # noqa: E402
from percodec.export.train.loop import Schedule  # noqa: E402
from percodec.export.train.ranges import RANGES  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402


def test_every_packaged_configuration_loads_and_builds():
    assert {"edge", "road-edge", "theis3-0.0983", "theis3-0.330", "theis3-0.635"} <= set(names())
    for name in names():
        config = load_config(name, [])
        Schedule(**config["schedule"])
        if config["task"] == "restore":
            assert build_restorer(config, channels=8).restorer is not None
            continue
        model = build_model(config)
        assert model.codec is not None
        assert model.codec.channels == config["codec"]["channels"]
        assert (model.head is not None) == (config["task"] != "codec")
        assert model.frozen == (config["task"] in ("classification", "segmentation"))


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


OUT_OF_RANGE = [
    *("seed=-1", "crops.size=63", "crops.size=0", "crops.size=100", "crops.batch=0", "crops.batch=-2", "crops.margin=4", "crops.views=-1"),
    *(
        "crops.scale=[0.0, 1.0]",
        "crops.scale=[2.0, 1.0]",
        "crops.scale=[1.0]",
        "crops.scale=[a, b]",
        "crops.jitter=-0.1",
        "crops.jitter=.nan",
    ),
    *("schedule.steps=-1", "schedule.steps=0", "schedule.lr=0", "schedule.lr=-1", "schedule.lr=.nan", "schedule.lr=.inf", "schedule.ema=1"),
    *("schedule.warmup=-1", "schedule.clip=0", "schedule.validate_every=0", "schedule.checkpoint_every=0", "schedule.freeze_norm=-2"),
    *("schedule.patience=-1", "schedule.final=2", "schedule.weight_decay=-1", "schedule.codec_lr=-1", "loss.bpp=-1", "loss.beta=.inf"),
    *("loss.structure=-1", "loss.class_offset=1", "loss.distill_logits=2", "codec.levels=1", "codec.channels=0", "codec.width=0"),
    *("codec.width=5", "codec.sigma=0", "codec.sigma_final=-1", "head.classes=0", "head.width=0", "head.dropout=1", "head.presence=0"),
    *("head.widths=[8, 8]", "head.widths=[8, 8, 0]", "head.widths=[8, 8, 8.5]", "head.pyramid=0", "restorer.width=0", "restorer.blocks=0"),
    *("restorer.judge=0", "restorer.l1=-1", "data.train=[]", "data.train=[x]", "data.train=[[3, 1.0]]", "data.train=[[x, -1.0]]"),
    *("data.train=[[x, 0]]", "data.train=[[x, true]]", "data.train=[[x, .nan]]"),
]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_value_that_makes_no_sense_is_refused_with_its_key(override):
    key = override.partition("=")[0].replace(".", r"\.")
    with pytest.raises(UsageError, match=rf"{key} must be "):
        load_config("edge", [override])


def test_every_number_of_the_configuration_has_a_range():
    numbers = {
        name if not isinstance(section, dict) else f"{name}.{key}"
        for name, section in DEFAULTS.items()
        for key, value in (section.items() if isinstance(section, dict) else [("", section)])
        if isinstance(value, int | float) or (isinstance(value, list) and isinstance(value[0], int | float))
    }
    assert numbers == set(RANGES)


@pytest.mark.parametrize("override", ["seed=[", "seed=2026-99-99", "schedule.lr=1" + "0" * 400, "seed=" + "[" * 3000, "seed=" + "9" * 5000])
def test_text_that_is_no_yaml_is_a_usage_error(override):
    with pytest.raises(UsageError, match=r"is not YAML|must be"):
        load_config("edge", [override])


def test_a_configuration_that_is_not_text_is_a_usage_error(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"seed: \xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(str(tmp_path / "c.yaml"), [])


@pytest.mark.parametrize("spec", ["folder:{a.b}", "folder:{a[x]}", "folder:{}", "folder:{", "folder:{a!z}"])
def test_a_spec_with_braces_that_name_nothing_is_a_usage_error(spec):
    with pytest.raises(UsageError, match="needs --data"):
        resolve(spec, {"a": "x"})


def test_overrides_do_not_touch_the_defaults():
    before = json.dumps(DEFAULTS)
    assert load_config("edge", ["schedule.lr=1e-4"])["schedule"]["lr"] == 1e-4
    assert json.dumps(DEFAULTS) == before


def test_unresolved_data_names_what_to_give():
    with pytest.raises(UsageError, match="--data camvid=PATH"):
        resolve("camvid:{camvid}:train", {})
