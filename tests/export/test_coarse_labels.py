"""Learning from coarse labels, around rare classes, and in bad light: what `--config road` adds to a training."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.data.crops import Crops  # noqa: E402
from percodec.export.data.dataset import GROUPS_FROM, DataSet  # noqa: E402
from percodec.export.data.sets import load  # noqa: E402
from percodec.export.data.weather import KINDS, weathered  # noqa: E402
from percodec.export.models import LatentFPN  # noqa: E402
from percodec.export.models.to_onnx import fold  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import train, trained_model  # noqa: E402
from percodec.export.train.tasks import class_weights, grouped_cross_entropy  # noqa: E402
from percodec.sdk.errors import DataError, UsageError  # noqa: E402


@pytest.fixture
def idd(tmp_path):
    """Two pictures of 160x112 with all seven ids and unlabelled pixels."""
    rng = np.random.default_rng(3)
    for folder in ("train", "train_labels"):
        (tmp_path / "idd" / folder).mkdir(parents=True)
    for name in ("0_1", "1_1"):
        Image.fromarray(rng.integers(0, 255, (112, 160, 3), np.uint8)).save(tmp_path / f"idd/train/{name}.jpg")
        label = np.repeat(np.array([0, 1, 2, 3, 4, 5, 6, 255], np.uint8), 14)[:, None].repeat(160, 1)
        Image.fromarray(label).save(tmp_path / f"idd/train_labels/{name}.png")
    return tmp_path / "idd"


def test_a_pixel_of_a_group_costs_what_the_groups_probabilities_add_up_to():
    torch.manual_seed(1)
    logits, weights = torch.randn(1, 4, 1, 3), torch.tensor([1.0, 2.0, 3.0, 4.0])
    labels = torch.tensor([[[1, GROUPS_FROM, 255]]])
    amount, weight = grouped_cross_entropy(logits, labels, weights, [(2, 3)])
    p = logits.softmax(1)[0, :, 0]
    assert torch.isclose(amount, -2 * p[1, 0].log() - 3 * (p[2, 1] + p[3, 1]).log())
    assert weight == 5


def test_idd_lite_is_read_as_classes_and_groups_of_them(idd):
    data = load(f"idd_lite:{idd}:train", groups=True)
    assert data.groups == ((9, 10), (2, 6, 7), (1, 5))
    assert data.images[0].shape == (336, 480, 3)
    rows = data.labels[0][::42, 0]
    assert rows.tolist() == [3, 4, GROUPS_FROM, 8, GROUPS_FROM + 1, GROUPS_FROM + 2, 0, 255]


def test_groups_teach_but_do_not_judge(idd):
    with pytest.raises(DataError, match="groups of classes"):
        load(f"idd_lite:{idd}:train")


def test_an_unknown_id_is_named(idd):
    path = idd / "train_labels/1_1.png"
    label = np.asarray(Image.open(path)).copy()
    label[0, 0] = 9
    Image.fromarray(label).save(path)
    with pytest.raises(DataError, match=r"1_1\.png holds class"):
        load(f"idd_lite:{idd}:train", groups=True)


def test_crops_around_rare_classes_hold_them():
    label = np.zeros((400, 400), np.uint8)
    label[390:393, 5:8] = 1  # 9 pixels in a corner
    data = DataSet("x", [np.zeros((400, 400, 3), np.uint8)], [label], "")

    def found(rare):
        crops = Crops([data], [1.0], 64, 8, 1, scale=(1, 1), rare=rare)
        return sum(bool((labels == 1).any()) for k in range(8) for labels in crops.batch(k).labels)

    assert found(1.0) == 64
    assert found(0.0) < 16


def test_weather_changes_pictures_within_their_range_and_is_the_same_for_a_seed():
    picture = torch.rand(3, 40, 40) * 255
    for kind in KINDS:
        seen = weathered(picture, np.random.default_rng(1), 1.0)
        assert seen.shape == picture.shape
        assert torch.equal(seen, seen.clamp(0, 255))
        assert not torch.equal(kind(picture, np.random.default_rng(2)), picture)
        assert torch.equal(kind(picture, np.random.default_rng(2)), kind(picture, np.random.default_rng(2)))
    assert torch.equal(weathered(picture, np.random.default_rng(1), 0.0), picture)


def test_weather_is_refused_where_pictures_are_encoded_beforehand():
    with pytest.raises(UsageError, match=r"crops\.views=0"):
        load_config("road", ["crops.views=4"])


def test_a_heads_scale_is_absorbed_by_its_first_convolution():
    torch.manual_seed(2)
    head = LatentFPN(4, 3, (8, 8, 8), 8).eval()
    latents = [torch.randn(1, 4, 16, 16) * torch.tensor([100.0, 10.0, 1.0, 0.1]).view(-1, 1, 1)]
    head.see(latents)
    assert torch.allclose(head.scale, torch.tensor([0.01, 0.1, 1.0, 10.0]), rtol=0.2)
    folded = fold(head)
    assert torch.equal(folded.scale, torch.ones(4))
    assert torch.allclose(folded(latents[0]), head(latents[0]), atol=2e-2)
    old = {k: v for k, v in head.state_dict().items() if k != "scale"}
    head.load_state_dict(old)  # of a version without it
    assert torch.equal(head.scale, torch.ones(4))


def test_road_trains_a_head_on_a_linear_codec(camvid, idd, tmp_path):
    small = ["codec.channels=4", "codec.width=0.1", "crops.size=64", "crops.batch=2", "schedule.steps=2", "schedule.warmup=1"]
    places = {"camvid": str(camvid), "idd_lite": str(idd)}
    codec = load_config("refined", [*small, 'data.train=[["camvid:{camvid}:train", 1.0]]', "loss.bpp=0.1"])
    train(codec, tmp_path / "codec", places, init="klt")
    sets = 'data.train=[["camvid:{camvid}:train", 0.5], ["idd_lite:{idd_lite}:train", 0.3], ["synthetic:2:1", 0.2]]'
    config = load_config("road", [*small, sets, "head.widths=[8, 8, 8]", "head.pyramid=8", "crops.margin=8"])
    best = train(config, tmp_path / "head", places, codec_from=tmp_path / "codec/last.pt")
    assert 0 <= best["miou"] <= 1
    model = trained_model(load_checkpoint(tmp_path / "head/last.pt"))
    assert not torch.equal(model.head.scale, torch.ones(4))  # it knows its channels' spreads


def test_a_mixed_crop_has_a_rectangle_of_the_crop_before_and_its_labels():
    image = np.stack([np.full((64, 64, 3), 40 * k, np.uint8) for k in range(5)])
    data = DataSet("flat", list(image), [np.full((64, 64), k, np.uint8) for k in range(5)], "")
    plain, mixed = (Crops([data], [1.0], 64, 8, 1, (1.0, 1.0), 0.0, mix=share).batch(3) for share in (0.0, 1.0))
    assert torch.equal(mixed.inputs[:, 0] / 40, mixed.labels.float())
    for k in range(8):
        pasted = int(plain.labels[k - 1, 0, 0])
        share = float((mixed.labels[k] == pasted).float().mean())
        assert set(mixed.labels[k].unique().tolist()) <= {pasted, int(plain.labels[k, 0, 0])}
        assert pasted == int(plain.labels[k, 0, 0]) or 1 / 20 < share < 2 / 3
    again = Crops([data], [1.0], 64, 8, 1, (1.0, 1.0), 0.0, mix=1.0).batch(3)
    assert torch.equal(mixed.inputs, again.inputs)


def test_a_groups_pixels_count_for_all_its_classes():
    label = np.array([[0] * 50 + [GROUPS_FROM] * 50], np.uint8)
    data = DataSet("groups", [np.zeros((1, 100, 3), np.uint8)], [label], "", groups=((1, 2),))
    fine = DataSet("fine", data.images, [np.array([[0] * 50 + [1] * 25 + [2] * 25], np.uint8)], "")
    assert torch.allclose(class_weights([data], 4), class_weights([fine], 4))
