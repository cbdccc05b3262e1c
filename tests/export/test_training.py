"""Training: interrupted + resumed equals uninterrupted, and the loss goes down."""

import csv
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.data.crops import Batch  # noqa: E402
from percodec.export.data.dataset import DataSet  # noqa: E402
from percodec.export.models import Quantizer  # noqa: E402
from percodec.export.train.arithmetic import training_arithmetic  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import build_model, load_trunk, train  # noqa: E402
from percodec.export.train.loop import Run, Schedule  # noqa: E402
from percodec.export.train.tasks import class_weights  # noqa: E402
from percodec.runtime.images import write_image  # noqa: E402
from percodec.sdk.errors import DataError, TrainingError, UsageError  # noqa: E402

TINY = [
    "head.widths=[8, 8, 8]",
    "head.pyramid=8",
    "codec.channels=4",
    "loss.bpp=0.1",
    "crops.size=64",
    "crops.batch=2",
    "schedule.steps=6",
    "schedule.warmup=2",
    "schedule.validate_every=3",
    "schedule.checkpoint_every=3",
    'data.train=[["camvid:{camvid}:train", 0.7], ["synthetic:2:1", 0.3]]',
]


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


def test_a_program_with_a_configuration_of_its_own_resumes_too(tmp_path):
    """train_hyperprior.py's has none of ours' keys."""

    class Loss(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return self.model(batch.inputs).square().mean(), {}

    def run(steps):
        model = torch.nn.Linear(4, 1)
        return Run(
            folder=tmp_path,
            model=model,
            objective=Loss(model),
            schedule=Schedule(steps=steps, warmup=1, validate_every=2, checkpoint_every=2),
            batch=lambda step: Batch(torch.ones(2, 4), torch.zeros(2, dtype=torch.long)),
            validate=lambda m: {"fine": 1.0},
            score=lambda record: record["step"],
            config={"own": {"n": 96}, "seed": 1},
        )

    assert run(2).fit()["step"] == 2
    assert run(4).fit()["step"] == 4
    with (tmp_path / "train.csv").open() as f:
        assert [int(r["step"]) for r in csv.DictReader(f)] == [0, 1, 2, 3]


def test_resuming_with_another_configuration_is_refused(camvid, tmp_path):
    places = {"camvid": str(camvid)}
    train(load_config("road-edge", TINY), tmp_path / "run", places)
    with pytest.raises(DataError, match="another configuration"):
        train(load_config("road-edge", [*TINY, "seed=2"]), tmp_path / "run", places)
    train(load_config("road-edge", [*TINY, "seed=2"]), tmp_path / "run", places, restart=True)


OVER = ("schedule.lr=1e30", "schedule.clip=1e30")


def small_codec(*more):
    data = ['data.train=[["folder:{pics}", 1.0]]', "data.val=folder:{pics}"]
    return load_config("edge", [*TINY[2:5], *data, "schedule.steps=4", "schedule.checkpoint_every=1", "schedule.validate_every=1", *more])


def pictures(folder, seed):
    folder.mkdir()
    for k in range(2):
        write_image(folder / f"{k}.png", np.random.default_rng((seed, k)).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    return {"pics": str(folder)}


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_refused_rerun_writes_nothing(tmp_path):
    a, b = pictures(tmp_path / "a", 1), pictures(tmp_path / "b", 2)
    run = tmp_path / "run"
    train(small_codec(), run, a, command="first")
    before = contents(run)
    assert before["command.txt"] == b"first\n"
    with pytest.raises(DataError, match="another configuration"):
        train(small_codec("loss.beta=7"), run, a, command="second")
    with pytest.raises(DataError, match=r"another training set folder:\{pics\}: content [0-9a-f]{64}, now [0-9a-f]{64}"):
        train(small_codec(), run, b, command="second")
    with pytest.raises(DataError, match="another --codec"):
        train(small_codec(), run, a, codec_from=run / "best.pt", command="second")
    with pytest.raises(DataError, match="not a folder"):
        train(small_codec(), run, {"pics": str(tmp_path / "gone")}, restart=True)
    assert contents(run) == before
    with pytest.raises(DataError, match="not a folder"):
        train(small_codec(), tmp_path / "new", {"pics": str(tmp_path / "gone")})
    assert not (tmp_path / "new").exists()
    train(small_codec(), run, a, command="third")
    train(small_codec(), run, b, restart=True)
    assert json.loads((run / "data.json").read_text())["val"]["sha256"] != json.loads(before["data.json"])["val"]["sha256"]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    places = pictures(tmp_path / "a", 1)
    config = small_codec(
        "schedule.lr=1e30", "schedule.clip=1e30", "schedule.warmup=0", "schedule.precision=fp32", "schedule.validate_every=4"
    )
    with pytest.raises(TrainingError, match=r"step [23] of 4: .*nan.*the last finite loss was [0-9.e+]+; .*last\.pt is the last good"):
        train(config, tmp_path / "run", places)
    state = load_checkpoint(tmp_path / "run/last.pt")
    assert 1 <= state["step"] < 3
    assert all(bool(v.isfinite().all()) for v in state["model"].values())
    assert not (tmp_path / "run/best.pt").exists()
    with (tmp_path / "run/train.csv").open() as f:
        assert [int(r["step"]) for r in csv.DictReader(f)] == list(range(state["step"]))


@pytest.mark.parametrize(
    ("loss", "lr", "what"),
    [
        (lambda y: (y * 0).sqrt().sum(), 1e-3, "the length of its gradient nan"),  # the loss itself is 0
        (lambda y: (y * 0).sum() + torch.inf, 1e-3, "the loss is inf"),  # its gradient is 0
        (lambda y: y.sum(), 1e36, "weights after it are too large"),
    ],
)
def test_gradients_and_weights_are_watched_too(tmp_path, loss, lr, what):
    class Loss(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return loss(self.model(batch.inputs)), {}

    model = torch.nn.Linear(4, 1)
    plan = Schedule(steps=9, warmup=0, lr=lr, weight_decay=1.0, validate_every=9, checkpoint_every=2, precision="fp32")
    batch = Batch(torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
    run = Run(tmp_path, model, Loss(model), plan, lambda step: batch, lambda m: {"fine": 1.0}, lambda record: 1.0, {})
    with pytest.raises(TrainingError, match=what):
        run.fit()
    assert not list(tmp_path.glob("*.pt"))


def test_a_score_that_is_no_number_ends_the_run(tmp_path):
    class Loss(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return self.model(batch.inputs).square().sum(), {}

    model = torch.nn.Linear(4, 1)
    batch = Batch(torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
    plan = Schedule(steps=2, warmup=0, validate_every=2, checkpoint_every=1)
    run = Run(tmp_path, model, Loss(model), plan, lambda step: batch, lambda m: {"miou": math.nan}, lambda record: record["miou"], {})
    with pytest.raises(TrainingError, match="validation gives no number"):
        run.fit()
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_without_any_class_are_refused_before_anything_is_written(tmp_path, split):
    for s in ("train", "val"):
        pictures(tmp_path / s, 1)
        (tmp_path / f"{s}_labels").mkdir()
        for k in range(2):
            label = np.full((64, 64, 3), 11 if s == split else k, np.uint8)
            Image.fromarray(label[..., 0]).save(tmp_path / f"{s}_labels/{k}.png")
    config = load_config("road-edge", [*TINY[:-1], 'data.train=[["camvid:{camvid}:train", 1.0]]'])
    with pytest.raises(DataError, match=rf"camvid/{split}: no pixel of its 2 label maps has a class"):
        train(config, tmp_path / "run", {"camvid": str(tmp_path)})
    assert not (tmp_path / "run").exists()


def test_pictures_without_any_class_are_counted(tmp_path):
    said = []
    labels = [np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)]
    weights = class_weights([DataSet("x", labels, labels, "")], 2, say=said.append)
    assert bool(weights.isfinite().all())
    assert said == ["x: 2 of 3 pictures have no pixel with a class: nothing is learned from their labels"]


def test_a_training_set_of_other_classes_is_refused(camvid, tmp_path):
    config = load_config("road-edge", [*TINY, "head.classes=3"])
    with pytest.raises(UsageError, match=r"head\.classes is 3, but camvid/val has 11 classes"):
        train(config, tmp_path / "run", {"camvid": str(camvid)})


def test_a_codec_learns(camvid, tmp_path):
    overrides = [
        *TINY[2:7],
        "loss.beta=0",
        "schedule.steps=40",
        "schedule.validate_every=8",
        "schedule.lr=0.003",
        'data.train=[["camvid:{camvid}:train", 1.0]]',
    ]
    train(load_config("edge", overrides), tmp_path / "run", {"camvid": str(camvid)})
    with (tmp_path / "run/val.csv").open() as f:
        psnrs = [float(r["psnr"]) for r in csv.DictReader(f)]
    assert max(psnrs) > psnrs[0] + 3  # batches of two make single validations jump


def test_a_codec_of_another_shape_is_refused(camvid, tmp_path):
    places = {"camvid": str(camvid)}
    train(load_config("edge", TINY[2:]), tmp_path / "codec", places)
    with pytest.raises(UsageError, match="another codec"):
        train(load_config("road-edge", [*TINY, "codec.channels=8"]), tmp_path / "x", places, tmp_path / "codec/best.pt")


def test_a_checkpoint_that_is_not_one_is_a_data_error(tmp_path):
    (tmp_path / "best.pt").write_text("hello")
    with pytest.raises(DataError, match=r"best\.pt"):
        load_checkpoint(tmp_path / "best.pt")


@pytest.mark.parametrize(("channels", "levels", "most"), [(8, 6, 0.3231), (16, 6, 0.6462), (32, 6, 1.2925), (8, 2, 0.125)])
def test_an_operating_point_above_the_latents_capacity_is_refused(channels, levels, most):
    shape = [f"codec.channels={channels}", f"codec.levels={levels}"]
    with pytest.raises(UsageError, match=rf"C \* log2\(L\) / 64 = {most:.4f}"):
        load_config("theis3-0.330", [*shape, f"loss.bpp={most + 0.001}"])
    load_config("theis3-0.330", [*shape, f"loss.bpp={most - 0.001}"])


def test_sigma_anneals_only_where_asked(camvid, tmp_path):
    seen = []
    places = {"camvid": str(camvid)}

    def watch(step, steps, values):
        seen.append(step)

    config = load_config("edge", [*TINY[2:], "codec.sigma=1", "codec.sigma_final=16"])
    train(config, tmp_path / "a", places, progress=watch)
    assert seen == list(range(1, 7))
    a, b = Quantizer(6, sigma=1.0), Quantizer(6, sigma=16.0)
    z = torch.linspace(-2, 2, 9).view(1, 1, 3, 3)
    assert torch.equal(a(z).q, b(z).q)  # forward is hard whatever sigma is


def test_early_stop_ends_a_run_that_no_longer_improves(camvid, tmp_path):
    more = ["schedule.steps=40", "schedule.validate_every=2", "schedule.patience=3", "schedule.lr=1e-12"]
    train(load_config("edge", [*TINY[2:], *more]), tmp_path / "run", {"camvid": str(camvid)})
    with (tmp_path / "run/val.csv").open() as f:
        assert len(list(csv.DictReader(f))) < 20
    assert (tmp_path / "run/tensorboard").is_dir()


def test_a_trunk_is_another_operating_point_of_the_same_codec(camvid, tmp_path):
    places = {"camvid": str(camvid)}
    train(load_config("edge", TINY[2:]), tmp_path / "c4", places)
    model = build_model(load_config("edge", [*TINY[2:], "codec.channels=6"]))
    load_trunk(model, tmp_path / "c4/best.pt")
    given = load_checkpoint(tmp_path / "c4/best.pt")["model"]
    own = model.state_dict()
    assert torch.equal(own["codec.g_a.0.0.weight"], given["codec.g_a.0.0.weight"])
    assert own["codec.g_a.6.0.weight"].shape[0] == 6
    other = build_model(load_config("theis3-0.330", []))
    with pytest.raises(UsageError, match="another kind of codec"):
        load_trunk(other, tmp_path / "c4/best.pt")


def test_an_encoder_learns_anothers_latents_and_nothing_else_moves(camvid, tmp_path):
    places = {"camvid": str(camvid)}
    small = [*TINY[2:6], "codec.width=0.0625", "codec.name=theis3"]
    train(load_config("edge", [*small, "schedule.steps=2", *TINY[7:]]), tmp_path / "teacher", places)
    more = ["schedule.steps=60", "schedule.validate_every=60", "schedule.checkpoint_every=60", "schedule.lr=0.01", TINY[-1]]
    seen = []
    student = load_config("imitate", [*TINY[2:6], "codec.width=0.0625", *more])
    train(student, tmp_path / "run", places, teacher_from=tmp_path / "teacher/best.pt", progress=lambda a, b, v: seen.append(v["loss"]))
    assert sum(seen[-10:]) < 0.8 * sum(seen[:10])
    teacher, made = (load_checkpoint(tmp_path / f / "best.pt")["model"] for f in ("teacher", "run"))
    decoder = [k for k in teacher if k.startswith("codec.g_s.")]
    assert decoder
    assert all(torch.equal(teacher[k], made[k]) for k in decoder)
    assert json.loads((tmp_path / "run/codec.json").read_text())["config"]["codec"]["name"] == "theis3"
    wider = load_config("imitate", [*TINY[2:6], "codec.width=0.125", *more])
    with pytest.raises(UsageError, match="another decoder"):
        train(wider, tmp_path / "x", places, teacher_from=tmp_path / "teacher/best.pt")
    with pytest.raises(UsageError, match=r"codec\.channels"):
        train(
            load_config("imitate", [*small, *more, "codec.channels=8"]), tmp_path / "x", places, teacher_from=tmp_path / "teacher/best.pt"
        )


@pytest.mark.parametrize(
    ("precision", "units", "half"), [("auto", True, True), ("auto", False, False), ("bf16", False, True), ("fp32", True, False)]
)
def test_bf16_is_used_where_the_machine_has_units_for_it(precision, units, half, monkeypatch):
    monkeypatch.setattr("percodec.export.train.arithmetic.computes_bf16", lambda kind: units)
    with training_arithmetic(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if half else torch.float32)
