"""Evaluation: codecs at measured sizes, bundles at any frame size, one report for all."""

from __future__ import annotations

import gc
import json
import re

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
image_module = pytest.importorskip("PIL.Image", reason="needs the export extra")

from percodec.export.bundles.from_checkpoint import export_bundle  # noqa: E402
from percodec.export.data.sets import load  # noqa: E402
from percodec.export.engines.graph_function import graph_function  # noqa: E402
from percodec.export.evaluate.any_size import BundleAtAnySize  # noqa: E402
from percodec.export.evaluate.bundle_metrics import evaluate_bundle  # noqa: E402
from percodec.export.evaluate.codecs import CODECS, at_most, codec_of  # noqa: E402
from percodec.export.evaluate.perception import rows_of_metrics  # noqa: E402
from percodec.export.evaluate.rd import at_rate, curve, measure  # noqa: E402
from percodec.export.evaluate.report import SCHEMA, render_table, report, write_report  # noqa: E402
from percodec.export.models import Classifier, ResNet, edge, theis3  # noqa: E402
from percodec.export.models.to_onnx import Head, graphs  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import train  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402
from percodec.sdk.synthetic.road import RoadScene  # noqa: E402

SMALL = [
    "codec.name=edge",
    "codec.channels=4",
    "head.width=0.125",
    "crops.size=64",
    "crops.batch=2",
    "crops.views=1",
    "schedule.steps=2",
    "schedule.warmup=1",
]


@pytest.fixture(scope="module")
def picture():
    return RoadScene(5, 176, 240).render(0)[0]


@pytest.fixture(scope="module")
def runs(camvid, tmp_path_factory):
    root, places = tmp_path_factory.mktemp("runs"), {"camvid": str(camvid)}
    only = 'data.train=[["camvid:{camvid}:train", 1]]'
    train(load_config("edge", ["codec.channels=4", "loss.bpp=0.1", *SMALL[3:5], *SMALL[6:], only]), root / "codec", places)
    codec = root / "codec/best.pt"
    cells = {
        "seg51": ("segmentation", "cresnet51-d", "latent"),
        "seg50": ("segmentation", "resnet50-d", "decoded"),
        "cls39": ("classification", "cresnet39", "latent"),
        "cls50": ("classification", "resnet50", "decoded"),
        "rgb": ("segmentation", "resnet50-d", "original"),
    }
    for name, (task, network, reads) in cells.items():
        config = load_config(f"lab-{task}", [*SMALL, f"head.name={network}", f"head.input={reads}"])
        train(config, root / name, places, codec, views=root / "views")
    return root


@pytest.fixture(scope="module")
def bundle(runs, camvid, tmp_path_factory):
    more = tuple(runs / name / "best.pt" for name in ("seg50", "cls39", "cls50"))
    out = tmp_path_factory.mktemp("bundles") / "lab"
    return export_bundle(runs / "seg51/best.pt", out, "lab", {"camvid": str(camvid)}, 176, 240, "crop", say=lambda text: None, more=more)


