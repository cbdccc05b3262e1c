"""From a trained checkpoint to a bundle whose graphs compute what torch computes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.bundles.from_checkpoint import check_parity, count_symbols, export_bundle  # noqa: E402
from percodec.export.data import load_camvid  # noqa: E402
from percodec.export.engines.graph_function import graph_function  # noqa: E402
from percodec.export.evaluate.bundle_metrics import evaluate_bundle  # noqa: E402
from percodec.export.models import LatentFPN, edge, theis3  # noqa: E402
from percodec.export.models.to_onnx import DecoderGraph, EncoderGraph, Head, SegmentationGraph, graphs  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import build_model, train  # noqa: E402
from percodec.sdk.bundle import Bundle  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import BundleError, DataError, SelfTestError  # noqa: E402

TINY = [
    "head.widths=[8, 8, 8]",
    "head.pyramid=8",
    "codec.channels=4",
    "loss.bpp=0.1",
    "crops.size=64",
    "crops.batch=2",
    "schedule.steps=8",
    "schedule.warmup=2",
    'data.train=[["camvid:{camvid}:train", 1.0]]',
]


@pytest.fixture(scope="module")
def run(camvid, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(load_config("road-edge", TINY), folder, {"camvid": str(camvid)})
    return folder


@pytest.fixture(scope="module")
def bundle(run, camvid, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    return export_bundle(run / "best.pt", out, "tiny", {"camvid": str(camvid)}, 176, 240, "crop", say=lambda text: None)


def test_a_run_is_exported_with_a_head_of_ones_own_and_stream_tables(bundle, run, camvid, tmp_path):
    words = ["export", str(run / "best.pt"), "--data", f"camvid={camvid}", "--size", "240x176", "--out", str(tmp_path / "more"), "--json"]
    words += ["--head", f"own={bundle.path}/head_segmentation.onnx:segmentation"]
    assert main([*words, "--stream", "--stream-from", "synthetic://road?frames=3"]) == 0
    more = Bundle.open(tmp_path / "more")
    assert more.heads == ("segmentation", "own")
    assert len(more.head("own").labels) == len(bundle.labels)
    assert more.stream_model is not None
    assert more.manifest["provenance"]["stream"][0]["pairs"] == 2
    assert more.graph("encoder") == bundle.graph("encoder")


def test_the_bundle_opens_and_carries_its_origin(bundle, run):
    again = Bundle.open(bundle.path)
    assert again.digest == bundle.digest
    assert (again.frame_height, again.frame_width, again.latent_shape) == (176, 240, (4, 22, 30))
    origin = again.manifest["provenance"]
    assert origin["config"] == json.loads((run / "config.json").read_text())
    assert len(origin["data"]) == 2
    assert all(len(d["digest"]) == 64 for d in origin["data"])
    text = json.dumps(again.manifest)
    assert str(run) not in text  # nobody's paths
    assert "mIoU" in again.file("MODEL_CARD.md").decode()


def test_a_codec_alone_makes_a_bundle_without_a_head(camvid, tmp_path):
    overrides = ["codec.channels=4", *TINY[3:]]
    best = train(load_config("edge", overrides), tmp_path / "run", {"camvid": str(camvid)})
    assert json.loads((tmp_path / "run/best.json").read_text()) == best
    bundle = export_bundle(
        tmp_path / "run/best.pt", tmp_path / "codec", "codec", {"camvid": str(camvid)}, 176, 240, "crop", say=lambda text: None
    )
    assert set(bundle.manifest["graphs"]) == {"encoder", "decoder"}
    assert bundle.labels == ()
    assert "miou" not in bundle.manifest["metrics"]


def test_metrics_are_of_whole_packets(bundle, camvid):
    metrics = bundle.manifest["metrics"]
    assert metrics["bpp_coded"] == pytest.approx(metrics["packet_bytes_mean"] * 8 / (176 * 240))
    assert metrics["bpp_coded"] > metrics["bpp_entropy"] > 0
    assert 0 <= metrics["miou"] <= 1
    assert evaluate_bundle(bundle, load_camvid(camvid, "val"))["psnr_db"] == pytest.approx(metrics["psnr_db"])


def test_pictures_of_another_size_are_refused(bundle, camvid):
    data = load_camvid(camvid, "val")
    wrong = type(data)(data.name, [data.images[0][:100]], [], "")
    with pytest.raises(DataError, match="240x100"):
        evaluate_bundle(bundle, wrong)


@pytest.mark.parametrize("make", [edge, theis3])
def test_graphs_equal_torch_with_batch_norm_folded(make):
    torch.manual_seed(3)
    codec, head = make(6), LatentFPN(6, 5, (8, 8, 8), 8)
    for _ in range(3):  # give batch norm something to fold
        quantized, _ = codec(torch.rand(2, 3, 64, 64) * 255)
        head(quantized.q)
    codec.eval(), head.eval()
    frame = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = graphs(codec, {"head_segmentation": Head(head, "segmentation")}, 64, 64)
    assert max(check_parity(made, [frame]).values()) <= 1e-3
    with torch.no_grad():  # the folded graph against the network as trained: only FP16 rounding of weights lies between
        plain = codec.quantizer.symbols(codec.g_a(codec.normalize(torch.from_numpy(frame)[None].permute(0, 3, 1, 2).float())))
    symbols = graph_function(made["encoder"][1])(frame[None])
    assert symbols.dtype == np.uint8
    assert (symbols != plain.numpy()).mean() < 0.02


def test_parity_past_its_limit_stops_the_export():
    torch.manual_seed(3)
    codec = edge(4).eval()
    made = graphs(codec, {}, 64, 64)
    other = graphs(edge(4).eval(), {}, 64, 64)
    frame = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(SelfTestError, match="disagree"):
        check_parity({**made, "encoder": (made["encoder"][0], other["encoder"][1])}, [frame])


def test_tables_count_every_symbol_of_the_training_set(bundle, camvid):
    data = load_camvid(camvid, "train")
    counts = count_symbols(graph_function(bundle.graph("encoder")), data, 176, 240, 6)
    assert counts.shape == (4, 6, 6)
    assert (counts.sum((1, 2)) == len(data) * 22 * 30 // 2).all()
    assert bundle.entropy_model.profile == 3


def test_training_goes_on_from_a_bundle(bundle, camvid, tmp_path):
    """What the bundle holds comes back as networks that compute what its graphs compute, and that learn."""
    state = load_checkpoint(bundle.path)
    model = build_model(state["config"])
    model.load_state_dict(state["model"])
    tests, model = bundle.selftest(), model.eval()
    with torch.no_grad():
        symbols = EncoderGraph(model.codec)(torch.from_numpy(tests.frames.copy())).numpy()
        labels = SegmentationGraph(model.codec, model.head, "latent")(torch.from_numpy(tests.symbols.copy())).numpy()
        image = DecoderGraph(model.codec)(torch.from_numpy(tests.symbols[:1].copy())).numpy()
    assert np.mean(symbols != tests.symbols) < 1e-3
    assert np.mean(labels != tests.labels) < 5e-3
    assert np.abs(image.astype(int) - graph_function(bundle.graph("decoder"))(tests.symbols[:1])).max() <= 1
    assert torch.allclose(model.codec.quantizer.centers, torch.from_numpy(bundle.centers), atol=1e-5)

    places = {"camvid": str(camvid)}
    train(load_config("road-edge", TINY), tmp_path / "joint", places, codec_from=bundle.path, head_from=bundle.path)
    origin = json.loads((tmp_path / "joint/codec.json").read_text())
    assert origin["bundle"] == bundle.digest
    assert origin["val"]["psnr"] == bundle.manifest["metrics"]["psnr_db"]
    made = export_bundle(tmp_path / "joint/best.pt", tmp_path / "made", "made", places, 176, 240, "crop", say=lambda text: None)
    assert made.manifest["provenance"]["codec"]["bundle"] == bundle.digest
    after = load_checkpoint(tmp_path / "joint/last.pt")["model"]
    for part in ("codec.g_a.", "codec.g_s.", "head."):
        assert any(not torch.equal(after[k], v) for k, v in state["model"].items() if k.startswith(part) and v.is_floating_point())


def test_a_bundle_is_exported_anew_for_another_frame_size(bundle, camvid, tmp_path):
    places = {"camvid": str(camvid)}
    made = export_bundle(bundle.path, tmp_path / "small", "small", places, 184, 248, "crop", say=lambda text: None, contexts=True)
    assert (made.latent_shape, made.entropy_model.profile, len(made.labels)) == ((4, 23, 31), 1, len(bundle.labels))
    old, new = (onnx.load_model_from_string(b.graph("encoder")).graph.initializer for b in (bundle, made))
    assert [t.SerializeToString() for t in old] == [t.SerializeToString() for t in new]
    metrics = made.manifest["metrics"]
    assert metrics["data"] == "camvid/val, cropped and resized to 248x184"
    assert metrics["pictures"] == bundle.manifest["metrics"]["pictures"]
    assert 0 < metrics["bpp_coded"] < 2
    assert 0 <= metrics["miou"] <= 1
    before, after = bundle.manifest["provenance"], made.manifest["provenance"]
    assert after.pop("bundle") == bundle.digest
    assert after == {**before, "commit": after["commit"]}


def test_a_bundle_that_does_not_say_what_it_was_trained_as_is_refused(bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(bundle.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for wrong, match in (
        (None, "does not name its networks"),
        ({"codec": {"name": "other"}}, "describes no networks"),
        ({"codec": {"width": 1e9}}, "codec.width must be above 0 and at most 4"),
        ({"codec": {"width": "wide"}}, "describes no networks"),
        ({"codec": []}, "describes no networks"),
        ({**manifest["provenance"]["config"], "codec": {"name": "theis3", "channels": 4}}, r"holds no codec.g_a.* of shape"),
    ):
        manifest["provenance"]["config"] = wrong
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(DataError, match=match):
            load_checkpoint(folder)
    with pytest.raises(BundleError):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("size", ["160x120", "483x360", "480", "16384x360"])
def test_frame_sizes_no_bundle_can_have_are_refused(bundle, tmp_path, capsys, size):
    assert main(["export", str(bundle.path), "--size", size, "--out", str(tmp_path / "out")]) == 2
    assert f"--size {size}" in capsys.readouterr().err.replace("'", "")
    assert not (tmp_path / "out").exists()
