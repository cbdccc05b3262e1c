"""What each graph takes and gives: said by the manifest since format 1.1, by the graph's name before."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import array_graph, classification_graph, decoder_graph, head_graph

from percodec.sdk import Bundle, BundleError, EntropyModel, GraphInfo, Label, TensorInfo, extend_bundle
from percodec.sdk.bundle.engines import EngineKey, read_engine, write_engine
from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts
from percodec.sdk.errors import EngineError

SYMBOLS = TensorInfo("symbols", "uint8", (4, 8, 12))
IMAGE = TensorInfo("image", "uint8", (64, 96, 3))
OWN = (Label(0, "day", (1, 2, 3)), Label(1, "night", (4, 5, 6)), Label(2, "tunnel", (7, 8, 9)))
DEPTH = GraphInfo("head_depth", "array", "fp32", (SYMBOLS,), (TensorInfo("depth", "float32", (8, 12)), TensorInfo("mean", "float32", (4,))))
LIGHT = GraphInfo("head_light", "classification", "fp32", (SYMBOLS,), (TensorInfo("probs", "float32", (3,)),), OWN)
ZONES = GraphInfo("head_zones", "segmentation", "fp32", (SYMBOLS,), (TensorInfo("labels", "uint8", (64, 96)),), OWN)
HEADS = [(DEPTH, array_graph()), (LIGHT, classification_graph()), (ZONES, head_graph())]


def predicted_tables(channels: int = 4, levels: int = 6, temporal: bool = True) -> EntropyModel:
    bins = (MEAN_BINS, SPREAD_BINS)
    blank = ChannelContexts((), *(np.zeros(n - 1, np.int8) for n in bins), np.zeros(MEAN_BINS * SPREAD_BINS, np.uint8), 0)
    cdf = np.stack([EntropyModel.from_counts(np.ones((1, levels), np.int64)).cdf for _ in range(channels)])
    return EntropyModel(cdf, Contexts((blank,) * channels, levels, 1, temporal))


@pytest.fixture
def full(pristine: Path, tmp_path: Path) -> Bundle:
    return extend_bundle(Bundle.open(pristine), tmp_path / "full", heads=HEADS, stream_model=predicted_tables())


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def as_1_0(manifest: dict[str, Any]) -> None:
    manifest["version"] = [1, 0]
    for graph in manifest["graphs"].values():
        for key in ("task", "inputs", "outputs"):
            del graph[key]


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    edit(folder, lambda m: m["files"].update({name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}))


def test_the_manifest_describes_every_graph(pristine: Path) -> None:
    bundle = Bundle.open(pristine)
    assert bundle.manifest["version"] == [1, 2]
    labels = TensorInfo("labels", "uint8", (64, 96))
    assert dict(bundle.graphs) == {
        "encoder": GraphInfo("encoder", "encoder", "fp32", (IMAGE,), (SYMBOLS,)),
        "head_segmentation": GraphInfo("head_segmentation", "segmentation", "fp32", (SYMBOLS,), (labels,), bundle.labels),
        "decoder": GraphInfo("decoder", "decoder", "fp32", (SYMBOLS,), (IMAGE,)),
    }
    assert bundle.heads == ("segmentation",)
    assert bundle.stream_model is None
    with pytest.raises(TypeError):
        bundle.graphs["encoder"] = bundle.graphs["decoder"]  # type: ignore[index]


def test_a_bundle_of_format_1_0_is_described_the_same(pristine: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(pristine, tmp_path / "old"))
    edit(old, as_1_0)
    assert Bundle.open(old).graphs == Bundle.open(pristine).graphs
    put(old, "head_classification_small.onnx", classification_graph())
    entry = {"file": "head_classification_small.onnx", "precision": "fp32"}
    edit(old, lambda m: m["graphs"].update(head_classification_small=entry))
    head = Bundle.open(old).head("classification_small")
    assert head.outputs == (TensorInfo("probs", "float32", (3,)),)
    assert head.labels == Bundle.open(old).labels
    edit(old, lambda m: m["graphs"].update(head_depth=m["graphs"].pop("head_classification_small")))
    with pytest.raises(BundleError, match="unknown graph 'head_depth'"):
        Bundle.open(old)


def test_heads_of_every_task_stream_tables_and_what_they_supersede_are_read_back(pristine: Path, full: Bundle) -> None:
    before = Bundle.open(pristine)
    assert full.heads == ("segmentation", "depth", "light", "zones")
    assert [full.head(name) for name in ("depth", "head_light", "zones")] == [DEPTH, LIGHT, ZONES]
    assert full.head() is full.graphs["head_segmentation"]
    assert full.stream_model == predicted_tables()
    assert full.entropy_model == before.entropy_model
    assert all(full.file(name) == before.file(name) for name in before.manifest["files"])
    assert full.answers_to(before.digest)
    assert full.answers_to(full.digest)
    assert not full.answers_to(before.digest[:-1])
    assert not before.answers_to(full.digest)


def test_what_is_superseded_is_handed_on_unless_stream_tables_change(pristine: Path, full: Bundle, tmp_path: Path) -> None:
    before = Bundle.open(pristine)
    again = extend_bundle(full, tmp_path / "again", name="again")
    assert (again.name, again.stream_model) == ("again", full.stream_model)
    assert again.answers_to(full.digest)
    assert again.answers_to(before.digest)
    counts = np.ones((1, 6), np.int64) * 7
    counts[0, 0] = 1
    cdf = np.stack([EntropyModel.from_counts(counts).cdf] * 4)
    assert full.stream_model is not None
    other = extend_bundle(full, tmp_path / "other", stream_model=EntropyModel(cdf, full.stream_model.contexts))
    assert not other.answers_to(full.digest), "its predicted packets are not those of the other"


def test_an_unknown_head_is_told_with_those_there_are(pristine: Path, full: Bundle, tmp_path: Path) -> None:
    for wrong in ("deep", "", "head_head_depth", "encoder"):
        with pytest.raises(BundleError, match=r"no head .* \(it has: segmentation, depth, light, zones\)"):
            full.head(wrong)
    without = Path(shutil.copytree(pristine, tmp_path / "without"))
    edit(without, lambda m: m["graphs"].pop("head_segmentation"))
    assert Bundle.open(without).heads == ()
    for name in (None, "segmentation"):
        with pytest.raises(BundleError, match=r"has no head; .*--head"):
            Bundle.open(without).head(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["graphs"]["head_depth"].pop("task"), "graphs.head_depth lacks 'task'"),
        (lambda m: m["graphs"]["head_depth"].update(task="encoder"), "graphs.head_depth.task"),
        (lambda m: m["graphs"]["head_segmentation"].update(task="array"), "graphs.head_segmentation.task must be one of segmentation"),
        (lambda m: m["graphs"]["encoder"].update(task="array"), "graphs.encoder.task must be one of encoder"),
        (lambda m: m["graphs"].update(head_Depth=m["graphs"]["head_depth"]), "unknown graph 'head_Depth'"),
        (lambda m: m["graphs"].update(head_head_depth=m["graphs"]["head_depth"]), "unknown graph 'head_head_depth'"),
        (lambda m: m["graphs"].update({"head_" + "x" * 61: m["graphs"]["head_depth"]}), "unknown graph 'head_xxx"),
        (lambda m: m["graphs"]["head_depth"]["inputs"].update(image={"dtype": "uint8", "shape": [1]}), "head_depth.inputs must be symbols"),
        (lambda m: m["graphs"]["head_depth"]["inputs"]["symbols"].update(shape=[4, 8, 13]), "head_depth.inputs must be symbols"),
        (lambda m: m["graphs"]["head_depth"]["inputs"]["symbols"].update(dtype="int8"), "head_depth.inputs must be symbols"),
        (lambda m: m["graphs"]["encoder"]["inputs"]["image"].update(shape=[64, 96, 4]), "encoder.inputs must be image uint8"),
        (lambda m: m["graphs"]["decoder"].update(outputs=m["graphs"]["head_zones"]["outputs"]), "decoder.outputs must be image"),
        (lambda m: m["graphs"]["head_zones"]["outputs"]["labels"].update(shape=[32, 96]), "head_zones.outputs must be labels uint8"),
        (lambda m: m["graphs"]["head_zones"]["outputs"]["labels"].update(dtype="int64"), "head_zones.outputs must be labels uint8"),
        (lambda m: m["graphs"]["head_light"]["outputs"]["probs"].update(dtype="float16"), "head_light.outputs must be probs float32"),
        (lambda m: m["graphs"]["head_light"]["outputs"]["probs"].update(shape=[3, 1]), "head_light.outputs must be probs float32"),
        (lambda m: m["graphs"]["head_light"]["outputs"]["probs"].update(shape=[]), "head_light.outputs must be probs float32"),
        (lambda m: m["graphs"]["head_light"]["labels"].pop(), "head_light.labels must be one class for each of the 3"),
        (lambda m: m["graphs"]["head_light"]["labels"][1].update(id=2), "head_light.labels[1].id"),
        (lambda m: m["graphs"]["head_depth"].update(labels=m["labels"]), "head_depth.labels must be absent"),
        (lambda m: m["graphs"]["head_depth"].update(outputs={}), "head_depth.outputs must be 1..16 tensors"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(dtype="float64"), "outputs.depth.dtype must be one of uint8"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(dtype="object"), "outputs.depth.dtype must be one of uint8"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(shape=[0]), "outputs.depth.shape[0] must be an integer in 1.."),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(shape=[True]), "outputs.depth.shape[0] must be an integer"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(shape=[1 << 13, 1 << 14]), "at most 67108864 elements"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(shape=[1] * 9), "outputs.depth.shape must be a list of 0..8"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(range=1), "unknown key 'range'"),
        (lambda m: m["graphs"]["head_depth"]["outputs"].update({"../x": {"dtype": "uint8", "shape": [1]}}), "names '../x'"),
        (lambda m: m["graphs"]["head_depth"]["outputs"].update(deep=m["graphs"]["head_depth"]["outputs"].pop("depth")), "no output 'deep'"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(shape=[12, 8]), "'depth' is float32 [1, 8, 12] with the batch"),
        (lambda m: m["graphs"]["head_depth"]["outputs"]["depth"].update(dtype="float16"), "'depth' is float32 [1, 8, 12]"),
        (lambda m: m["stream"].update(file="nowhere"), "stream.file must be a file listed"),
        (lambda m: m["stream"].update(file="entropy.pcem"), "entropy.pcem has 4 channels, 6 levels, profile 0; the manifest says 4, 6, 2"),
        (lambda m: m["stream"].update(file="entropy.pcem", profile=0), "predicted packets need those of profile 2"),
        (lambda m: m["supersedes"].append("abc"), "supersedes[1]"),
        (lambda m: m.update(supersedes="0" * 64), "supersedes must be a list"),
        (lambda m: m.update(supersedes=["0" * 64] * 65), "supersedes must be a list"),
        (lambda m: m.update(version=[1, -1]), "version must be"),
        (lambda m: m.update(version=[1, 0]), "unknown key"),
    ],
)
def test_a_wrong_description_is_refused_by_field(full: Bundle, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edit(full.path, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(full.path)
    assert words in str(caught.value)


def test_stream_tables_of_another_latent_are_refused(pristine: Path, tmp_path: Path) -> None:
    for wrong in (predicted_tables(channels=5), predicted_tables(levels=7)):
        with pytest.raises(BundleError, match=r"stream\.pcem has .* channels, . levels, profile 2; the manifest says 4, 6, 2"):
            extend_bundle(Bundle.open(pristine), tmp_path / "wrong", stream_model=wrong)
    with pytest.raises(BundleError, match="profile 1, predicted packets need"):
        extend_bundle(Bundle.open(pristine), tmp_path / "wrong", stream_model=predicted_tables(temporal=False))
    assert not list(tmp_path.iterdir())


def test_a_head_is_added_once_and_holds_to_the_operators(full: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has head_depth already"):
        extend_bundle(full, tmp_path / "twice", heads=[(DEPTH, array_graph())])
    other = GraphInfo("head_other", *(getattr(DEPTH, key) for key in ("task", "precision", "inputs", "outputs")))
    with pytest.raises(BundleError, match=r"head_other\.onnx has no output 'depth' \(it has: image\)"):
        extend_bundle(full, tmp_path / "wrong", heads=[(other, decoder_graph())])
    with pytest.raises(BundleError, match="operator 'Sign'"):
        extend_bundle(full, tmp_path / "wrong", heads=[(other, array_graph().replace(b"Cast", b"Sign"))])
    with pytest.raises(BundleError, match="exists"):
        extend_bundle(full, full.path)
    assert extend_bundle(full, full.path, overwrite=True).answers_to(full.digest)


def test_engines_come_along_under_the_new_digest(pristine: Path, tmp_path: Path) -> None:
    before = Bundle.open(Path(shutil.copytree(pristine, tmp_path / "before")))
    sha = hashlib.sha256(before.graph("encoder")).hexdigest()
    key = EngineKey(before.digest, "encoder", sha, sha, "int8", "host", "ort", "onnx", "", "", (), ())
    record = write_engine(before.path, key, b"engine", {"layers": 3})
    (before.path / "engines/calibration").mkdir()
    (before.path / "engines/calibration/encoder-minmax.json").write_bytes(b"{}")
    after = extend_bundle(before, tmp_path / "after", heads=HEADS)
    here = {"flavour": "ort", "version": "onnx"}
    assert read_engine(after, "host", "int8", "encoder", here) == (b"engine", {"layers": 3})
    assert (after.path / "engines/calibration/encoder-minmax.json").read_bytes() == b"{}"
    shutil.copy(record, after.path / "engines/host-int8")
    with pytest.raises(EngineError, match="built for something else: bundle"):
        read_engine(after, "host", "int8", "encoder", here)
    (before.path / "engines/host-int8/encoder.onnx").write_bytes(b"enginE")
    with pytest.raises(EngineError, match="altered"):
        extend_bundle(before, tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()
