"""Heads on a fixed codec, on pictures and on latents; the joint run; distillation; the ImageNet recipe on a tiny tree."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.data.sets import load  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import train, trained_model  # noqa: E402
from percodec.export.train.offsets import class_offsets, scores_of  # noqa: E402
from percodec.export.train.tasks import presence  # noqa: E402
from percodec.export.train.views import ViewCrops, Views  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402

SMALL = [
    "codec.name=edge",
    "codec.channels=4",
    "loss.bpp=0.1",
    "head.width=0.125",
    "crops.size=64",
    "crops.batch=2",
    "crops.views=2",
    "schedule.steps=3",
    "schedule.warmup=1",
    "schedule.validate_every=3",
    "schedule.checkpoint_every=1",
]


@pytest.fixture(scope="module")
def places(camvid):
    return {"camvid": str(camvid)}


@pytest.fixture(scope="module")
def codec(places, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "codec"
    train(
        load_config("edge", ["codec.channels=4", *SMALL[2:3], *SMALL[4:6], *SMALL[7:], 'data.train=[["camvid:{camvid}:train", 1]]']),
        out,
        places,
    )
    return out / "best.pt"


@pytest.fixture(scope="module")
def teacher(places, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "teacher"
    train(load_config("lab-segmentation", [*SMALL, "head.name=resnet50-d", "head.input=original"]), out, places)
    return out / "best.pt"


@pytest.mark.parametrize(
    ("name", "reads"), [("resnet50-d", "decoded"), ("cresnet39-d", "latent"), ("cresnet51-d", "latent"), ("fpn", "latent")]
)
def test_segmentation_on_a_fixed_codec(places, codec, tmp_path, name, reads):
    config = load_config(
        "lab-segmentation", [*SMALL, f"head.name={name}", f"head.input={reads}", "head.widths=[8, 8, 8]", "head.pyramid=8"]
    )
    best = train(config, tmp_path / "run", places, codec, views=tmp_path / "views")
    assert 0 <= best["miou"] <= 1
    before, after = load_checkpoint(codec)["model"], load_checkpoint(tmp_path / "run/last.pt")["model"]
    assert all(torch.equal(before[k], after[k]) for k in before)  # the codec stayed as it was, statistics included


def test_a_run_ends_with_what_its_classes_lack_once(places, codec, tmp_path):
    config = load_config("lab-segmentation", [*SMALL, "head.name=fpn", "head.widths=[8, 8, 8]", "head.pyramid=8", "head.offsets=true"])
    best = train(config, tmp_path / "run", places, codec)
    assert len(best["class_offsets"]) == 11
    assert any(best["class_offsets"])
    state = load_checkpoint(tmp_path / "run" / "best.pt")
    assert state["val"] == best
    plain = load_checkpoint(tmp_path / "run" / "last.pt")["average"]
    moved = {k: state["model"][k] - v for k, v in plain.items() if not torch.equal(state["model"][k], v)}
    assert list(moved) == ["head.classify.bias"]
    offsets = torch.tensor(best["class_offsets"])
    assert torch.allclose(moved["head.classify.bias"], offsets.repeat_interleave(16), atol=0.006)  # they are told to two digits
    model = trained_model(load_checkpoint(tmp_path / "run" / "last.pt"))
    model.load_state_dict(plain)
    data = load(f"camvid:{places['camvid']}:train")
    assert np.allclose(class_offsets(*scores_of(model, data)), offsets, atol=0.006)
    again = train(config, tmp_path / "run", places, codec)
    assert again == best
    after = load_checkpoint(tmp_path / "run" / "best.pt")
    assert all(torch.equal(v, after["model"][k]) for k, v in state["model"].items())


def test_a_head_on_a_fixed_codec_needs_the_codec(places, tmp_path):
    with pytest.raises(UsageError, match="--codec CHECKPOINT"):
        train(load_config("lab-segmentation", SMALL), tmp_path / "run", places)


@pytest.mark.parametrize(("name", "reads"), [("resnet50", "original"), ("cresnet39", "latent")])
def test_presence_on_camvid(places, codec, tmp_path, name, reads):
    config = load_config("lab-classification", [*SMALL, f"head.name={name}", f"head.input={reads}"])
    best = train(config, tmp_path / "run", places, codec, views=tmp_path / "views")
    assert 0 < best["map"] <= 1
    assert len(best["ap"]) == 11


def test_presence_counts_shares():
    labels = torch.full((1, 10, 10), 255)
    labels[0, 0, 0] = 3
    labels[0, 5] = 2
    assert presence(labels, 5, 0.01).tolist() == [[0, 0, 1, 1, 0]]
    assert presence(labels, 5, 0.02).tolist() == [[0, 0, 1, 0, 0]]


def test_interrupted_and_resumed_equals_uninterrupted_from_views(places, codec, tmp_path):
    config = load_config("lab-segmentation", [*SMALL, "schedule.steps=4", "schedule.validate_every=4", "schedule.checkpoint_every=2"])
    train(config, tmp_path / "whole", places, codec, views=tmp_path / "views")

    def stop(step, steps, values):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", places, codec, progress=stop, views=tmp_path / "views")
    train(config, tmp_path / "parts", places, codec, views=tmp_path / "views")
    a, b = (load_checkpoint(tmp_path / f / "last.pt") for f in ("whole", "parts"))
    assert all(torch.equal(a[kind][k], b[kind][k]) for kind in ("model", "average") for k in a[kind])


def test_joint_training_moves_codec_and_head_and_starts_from_both(places, codec, tmp_path):
    head = ["head.name=cresnet39-d", "head.input=latent"]
    train(load_config("lab-segmentation", [*SMALL, *head]), tmp_path / "head", places, codec, views=tmp_path / "views")
    config = load_config("lab-joint", [*SMALL, *head, "crops.views=0"])
    best = train(config, tmp_path / "joint", places, codec, head_from=tmp_path / "head/best.pt")
    assert {"bpp", "psnr", "ms_ssim", "miou"} <= best.keys()
    before, after = load_checkpoint(codec)["model"], load_checkpoint(tmp_path / "joint/last.pt")["model"]
    assert not torch.equal(before["codec.g_a.0.0.weight"], after["codec.g_a.0.0.weight"])
    with pytest.raises(UsageError, match=r"gamma above 0"):
        load_config("lab-joint", ["loss.gamma=0"])
    wider = load_config("lab-joint", [*SMALL, *head, "head.width=0.25", "crops.views=0"])
    with pytest.raises(UsageError, match="another head"):
        train(wider, tmp_path / "x", places, codec, head_from=tmp_path / "head/best.pt")


def test_distillation_follows_a_teacher_on_originals(places, codec, teacher, tmp_path):
    config = load_config("lab-segmentation", [*SMALL, "head.name=cresnet51-d"])
    seen = []
    train(config, tmp_path / "run", places, codec, teacher_from=teacher, progress=lambda a, b, v: seen.append(v), views=tmp_path / "views")
    assert {"ce", "kd", "features"} <= seen[-1].keys()
    wider = load_config("lab-segmentation", [*SMALL, "head.width=0.25"])
    with pytest.raises(UsageError, match=r"head\.width"):
        train(wider, tmp_path / "wide", places, codec, teacher_from=teacher)
    joint = load_config("lab-joint", [*SMALL, "head.name=cresnet51-d", "crops.views=0"])
    with pytest.raises(UsageError, match=r"head\.input=original"):
        train(joint, tmp_path / "x", places, codec, teacher_from=tmp_path / "run/best.pt")


def test_distillation_follows_a_teacher_on_the_same_latents_and_no_others(places, codec, tmp_path):
    views = tmp_path / "views"
    large = load_config("lab-segmentation", [*SMALL, "head.name=cresnet51-d"])
    train(large, tmp_path / "teacher", places, codec, views=views)
    slim = load_config("lab-segmentation", [*SMALL, "head.name=cresnet27-d", "loss.distill_logits=1", "loss.distill_features=0"])
    seen = []
    train(
        slim,
        tmp_path / "slim",
        places,
        codec,
        teacher_from=tmp_path / "teacher/best.pt",
        progress=lambda a, b, v: seen.append(v),
        views=views,
    )
    assert {"ce", "kd", "features"} <= seen[-1].keys()
    assert len({f.name[:32] for f in views.iterdir()}) == 2  # latents of train and val: nobody asked for pictures
    state = torch.load(codec, weights_only=True)
    state["model"]["codec.g_a.0.0.weight"] += 0.01
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="another codec"):
        train(slim, tmp_path / "x", places, tmp_path / "other.pt", teacher_from=tmp_path / "teacher/best.pt")


def test_views_show_the_same_places_whatever_is_read(places):
    from percodec.export.models import edge

    torch.manual_seed(0)
    codec = edge(4).eval()
    data = load(f"camvid:{places['camvid']}:train")
    views = {reads: Views(data, codec, reads, 3, 1, (0.6, 1.1), 0.1, 64) for reads in ("original", "decoded", "latent")}
    batches = {k: ViewCrops([v], [1.0], 64, 4, 7).batch(5) for k, v in views.items()}
    assert torch.equal(batches["original"].labels, batches["latent"].labels)
    assert torch.equal(batches["original"].labels, batches["decoded"].labels)
    assert batches["latent"].inputs.shape == (4, 4, 8, 8)
    assert set(batches["latent"].inputs.unique().tolist()) <= set(codec.quantizer.centers.tolist())
    # An unvaried view is exactly what a vehicle would encode.
    plain = Views(data, codec, "latent", 0, 1, (1, 1), 0.0, 64)
    x = torch.from_numpy(data.images[1].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(plain.items[1]), codec.quantizer.symbols(codec.g_a(codec.normalize(x)))[0])


def test_views_are_kept_and_belong_to_their_codec(places, tmp_path):
    from percodec.export.models import edge

    data = load(f"camvid:{places['camvid']}:train")
    said: list[str] = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        Views(data, edge(4).eval(), "latent", 1, 1, (1, 1), 0.0, 64, tmp_path, said.append)
    assert len(said) == 2  # the second found the first's
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    image_module = pytest.importorskip("PIL.Image", reason="needs the export extra")
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for k, wnid in enumerate(("n00000001", "n00000002", "n00000003")):
            (root / split / wnid).mkdir(parents=True)
            for i in range(count):
                picture = np.clip(rng.normal(60 + 60 * k, 20, (120, 140, 3)), 0, 255).astype(np.uint8)
                image_module.fromarray(picture).save(root / split / wnid / f"{wnid}_{i}.JPEG")
    return root


@pytest.mark.parametrize(("name", "reads"), [("resnet50", "original"), ("resnet50", "decoded"), ("cresnet51", "latent")])
def test_the_imagenet_recipe(imagenet, codec, tmp_path, name, reads):
    sets = [*SMALL[:6], *SMALL[7:], f"head.name={name}", f"head.input={reads}", "head.classes=3", "crops.margin=16"]
    best = train(load_config("imagenet", sets), tmp_path / "run", {"imagenet": str(imagenet)}, codec)
    assert 0 <= best["top1"] <= best["top5"] == 1


def test_the_number_of_classes_must_be_the_data_sets(imagenet, codec, tmp_path):
    with pytest.raises(UsageError, match="3 classes"):
        train(load_config("imagenet", [*SMALL[:6], *SMALL[7:]]), tmp_path / "run", {"imagenet": str(imagenet)}, codec)
