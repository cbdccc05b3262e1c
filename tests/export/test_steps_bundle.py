"""A codec with a step for each channel as a bundle: what is exported, what runs in integers, what rebuilds pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from support.tiny_bundle import make_bundle  # noqa: E402

from percodec.export.bundles.from_checkpoint import export_bundle  # noqa: E402
from percodec.export.data import load_camvid  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import build_model, train  # noqa: E402
from percodec.runtime.session import Session  # noqa: E402
from percodec.sdk.bundle import Bundle  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import BundleError, UsageError  # noqa: E402
from percodec.sdk.log import read_log  # noqa: E402
from percodec.sdk.types import Frame  # noqa: E402

TINY = [
    "codec.channels=12",
    "codec.width=0.1",
    "loss.bpp=0.2",
    "loss.structure=0",
    "crops.size=64",
    "crops.batch=2",
    "schedule.steps=3",
    "schedule.warmup=1",
    'data.train=[["camvid:{camvid}:train", 1.0]]',
]


@pytest.fixture(scope="module")
def runs(camvid, tmp_path_factory):
    """A codec from its closed form, another decoder for it, and one on another encoder."""
    folder, places = tmp_path_factory.mktemp("runs"), {"camvid": str(camvid)}
    train(load_config("block", TINY), folder / "first", places, init="klt")
    fixed = load_config("block", [*TINY, "codec.fixed_encoder=true", "loss.structure=4000"])
    train(fixed, folder / "second", places, codec_from=folder / "first/best.pt")
    train(load_config("block", [*TINY, "seed=2"]), folder / "other", places)
    return folder


@pytest.fixture(scope="module")
def bundle(runs, camvid, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "steps"
    more = {"ms_ssim": runs / "second/best.pt"}
    return export_bundle(
        runs / "first/best.pt", out, "steps", {"camvid": str(camvid)}, 176, 240, "crop", say=lambda text: None, decoders=more
    )


def picture(seed: int = 3):
    from percodec.sdk.synthetic.road import RoadScene

    return RoadScene(seed, 176, 240).render(0)[0]


def test_a_fixed_encoder_stays_and_its_decoder_learns(runs):
    first, second = (load_checkpoint(runs / name / "best.pt")["model"] for name in ("first", "second"))
    changed = {k.split(".")[1] for k in first if not torch.equal(first[k], second[k])}
    assert changed == {"g_s"}


def test_the_manifest_says_how_each_channel_is_quantized(bundle):
    assert bundle.manifest["version"] == [1, 2]
    assert len(bundle.steps) == bundle.latent_shape[0] == 12
    assert bundle.levels == max(s.levels for s in bundle.steps)
    assert bundle.centers.size == 0
    assert bundle.decoders == ("", "ms_ssim")
    assert {"psnr_db", "ms_ssim"} <= bundle.manifest["metrics"]["decoders"]["decoder_ms_ssim"].keys()


def test_symbols_are_those_of_the_network_and_white_does_not_saturate(bundle, runs):
    codec = build_model(load_checkpoint(runs / "first/best.pt")["config"]).codec
    codec.load_state_dict({k.removeprefix("codec."): v for k, v in load_checkpoint(bundle.path)["model"].items()})
    white = np.full((176, 240, 3), 255, np.uint8)
    with Session.open(bundle) as session:
        for image in (picture(), white):
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            symbols = session.encode(Frame(image, 0, 0)).symbols
            assert (codec.quantizer.symbols(codec.analyse(x))[0].numpy() != symbols).mean() < 0.002
        restored = session.decode(session.encode(Frame(white, 0, 0)))
    assert np.abs(restored.astype(int) - 255).mean() < 8


def test_packets_bring_the_symbols_back_and_each_preference_has_its_decoder(bundle):
    with Session.open(bundle) as session:
        latent = session.encode(Frame(picture(), 5, 6))
        again = session.unpack(session.pack(latent))
        np.testing.assert_array_equal(again.symbols, latent.symbols)
        first, psnr, similar = (session.decode(again, prefer) for prefer in (None, "psnr", "ms-ssim"))
        np.testing.assert_array_equal(first, psnr)
        assert (first != similar).any()
        with pytest.raises(UsageError, match="psnr or ms-ssim"):
            session.decode(again, "vmaf")


def test_decode_takes_a_preference(bundle, tmp_path, capsys):
    from percodec.runtime.capture.images import write_image

    write_image(tmp_path / "in.png", picture())
    with_it = ["--bundle", str(bundle.path)]
    assert main(["encode", str(tmp_path / "in.png"), "-o", str(tmp_path / "a.pcpk"), *with_it]) == 0
    pictures = []
    for prefer in ("psnr", "ms-ssim"):
        out = tmp_path / prefer
        assert main(["decode", str(tmp_path / "a.pcpk"), "-o", str(out), "--prefer", prefer, *with_it]) == 0
        pictures.append((out / "reconstruction.png").read_bytes())
    assert pictures[0] != pictures[1]
    assert main(["decode", str(tmp_path / "a.pcpk"), "-o", str(tmp_path / "c"), "--prefer", "best", *with_it]) == 2
    assert main(["inspect", str(bundle.path)]) == 0
    assert "for 0" in capsys.readouterr().out


def test_a_bundle_without_that_decoder_says_which_it_has(tmp_path):
    with Session.open(make_bundle(tmp_path / "alone")) as session, pytest.raises(BundleError, match=r"decoder_ms_ssim \(it has: decoder\)"):
        session.decode(session.encode(Frame(picture(), 0, 0)), "ms-ssim")


def test_tables_are_of_the_channels_own_levels_and_save_what_contexts_save(bundle):
    tables = bundle.entropy_model
    assert tables.profile == 4
    assert tables.levels_per_channel == tuple(s.levels for s in bundle.steps)
    assert tables.offsets == tuple(s.offset for s in bundle.steps)
    symbols = bundle.selftest().symbols
    counts = [np.unique(symbols[:, c], return_counts=True)[1] for c in range(len(bundle.steps))]
    order_0 = sum(float(-(n * np.log2(n / n.sum())).sum()) for n in counts)
    assert sum(tables.cost_bits(z) for z in symbols) < order_0
    said = {
        **bundle.manifest["latent"],
        "steps": [{**bundle.manifest["latent"]["steps"][0], "offset": 0}, *bundle.manifest["latent"]["steps"][1:]],
    }
    with pytest.raises(BundleError, match=r"latent\.steps"):
        Bundle(bundle.path, {**bundle.manifest, "latent": said}, bundle.digest, {n: bundle.file(n) for n in bundle.manifest["files"]})


def test_a_decoder_of_another_encoder_is_refused(runs, camvid, tmp_path):
    with pytest.raises(UsageError, match="another encoder"):
        export_bundle(
            runs / "first/best.pt",
            tmp_path / "b",
            "b",
            {"camvid": str(camvid)},
            176,
            240,
            "crop",
            say=lambda text: None,
            decoders={"ms_ssim": runs / "other/best.pt"},
        )


def test_in_integers_the_convolution_is_the_symbol(bundle, camvid):
    val = load_camvid(camvid, "val")
    assert main(["build", str(bundle.path), "--precision", "int8", "--graph", "encoder", "--calibrate", "synthetic:4:1"]) == 0
    made = Bundle.open(bundle.path)
    with Session.open(made, backend="ort:fp32") as exact, Session.open(made, backend="ort:int8") as integer:
        for image in (*val.images[:2], np.full((176, 240, 3), 255, np.uint8), np.zeros((176, 240, 3), np.uint8)):
            one, other = (s.encode(Frame(image, 0, 0)).symbols.astype(int) for s in (exact, integer))
            assert np.abs(one - other).max() <= 1
            if image.std() > 0:  # one value everywhere may lie at a border: then a whole channel differs
                assert (one != other).mean() < 0.03


def test_a_stream_is_coded_with_what_frames_before_say(bundle, tmp_path, capsys):
    """`export --stream` adds tables of profile 5, `encode --stream` writes packets by them, `decode` and `replay` read them."""
    made, drive = tmp_path / "with", "synthetic://road?frames=12&seed=3"
    assert main(["export", str(bundle.path), "--stream", "--stream-from", f"{drive}@:8", "--out", str(made)]) == 0
    opened = Bundle.open(made)
    assert opened.stream_model is not None
    assert opened.stream_model.profile == 5
    assert opened.answers_to(bundle.digest)
    logs = {}
    for name, words in (("alone", []), ("stream", ["--stream", "--key-every", "6"])):
        assert main(["encode", drive, "-o", str(tmp_path / f"{name}.mcap"), "--bundle", str(made), *words]) == 0
        assert main(["decode", str(tmp_path / f"{name}.mcap"), "-o", str(tmp_path / name), "--bundle", str(made)]) == 0
        logs[name] = [record.packet for record in read_log(tmp_path / f"{name}.mcap")]
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "stream.mcap"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key_packets"] == 2
    sizes = [[len(packet) for packet in log] for log in logs.values()]
    assert [a == b for a, b in zip(*sizes, strict=True)] == [k % 6 == 0 for k in range(12)]
    assert sum(sizes[1][8:]) < 0.95 * sum(sizes[0][8:])
    with Session.open(made, heads=()) as session:
        stream = session.stream()
        for one, other in zip(*logs.values(), strict=True):
            np.testing.assert_array_equal(session.unpack(one).symbols, stream.unpack(other).symbols)


def test_training_goes_on_from_a_bundle_and_refined_from_block(bundle, camvid, tmp_path):
    """A bundle has no model of its rate: it is learned again. What `refined` has more adds nothing before it has learned."""
    said: list[str] = []
    started = train(
        load_config("refined", [*TINY, "schedule.steps=1", "schedule.lr=1e-9"]), tmp_path / "more", {"camvid": str(camvid)},
        codec_from=bundle.path, say=said.append,
    )  # fmt: skip
    assert any(line.startswith("contexts: ") for line in said)
    assert started["bpp_contexts"] == pytest.approx(bundle.manifest["metrics"]["bpp_coded"], rel=0.5)
    assert started["psnr"] == pytest.approx(bundle.manifest["metrics"]["psnr_db"], abs=0.3)
    with pytest.raises(UsageError, match="holds another codec"):
        train(load_config("block", [*TINY, "codec.channels=10"]), tmp_path / "other", {"camvid": str(camvid)}, codec_from=bundle.path)
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def with_head(runs, camvid, tmp_path_factory):
    """A head on the codec's latents, as a bundle of the frames that it was trained on."""
    folder, places = tmp_path_factory.mktemp("head"), {"camvid": str(camvid)}
    few = ["schedule.steps=30", "crops.weather=0", "crops.rare=0", "crops.mix=0", "head.widths=[8, 12, 16]", "head.pyramid=8"]
    config = load_config("road", [*TINY, "codec.name=block", *few])
    train(config, folder / "run", places, codec_from=runs / "first/best.pt")
    return export_bundle(folder / "run/best.pt", folder / "small", "small", places, 176, 240, "crop", say=lambda text: None)


