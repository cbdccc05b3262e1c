"""Dataset restoration: codecs and their rates, restorers and their training, the matrix; real codecs and ONNX Runtime."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from support.restoring import FACTS, tree, wake  # noqa: E402

from percodec.export.data.sets import load  # noqa: E402
from percodec.export.evaluate.codecs import CODECS  # noqa: E402
from percodec.export.evaluate.compute import count_parameters  # noqa: E402
from percodec.export.restore import restorer as restorer_module  # noqa: E402
from percodec.export.restore.lossy import AtQuality, open_lossy, quality_at  # noqa: E402
from percodec.export.restore.mirror import mirror, rates_of  # noqa: E402
from percodec.export.restore.networks import Discriminator, Residual  # noqa: E402
from percodec.export.restore.pairs import Pairs  # noqa: E402
from percodec.export.restore.restorer import KEY, Restorer  # noqa: E402
from percodec.export.restore.shift import Source, Twin, lowest, plan, run_cells, serves, summarise  # noqa: E402
from percodec.export.restore.to_onnx import restorer_graph  # noqa: E402
from percodec.export.restore.train import Objective, build_restorer, train_restorer  # noqa: E402
from percodec.export.restore.transforms import Compress, Restore  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import DataError, UsageError  # noqa: E402


def test_a_compressed_set_has_the_names_the_labels_and_the_measured_rates(camvid, twin):
    assert {n for n in tree(twin) if not n.startswith("percodec-data")} == set(tree(camvid))
    for name, data in tree(camvid).items():
        if "_labels" in name:
            assert (twin / name).read_bytes() == data
    original, compressed = load(f"camvid:{camvid}:val"), load(f"camvid:{twin}:val")
    codec = CODECS["jpeg"]
    for k, name in enumerate(sorted(p.name for p in (camvid / "val").iterdir())):
        data = codec.encode(original.images[k], 10)
        np.testing.assert_array_equal(compressed.images[k], codec.decode(data, 0, 0))
        assert rates_of(twin / "val")[name] == len(data) * 8 / (176 * 240)
    assert original.origin is None
    assert compressed.origin["codec"] == {"name": "jpeg", "quality": 10.0}


def test_a_rate_is_the_best_quality_that_keeps_it(camvid):
    images = load(f"camvid:{camvid}:train").images
    codec = open_lossy("jpeg:0.5", images)
    assert isinstance(codec, AtQuality)

    def bpp(quality):
        return sum(len(codec.codec.encode(p, quality)) for p in images) * 8 / sum(p.shape[0] * p.shape[1] for p in images)

    assert bpp(codec.quality) <= 0.5 < bpp(codec.quality + 1)
    assert quality_at(CODECS["jpeg"], 1e-6, images) == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("jpeg", "write it as"),
        ("mp3:0.1", "write it as"),
        ("jpeg:low", "neither a rate"),
        ("jpeg:nan", "neither a rate"),
        ("jpeg:0", "above 0"),
        ("jpeg:30", "write jpeg:q30"),
        ("jpeg:q400", "not on the codec's scale"),
        ("percodec:", "write it as"),
    ],
)
def test_a_codec_that_is_none(spec, said):
    with pytest.raises(UsageError, match=said):
        open_lossy(spec, [np.zeros((16, 16, 3), np.uint8)])


@pytest.mark.parametrize("name", ["jpeg:0.6", "jpeg2000:0.6", "webp:0.6", "avif:0.6", "hevc:0.6"])
def test_every_codec_yields_pictures_and_bytes(camvid, name):
    image = load(f"camvid:{camvid}:val").images[0]
    data, shown = open_lossy(name, [image]).round_trip(image)
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    assert 0.1 < len(data) * 8 / image[..., 0].size <= 0.6
    assert np.abs(shown.astype(int) - image).mean() < 12


def test_our_own_codec_on_any_size(tiny_folder, camvid):
    codec = open_lossy(f"percodec:{tiny_folder}")
    image = load(f"camvid:{camvid}:val").images[0][:75, :101]
    data, shown = codec.round_trip(image)
    assert shown.shape == image.shape
    assert 0 < len(data) < 4000


@pytest.mark.skipif(find_spec("compressai") is None, reason="CompressAI is not installed (see percodec.export.restore.hyperprior)")
def test_the_hyperprior(tmp_path, camvid):
    from percodec.export.restore.hyperprior import mean_scale_hyperprior
    from percodec.export.train.checkpoint import save_checkpoint

    torch.manual_seed(1)
    path = tmp_path / "best.pt"
    save_checkpoint(path, {"model": mean_scale_hyperprior(8, 12).state_dict(), "config": {"hyperprior": {"n": 8, "m": 12}}})
    image = load(f"camvid:{camvid}:val").images[0][:100]
    codec = open_lossy(f"hyperprior:{path}")
    data, shown = codec.round_trip(image)
    assert shown.shape == image.shape
    assert data == codec.round_trip(image)[0]
    assert not [m for m in sys.modules if m.startswith("torch_geometric")]


def test_the_onnx_file_is_the_network_at_any_size_and_rate(tmp_path):
    network = wake(Residual(width=8, blocks=2))
    path = tmp_path / "r.onnx"
    path.write_bytes(restorer_graph(network, None, {KEY: json.dumps(FACTS)}))
    ours = Restorer(path)
    rng = np.random.default_rng(1)
    for height, width, bpp in ((48, 64, 0.1), (160, 88, 0.9)):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        with torch.no_grad():
            wanted = network(torch.from_numpy(image).permute(2, 0, 1)[None].float(), torch.tensor([bpp]))
        wanted = wanted.clamp(0, 255)[0].permute(1, 2, 0).numpy()
        found = ours.restore(image, bpp).astype(float)
        assert np.abs(found - wanted).max() < 1.5  # weights are stored as FP16
    image = rng.integers(0, 256, (45, 51, 3), np.uint8)
    assert ours.restore(image, 0.1).shape == image.shape
    np.testing.assert_array_equal(ours.restore(image, 5.0), ours.restore(image, 1.0))  # rates beyond those learned
    assert (ours.restore(image, 1.0) != ours.restore(image, 0.05)).any()


def test_tiles_change_nothing(tmp_path, monkeypatch):
    path = tmp_path / "r.onnx"
    path.write_bytes(restorer_graph(wake(Residual(width=8, blocks=6)), None, {KEY: json.dumps(FACTS)}))
    ours = Restorer(path)
    image = np.random.default_rng(1).integers(0, 256, (200, 312, 3), np.uint8)
    whole = ours.restore(image, 0.1).astype(int)
    monkeypatch.setattr(restorer_module, "TILE", 96)
    assert np.abs(ours.restore(image, 0.1) - whole).max() <= 1
    monkeypatch.setattr(restorer_module, "MARGIN", 0)
    assert np.abs(ours.restore(image, 0.1) - whole).max() > 1  # the margin is needed


def test_sizes_of_the_networks():
    assert 20_000 < count_parameters(build_restorer(load_config("restore-corrector", [])).restorer) < 27_000
    assert count_parameters(Residual()) == count_parameters(build_restorer(load_config("restore-gan", [])).restorer)
    assert [v.shape[0] for v in Discriminator(8)(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64))] == [2, 2]


def test_each_term_teaches_whom_it_should(camvid, twin):
    """The restorer is not taught by the discriminator's loss, nor the discriminator by the restorer's."""
    from percodec.export.restore.pairs import PairCrops

    pairs = Pairs(camvid / "train", [twin / "train"])
    batch = PairCrops(pairs, None, 64, 2, 1).batch(0)
    config = load_config(
        "restore-gan", ["restorer.features=0", "restorer.judge=8", "restorer.width=8", "restorer.blocks=1", "restorer.l1=0"]
    )
    for adversarial, restored, judged in ((0.0001, True, True), (1.0, True, True)):
        config["restorer"]["adversarial"] = adversarial
        model = build_restorer(config)
        wake(model.restorer)
        objective = Objective(model, config, None)
        loss, _ = objective(batch)
        loss.backward()
        grads = {n: float(p.grad.abs().sum()) for n, p in model.named_parameters() if p.grad is not None}
        assert (sum(v for n, v in grads.items() if n.startswith("restorer.")) > 0) == restored
        assert (sum(v for n, v in grads.items() if n.startswith("discriminator.")) > 0) == judged
        if adversarial == 0.0001:
            small = dict(grads)
        else:  # its weight scales the restorer's gradient and leaves the discriminator's alone
            for n, v in grads.items():
                if n.startswith("discriminator."):
                    assert v == pytest.approx(small[n], rel=1e-4)
                elif v > 1e-6:
                    assert v == pytest.approx(1e4 * small[n], rel=1e-2)


def test_training_brings_pictures_closer_and_resumes_exactly(camvid, twin, tmp_path):
    sets = ["restorer.width=12", "restorer.blocks=1", "crops.size=64", "crops.batch=4", "schedule.lr=0.003", "schedule.ema=0.8"]
    config = load_config("restore-l1", [*sets, "schedule.steps=60", "schedule.checkpoint_every=20", "schedule.validate_every=60"])
    record = train_restorer(config, tmp_path / "a", camvid / "train", [twin / "train"])
    clean, compressed = load(f"camvid:{camvid}:train").images, load(f"camvid:{twin}:train").images
    before = np.mean([10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in zip(clean, compressed, strict=True)])
    assert record["psnr"] > before + 0.1
    ours = Restorer(tmp_path / "a" / "restorer.onnx")
    assert ours.facts["trained_on"] == [{"name": "jpeg", "quality": 10.0}]
    assert ours.facts["bpp"] == [min(rates_of(twin / "train").values()), max(rates_of(twin / "train").values())]

    class Stop(Exception):
        pass

    def stop(step, steps, values):
        if step == 37:
            raise Stop

    with pytest.raises(Stop):
        train_restorer(config, tmp_path / "b", camvid / "train", [twin / "train"], progress=stop)
    train_restorer(config, tmp_path / "b", camvid / "train", [twin / "train"])
    a, b = (torch.load(tmp_path / k / "best.pt", weights_only=True)["model"] for k in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_features_and_adversary_of_a_whole_run(camvid, twin, tmp_path):
    from percodec.export.train.from_config import train

    head = load_config("lab-segmentation", ["head.name=resnet50-d", "head.input=original", "head.width=0.0625", "crops.views=0"])
    head["crops"] |= {"size": 64, "batch": 2}
    head["schedule"] |= {"steps": 1, "validate_every": 1}
    train(head, tmp_path / "head", {"camvid": str(camvid)})
    config = load_config("restore-gan", ["restorer.width=8", "restorer.blocks=1", "restorer.judge=8", "restorer.task=0.5"])
    config["crops"] |= {"size": 64, "batch": 2}
    config["schedule"] |= {"steps": 2, "validate_every": 2}
    network = tmp_path / "head" / "best.pt"
    train_restorer(config, tmp_path / "r", camvid / "train", [twin / "train"], network=network)
    first = (tmp_path / "r" / "train.csv").read_text().splitlines()[0]
    assert all(term in first for term in ("l1", "features", "task", "adversarial", "judge"))
    assert all("frozen" not in k for k in torch.load(tmp_path / "r" / "best.pt", weights_only=True)["model"])
    with pytest.raises(UsageError, match="need --network"):
        train_restorer(config, tmp_path / "x", camvid / "train", [twin / "train"])


def test_a_restorer_of_latents(tiny_folder, tmp_path):
    from percodec.sdk.bundle import Bundle

    bundle = Bundle.open(tiny_folder)
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(1)
    for k in range(3):
        image = np.kron(rng.integers(0, 256, (bundle.frame_height // 8, bundle.frame_width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(image).save(source / f"{k}.png")
    config = load_config("restore-latent", ["restorer.features=0", "restorer.width=8", "restorer.blocks=2", "restorer.judge=8"])
    config["crops"] |= {"size": 32, "batch": 2}
    config["schedule"] |= {"steps": 2, "validate_every": 2}
    train_restorer(config, tmp_path / "r", source, [], bundle)
    mirror(source, tmp_path / "packets", Compress(f"percodec:{tiny_folder}", packets=True))
    work = Restore(tmp_path / "r" / "restorer.onnx", tmp_path / "packets", tiny_folder)
    summary = mirror(tmp_path / "packets", tmp_path / "out", work)
    assert summary["pictures"] == 3
    assert summary["restorer"]["bundle"] == bundle.digest
    model = build_restorer(config, bundle.latent_shape[0])
    model.load_state_dict(torch.load(tmp_path / "r" / "best.pt", weights_only=True)["model"])
    from percodec.sdk.codec import PacketCodec

    symbols = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]).decode((tmp_path / "packets" / "0.png.pcpk").read_bytes())[1]
    with torch.no_grad():
        wanted = model(torch.from_numpy(bundle.centers[symbols])[None], torch.tensor([0.1])).clamp(0, 255)[0].permute(1, 2, 0)
    assert np.abs(np.asarray(Image.open(tmp_path / "out" / "0.png")).astype(float) - wanted.numpy()).max() < 1.5
    with pytest.raises(UsageError, match="give --bundle"):
        Restore(tmp_path / "r" / "restorer.onnx", tmp_path / "packets").open()
    with pytest.raises(DataError, match="reads packets"):
        mirror(source, tmp_path / "out2", work)


def test_the_matrix_is_every_network_on_what_it_is_shown():
    source = Source.of("camvid:/data")
    low = Twin("jpeg-q1", Path("/t/low"), 0.1, {"name": "jpeg", "quality": 1.0}, "jpeg:q1")
    cells = plan(source, [low], {"jpeg-q1": {"restored": Path("/t/r"), "l1": Path("/t/l")}}, [1, 2], {"jpeg-q1"})
    assert [c.run for c in cells[:5]] == [
        "original-s1",
        "jpeg-q1-compressed-s1",
        "jpeg-q1-mixed-s1",
        "jpeg-q1-restored-s1",
        "jpeg-q1-l1-s1",
    ]
    assert [c.run for c in cells[5:]] == ["original-s2", "jpeg-q1-compressed-s2", "jpeg-q1-restored-s2"]  # rivals: the first seed
    assert len(plan(source, [low], {"jpeg-q1": {"l1": Path("/t/l")}}, [1, 2], {"jpeg-q1"}, every=True)) == 8
    assert cells[0].shown == {"O": Path("/data"), "C jpeg-q1": Path("/t/low"), "R jpeg-q1": Path("/t/r")}
    assert cells[3].trained_on == {"root": Path("/t/r")}
    assert cells[3].shown == {"O": Path("/data"), "R": Path("/t/r")}
    high = Twin("jpeg-q9", Path("/t/high"), 0.3, {"name": "jpeg", "quality": 9.0}, "jpeg:q9")
    ours = Twin("percodec-b", Path("/t/b"), 0.2, {"name": "percodec", "bundle": "b", "digest": "d"}, "percodec:b")
    assert lowest([high, ours, low]) == [low, ours]
    assert serves(FACTS, low)
    assert not serves({**FACTS, "trained_on": [{"name": "avif"}]}, low)
    for spec in ("camvid", "folder:/x", "mars:/x"):
        with pytest.raises(UsageError, match="camvid:PATH"):
            Source.of(spec)


def test_a_network_that_cannot_be_trained_is_named_with_its_log(camvid, tmp_path):
    source = Source.of(f"camvid:{camvid}")
    cells = plan(source, [], {}, [1], set())
    with pytest.raises(DataError, match=r"train segmentation failed \(2\): see .*original-s1/log\.txt"):
        run_cells(cells, source, "lab-segmentation", ["head.name=none"], tmp_path, 1, print)
    assert "head.name" in (tmp_path / "runs" / "original-s1" / "log.txt").read_text()


def test_the_loss_is_split_as_the_letters_say():
    def row(matrix, method, miou, seed=1, codec="jpeg-q1"):
        bpp = None if method == "original" else 0.1
        return {"codec": codec, "bpp": bpp, "matrix": matrix, "method": method, "seed": seed, "miou": miou, "iou": []}

    rows = [row("OO", "original", 0.5, codec=None), row("OO", "original", 0.52, 2, codec=None), row("OC", "original", 0.3)]
    rows += [row("CC", "compressed", 0.45), row("CO", "compressed", 0.35), row("CO", "compressed", 0.37, 2)]
    rows += [row("RO", "restored", 0.47), row("RR", "restored", 0.44), row("OR", "original", 0.4), row("RO", "l1", 0.4)]
    ours, rival = summarise(rows)
    assert ours["information"] == pytest.approx(0.06)
    assert ours["shift"] == pytest.approx(0.09)
    assert (ours["of_seeds"], ours["nothing_done"]) == ([1], 0.35)  # what it brings counts against its own seed
    assert ours["gap_closed"] == pytest.approx((0.47 - 0.35) / (0.5 - 0.35))
    assert (ours["to_own"], ours["OR"], rival["method"], rival["to_original"]) == (0.44, 0.4, "l1", 0.4)


@pytest.mark.parametrize(
    ("more", "letters"),
    [
        ([], {"OO", "OC", "CO", "CC"}),
        pytest.param(["--mixed", "--restorer"], {"OO", "OC", "OR", "CO", "CC", "MO", "MC", "RO", "RR"}, marks=pytest.mark.long),
    ],
    ids=["two networks", "four networks"],
)
def test_shift_from_end_to_end(camvid, restorer, tmp_path, monkeypatch, capsys, more, letters):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["shift", "--data", f"camvid:{camvid}", "--codec", "jpeg:q5", *more]
    if more:
        words.append(f"restored={restorer}")
    sets = ["schedule.steps=2", "schedule.validate_every=2", "crops.size=64", "crops.batch=2", "crops.views=1", "head.width=0.0625"]
    words += [*(w for s in sets for w in ("--set", s)), "--out", str(tmp_path / "s")]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {r["matrix"] for r in result["cells"]} == letters
    assert len(result["cells"][0]["iou"]) == 11
    assert {"shift.json", "shift.html", "shift-matrix.png", "shift-methods.png", "shift-classes.png"} <= {
        p.name for p in (tmp_path / "s").iterdir()
    }
    assert "http" not in (tmp_path / "s" / "shift.html").read_text().replace("http://www.w3.org", "")
    assert str(tmp_path) not in (tmp_path / "s" / "shift.json").read_text()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "s" / "runs").rglob("best.pt")}
    assert main(words) == 0
    assert ("gap_closed" if more else "information") in capsys.readouterr().out
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "s" / "runs").rglob("best.pt")}


def test_an_unknown_network_is_named():
    with pytest.raises(UsageError, match=r"restorer\.network must be one of residual, corrector, latent, got 'unet'"):
        build_restorer(load_config("restore-l1", ["restorer.network=unet"]))