@pytest.mark.parametrize("name", CODECS)
def test_files_grow_along_the_ladder_and_come_back(name, picture):
    codec = codec_of(name)
    ends = [codec.encode(picture, q) for q in (codec.qualities[0], codec.qualities[len(codec.qualities) // 2], codec.qualities[-1])]
    assert len(ends[0]) < len(ends[1]) < len(ends[2])
    restored = [codec.decode(data, *picture.shape[:2]) for data in ends]
    assert all(r.shape == picture.shape and r.dtype == np.uint8 for r in restored)
    found = [measure(picture, r)["psnr_db"] for r in restored]
    assert found[0] < found[1] < found[2]
    assert found[2] > 30


@pytest.mark.parametrize("name", CODECS)
def test_a_budget_is_kept_and_used(name, picture):
    codec = codec_of(name)
    budget = 0.6 * picture.shape[0] * picture.shape[1] / 8
    restored, size = at_most(codec, picture, budget)
    assert size <= budget
    bigger = [q for q in codec.qualities if size < len(codec.encode(picture, q))]
    assert not bigger or len(codec.encode(picture, bigger[0])) > budget
    assert restored.shape == picture.shape
    smallest = len(codec.encode(picture, codec.qualities[0]))
    assert at_most(codec, picture, 1)[1] == smallest  # what cannot be done is told by the size


def test_unknown_codecs_are_refused():
    with pytest.raises(UsageError, match="jpeg2000"):
        codec_of("gif")


def test_a_curve_averages_over_pictures_and_can_be_read_between_its_points(picture):
    points = curve(codec_of("jpeg"), [picture, picture[:88]], most_bpp=1.0)
    assert [p["bpp"] for p in points] == sorted(p["bpp"] for p in points)
    middle = (points[0]["bpp"] + points[1]["bpp"]) / 2
    assert at_rate(points, middle, "psnr_db") == pytest.approx((points[0]["psnr_db"] + points[1]["psnr_db"]) / 2)
    assert at_rate(points, points[0]["bpp"] / 2, "psnr_db") is None


@pytest.mark.parametrize("make", [edge, theis3])
def test_a_graph_of_one_size_takes_any(make):
    torch.manual_seed(2)
    codec = make(4).eval()
    frames = np.random.default_rng(1).integers(0, 256, (3, 96, 128, 3), dtype=np.uint8)
    small, large = graphs(codec, {}, 64, 64), graphs(codec, {}, 96, 128)
    for name, given in (("encoder", frames), ("decoder", graph_function(large["encoder"][1])(frames))):
        assert small[name][1] == large[name][1]
        run = graph_function(small[name][1])
        assert np.array_equal(run(given), np.concatenate([run(one[None]) for one in given]))


def test_a_classifier_takes_the_crop_it_was_trained_on():
    torch.manual_seed(2)
    codec = edge(4).eval()
    head = {"head_classification": Head(Classifier(ResNet("cresnet39", 4, 0.125), 5).eval(), "classification")}
    small, large = graphs(codec, head, 64, 64), graphs(codec, head, 96, 96)
    symbols = np.random.default_rng(1).integers(0, 6, (1, 4, 12, 12), dtype=np.uint8)
    a = graph_function(small["head_classification"][1])(symbols)
    assert np.allclose(a, graph_function(large["head_classification"][1])(symbols), atol=1e-6)
    assert a.sum() == pytest.approx(1, abs=1e-5)


def test_a_bundle_holds_several_heads_and_each_is_judged(bundle, camvid):
    names = {"head_segmentation", "head_segmentation_resnet50", "head_classification", "head_classification_resnet50"}
    assert names <= set(bundle.manifest["graphs"])
    found = evaluate_bundle(bundle, load(f"camvid:{camvid}:val"))
    assert set(found["heads"]) == names
    assert found["miou"] == found["heads"]["head_segmentation"]["miou"]
    assert found["heads"]["head_classification_resnet50"]["kind"] == "presence"
    assert bundle.manifest["provenance"]["heads"]["head_classification"]["config"]["head"]["name"] == "cresnet39"


def test_evaluating_the_bundle_gives_what_its_manifest_says(bundle, camvid, capsys):
    assert main(["evaluate", "segmentation", "--bundle", str(bundle.path), "--data", f"camvid:{camvid}:val", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(r["network"], r["input"]) for r in rows] == [("cresnet51-d", "latent"), ("resnet50-d", "decoded")]
    assert rows[0]["miou"] == pytest.approx(bundle.manifest["metrics"]["miou"])
    assert rows[0]["bpp"] == pytest.approx(bundle.manifest["metrics"]["bpp_coded"])


def test_a_head_on_another_codec_does_not_enter_a_bundle(runs, camvid, tmp_path):
    only = 'data.train=[["camvid:{camvid}:train", 1]]'
    places = {"camvid": str(camvid)}
    sets = ["codec.channels=4", "loss.bpp=0.1", "seed=9", *SMALL[3:5], *SMALL[6:], only]
    train(load_config("edge", sets), tmp_path / "other", places)
    with pytest.raises(UsageError, match="another codec"):
        export_bundle(tmp_path / "other/best.pt", tmp_path / "b", "b", places, 176, 240, "crop", more=(runs / "seg51/best.pt",))
    with pytest.raises(UsageError, match="no codec"):
        export_bundle(runs / "rgb/best.pt", tmp_path / "b", "b", places, 176, 240, "crop")


def test_a_head_added_to_a_bare_codec_is_known_by_its_own_run(runs, camvid, tmp_path):
    places, more = {"camvid": str(camvid)}, (runs / "seg51/best.pt",)
    made = export_bundle(runs / "codec/best.pt", tmp_path / "b", "b", places, 176, 240, "crop", say=lambda text: None, more=more)
    assert [r["network"] for r in rows_of_metrics(made, "segmentation", made.manifest["metrics"])] == ["cresnet51-d"]


def test_a_bundle_exported_anew_has_all_its_heads(bundle, camvid, tmp_path):
    places = {"camvid": str(camvid)}
    made = export_bundle(bundle.path, tmp_path / "b", "lab", places, 176, 240, "crop", say=lambda text: None)
    old, new = bundle.manifest, made.manifest
    assert set(new["graphs"]) == set(old["graphs"])
    assert {g: h["config"] for g, h in new["provenance"]["heads"].items()} == {
        g: h["config"] for g, h in old["provenance"]["heads"].items()
    }
    symbols = bundle.selftest().symbols[:1]
    for graph in set(new["graphs"]) - {"encoder"}:
        a, b = (graph_function(each.graph(graph))(symbols).astype(float) for each in (bundle, made))
        assert np.mean(np.abs(a - b) > 1e-3 * np.abs(a).max()) < 5e-3, graph


def test_rivals_get_the_bundles_bytes(bundle, runs, camvid, tmp_path, capsys):
    words = ["evaluate", "segmentation", "--checkpoint", str(runs / "rgb/best.pt"), "--bundle", str(bundle.path)]
    more = ["--data", f"camvid:{camvid}:val", "--rivals", "webp,resize", "--json", "--out", str(tmp_path)]
    assert main([*words, *more]) == 0
    assert (tmp_path / "segmentation.png").stat().st_size > 10_000
    rows = {r["input"]: r for r in json.loads(capsys.readouterr().out)["rows"] if r["trained_on"] == "original"}
    assert set(rows) == {"original", "decoded", "webp", "resize"}
    assert rows["resize"]["bytes"] <= rows["decoded"]["bytes"]
    assert "bytes" not in rows["original"]


def test_rd_and_storage_from_the_command_line(bundle, tmp_path, capsys, picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, (h, w) in enumerate(((176, 240), (192, 181))):  # the second is no multiple of 8 and of another size
        image_module.fromarray(np.tile(picture, (2, 2, 1))[:h, :w]).save(folder / f"{k}.png")
    out = tmp_path / "report"
    words = ["evaluate", "rd", "--images", str(folder), "--bundle", str(bundle.path), "--codecs", "jpeg,hevc", "--out", str(out)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "percodec lab" in text
    result = json.loads((out / "rd.json").read_text())
    assert result["schema"] == SCHEMA
    assert {r["codec"] for r in result["rows"]} == {"percodec lab", "jpeg", "hevc"}
    assert (out / "rd.png").stat().st_size > 10_000
    page = (out / "rd.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"https?:", page)
    assert str(tmp_path) not in page + json.dumps(result)  # nobody's paths
    assert bundle.digest[:12] in page  # enough of it to tell bundles apart
    assert bundle.digest not in page
    words = ["evaluate", "storage", "--images", str(folder), "--bundle", str(bundle.path), "--total-gb", "144", "--json"]
    assert main([*words, "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "percodec evaluate storage --bundle lab --images pictures --total-gb 144.0"
    assert (out / "storage.png").stat().st_size > 5_000
    files, packets = found["rows"]
    assert files["megabytes"] == pytest.approx(sum(p.stat().st_size for p in folder.iterdir()) / 1e6)
    assert files["gb_of_total"] == pytest.approx(144)
    assert packets["gb_of_total"] == pytest.approx(144 / packets["ratio"])
    assert packets["kbit_per_s"] == pytest.approx(packets["bpp"] * 1920 * 1080 * 10 / 1e3)
    assert packets["mb_per_minute"] == pytest.approx(packets["kbit_per_s"] * 60 / 8e3)


def test_sessions_of_earlier_sizes_are_let_go(bundle, picture):
    ours = BundleAtAnySize(bundle)

    def sessions() -> int:
        gc.collect()
        return sum(type(o) is ort.InferenceSession for o in gc.get_objects())

    before = sessions()
    for side in (64, 72, 80, 88, 96):  # a folder of photographs has a hundred sizes
        ours.round_trip(np.ascontiguousarray(picture[:side, :side]))
    assert sessions() - before <= 2


def test_compute_from_the_command_line(tmp_path, capsys):
    assert main(["evaluate", "compute", "--no-timing", "--width", "0.125", "--json", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "compute.png").stat().st_size > 10_000
    rows = {r["network"]: r for r in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["theis3 encoder"]["kmac_per_pixel"] == pytest.approx(70.9, abs=0.1)
    assert rows["cresnet51-d"]["gmac"] < 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["rd"], "--images"),
        (["rd", "--images", "/nowhere/at/all"], "not a folder"),
        (["rd", "--images", "/", "--codecs", "gif"], "no codec 'gif'"),
        (["segmentation"], "--data"),
        (["segmentation", "--data", "camvid:/nowhere:val"], "--bundle"),
        (["storage", "--images", "/"], "--bundle"),
        (["compute", "--width", "0"], "--width"),
        (["compute", "--limit", "0"], "--limit"),
        (["nonsense"], "invalid choice"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(words, reason, capsys):
    try:
        code = main(["evaluate", *words])
    except SystemExit as e:
        code = int(e.code or 0)
    assert code != 0
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error


def test_the_report_escapes_what_it_is_given(tmp_path):
    result = report("storage", "percodec <b>", {"name": "<script>"}, [{"stored_as": "<i>", "ratio": 2.0, "pictures": 12345}], ["a & b"])
    write_report(result, tmp_path)
    page = (tmp_path / "storage.html").read_text()
    assert "<script>" not in page
    assert "&lt;i&gt;" in page
    table = render_table(result["rows"])
    assert "12,345" in table
    assert table.splitlines()[0].startswith("stored_as")