def test_a_head_reads_a_large_frame_as_the_small_one(with_head, camvid, tmp_path):
    cv2 = pytest.importorskip("cv2")
    large = export_bundle(with_head.path, tmp_path / "large", "large", {"camvid": str(camvid)}, 352, 480, "crop", say=print, shrink=2)
    assert large.manifest["provenance"]["config"]["head"]["shrink"] == 2
    image = picture()
    with Session.open(with_head) as small, Session.open(large) as twice:
        wanted = small.predict(small.encode(Frame(image, 0, 0))).labels
        enlarged = np.ascontiguousarray(cv2.resize(image, (480, 352), interpolation=cv2.INTER_CUBIC))
        got = twice.predict(twice.encode(Frame(enlarged, 0, 0))).labels
    assert got.shape == (352, 480)
    assert len(np.unique(wanted)) > 1
    assert (got == wanted.repeat(2, 0).repeat(2, 1)).mean() > 0.6  # of a head of thirty steps; those that have learned reach 0.95


def test_the_smaller_latent_is_that_of_the_smaller_picture(runs):
    from percodec.export.models import shrunk

    codec = build_model(load_checkpoint(runs / "first/best.pt")["config"]).codec
    weights = load_checkpoint(runs / "first/best.pt")["model"]
    codec.load_state_dict({k.removeprefix("codec."): v for k, v in weights.items() if k.startswith("codec.")})
    codec.eval()
    made = shrunk(torch.nn.Identity(), codec, [picture(k) for k in range(4)], 2)
    small = torch.from_numpy(picture(9)).permute(2, 0, 1)[None].float()
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 255).round()
    with torch.no_grad():
        wanted, got = codec.encode(small).q, made(codec.encode(large).q)
    error, power = ((a**2).mean((0, 2, 3)) for a in (got - wanted, wanted))
    assert (error[:3] < 0.2 * power[:3]).all()
    on_steps = got / codec.quantizer.step.view(1, -1, 1, 1)
    assert torch.allclose(on_steps, on_steps.round(), atol=1e-4)


def test_a_shrunk_head_keeps_its_weights_in_a_bundle_and_learns_no_more(runs, with_head, camvid, tmp_path):
    places = {"camvid": str(camvid)}
    large = export_bundle(with_head.path, tmp_path / "large", "large", places, 352, 480, "crop", say=lambda text: None, shrink=2)
    again = export_bundle(large.path, tmp_path / "again", "large", places, 704, 480, "crop", say=lambda text: None)
    with Session.open(large) as one, Session.open(again) as other:
        tall = np.ascontiguousarray(np.vstack([picture(4).repeat(2, 0).repeat(2, 1)] * 2))
        first, second = (s.predict(s.encode(Frame(tall[: s.bundle.frame_height], 0, 0))).labels for s in (one, other))
    assert (first[:200] == second[:200]).mean() > 0.9
    with pytest.raises(UsageError, match="as it is"):
        export_bundle(large.path, tmp_path / "twice", "large", places, 704, 960, "crop", say=lambda text: None, shrink=2)
    with pytest.raises(UsageError, match="has none"):
        export_bundle(runs / "first/best.pt", tmp_path / "bare", "bare", places, 352, 480, "crop", say=lambda text: None, shrink=2)
    with pytest.raises(UsageError, match="multiples of 32"):
        export_bundle(with_head.path, tmp_path / "odd", "odd", places, 360, 480, "crop", say=lambda text: None, shrink=4)
    with pytest.raises(UsageError, match=r"head\.shrink"):
        train(load_config("road", ["head.shrink=2"]), tmp_path / "run", places)


def test_heads_of_codecs_with_shared_levels_are_not_shrunk():
    from percodec.export.models import LatentFPN, fast, shrunk

    with pytest.raises(UsageError, match="linear codecs"):
        shrunk(LatentFPN(16, 3), fast(), [picture()], 2)


def test_a_head_goes_on_from_one_on_another_codec_with_its_first_layer_anew(runs, with_head, camvid, tmp_path):
    """Here on six shared levels: all layers but the first are the other's, whose latents are seen for their spread."""
    said, places = [], {"camvid": str(camvid)}
    few = ["head.widths=[8, 12, 16]", "head.pyramid=8", "schedule.steps=1", "schedule.lr=1e-9", "crops.weather=0"]
    train(load_config("edge", [*TINY, "codec.width=1", "codec.levels=6"]), tmp_path / "edge", places)
    config = load_config("road", [*TINY, "codec.width=1", "codec.name=edge", "codec.levels=6", "codec.channels=16", *few])
    with pytest.raises(UsageError, match="another codec"):
        train(config, tmp_path / "no", places, codec_from=tmp_path / "edge/best.pt", head_from=with_head.path)
    config = load_config("road", [*TINY, "codec.width=1", "codec.name=edge", "codec.levels=6", *few])
    train(config, tmp_path / "edge-head", places, codec_from=tmp_path / "edge/best.pt")
    wide = load_config("block", [*TINY, "codec.channels=10"])
    train(wide, tmp_path / "block", places, init="klt")
    config = load_config("road", [*TINY, "codec.name=block", "codec.channels=10", *few])
    start = tmp_path / "edge-head/best.pt"
    train(config, tmp_path / "moved", places, codec_from=tmp_path / "block/best.pt", head_from=start, say=said.append)
    assert any("first layer starts anew" in line for line in said)
    one, other = load_checkpoint(start)["model"], load_checkpoint(tmp_path / "moved/best.pt")["model"]
    assert torch.allclose(one["head.stage8.0.body.0.0.weight"], other["head.stage8.0.body.0.0.weight"], atol=1e-5)
    assert other["head.stem.0.weight"].shape[1] == 10
    assert other["head.scale"].std() > 0
