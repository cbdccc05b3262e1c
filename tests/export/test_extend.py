"""`percodec export BUNDLE --head`, `--stream`: a new bundle with all of the old one and more, or one line that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.tiny_bundle import array_graph, classification_graph, encoder_graph, frames, head_graph, make_bundle

from percodec.export.bundles.stream_tables import stream_pairs
from percodec.export.bundles.user_heads import color_of
from percodec.runtime.images import write_image
from percodec.sdk import Bundle, Label, PacketCodec, TensorInfo
from percodec.sdk.cli import main
from percodec.sdk.codec import VideoCodec

ROAD = "synthetic://road?frames=12&seed=3"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def export(tiny: Bundle, tmp_path: Path) -> Callable[..., Bundle]:
    def run(*words: str) -> Bundle:
        assert main(["export", str(tiny.path), "--out", str(tmp_path / "new"), *words]) == 0
        return Bundle.open(tmp_path / "new")

    return run


@pytest.fixture
def refused(tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def run(*words: str, said: str) -> None:
        assert main(["export", str(tiny.path), "--out", str(tmp_path / "new"), *words]) in (1, 2)
        error = capsys.readouterr().err
        assert error.startswith("percodec: error: ")
        assert error.count("\n") == 1
        assert said in error, error
        assert not (tmp_path / "new").exists()

    return run


def saved(folder: Path, data: bytes) -> str:
    (folder / "net.onnx").write_bytes(data)
    return str(folder / "net.onnx")


def changed(data: bytes, change: Callable[[Any], object]) -> bytes:
    model = onnx.load_model_from_string(data)
    change(model.graph)
    return bytes(model.SerializeToString())


def test_heads_of_every_task_are_added_and_nothing_else_changes(tiny: Bundle, export: Callable[..., Bundle], tmp_path: Path) -> None:
    for name, data in (("depth", array_graph()), ("light", classification_graph()), ("zones", head_graph())):
        (tmp_path / f"{name}.onnx").write_bytes(data)
    (tmp_path / "light.json").write_text('["day", "night", "tunnel"]')
    heads = [
        f"depth={tmp_path}/depth.onnx:array",
        f"light={tmp_path}/light.onnx:classification",
        f"zones={tmp_path}/zones.onnx:segmentation",
    ]
    words = [word for head in heads for word in ("--head", head)]
    made = export(*words, "--head-labels", f"light={tmp_path}/light.json", "--name", "more")
    assert (made.name, made.heads) == ("more", ("segmentation", "depth", "light", "zones"))
    assert made.answers_to(tiny.digest)
    assert all(made.graph(name) == tiny.graph(name) for name in tiny.graphs)
    assert made.file("entropy.pcem") == tiny.file("entropy.pcem")
    assert made.graph("head_depth") == array_graph()
    assert made.head("depth").outputs == (TensorInfo("depth", "float32", (8, 12)), TensorInfo("mean", "float32", (4,)))
    assert made.head("light").labels == tuple(Label(k, name, color_of(k)) for k, name in enumerate(("day", "night", "tunnel")))
    assert [label.name for label in made.head("zones").labels] == ["class 0", "class 1", "class 2"]
    assert len({label.color for label in made.head("zones").labels}) == 3
    assert b"head_depth | array | depth float32 [8, 12], mean float32 [4]" in made.file("MODEL_CARD.md")
    assert str(tmp_path) not in json.dumps(made.manifest)


def test_a_free_batch_and_labels_in_a_text_file_will_do(export: Callable[..., Bundle], tmp_path: Path) -> None:
    free = changed(head_graph(), lambda g: [setattr(v.type.tensor_type.shape.dim[0], "dim_param", "N") for v in (*g.input, *g.output)])
    (tmp_path / "names.txt").write_text("air\n house \n\nstreet\n")
    made = export("--head", f"own={saved(tmp_path, free)}:segmentation", "--head-labels", f"own={tmp_path}/names.txt")
    assert [label.name for label in made.head("own").labels] == ["air", "house", "street"]


def renamed(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name


def unbatched(graph: Any) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    graph.node.append(helper.make_node("Squeeze", ["depth", "first"], ["flat"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [8, 12]))


def scored(graph: Any) -> None:
    """Without its Softmax: scores below 0 and above 1."""
    graph.node.remove(next(n for n in graph.node if n.op_type == "Softmax"))
    renamed(graph, "three", "probs")


@pytest.mark.parametrize(
    ("data", "task", "said"),
    [
        (b"hello", "array", "net.onnx is not an ONNX model"),
        (changed(array_graph(), lambda g: setattr(g.node[0], "op_type", "NonZero")), "array", "uses the operator 'NonZero'"),
        (changed(array_graph(), lambda g: renamed(g, "symbols", "x")), "array", "must take one input, symbols uint8 [1 or N, 4, 8, 12]"),
        (array_graph(72, 96), "array", "it takes symbols uint8 [1, 4, 9, 12]"),
        (encoder_graph(), "array", "it takes image uint8 [1, 64, 96, 3]"),
        (changed(array_graph(), lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 1)), "array", "it takes symbols float32"),
        (
            changed(array_graph(), lambda g: g.input[0].type.tensor_type.shape.dim[2].Clear()),
            "array",
            "it takes symbols uint8 [1, 4, 'N', 12]",
        ),
        (
            changed(array_graph(), lambda g: g.input[0].type.tensor_type.shape.dim[0].Clear()),
            "segmentation",
            "must give labels uint8 [1, 64, 96]",
        ),
        (changed(array_graph(), unbatched), "array", "must give arrays that begin with the batch dimension, it gives flat float32 [8, 12]"),
        (changed(array_graph(), lambda g: renamed(g, "depth", "a/b")), "array", "names 'a/b'; give the tensor a name"),
        (changed(array_graph(), lambda g: setattr(g.node[1], "op_type", "Softmax")), "array", "does not run in ONNX Runtime"),
        (head_graph(), "classification", "must give probs float32 [1,K]"),
        (changed(classification_graph(), scored), "classification", "gives probs outside 0..1; end it with Softmax or Sigmoid"),
    ],
)
def test_a_network_that_does_not_fit_is_told_what_where_and_how(
    refused: Callable[..., None], tmp_path: Path, data: bytes, task: str, said: str
) -> None:
    refused("--head", f"own={saved(tmp_path, data)}:{task}", said=said)


def test_arguments_are_checked_before_anything_is_written(refused: Callable[..., None], tmp_path: Path) -> None:
    net = saved(tmp_path, array_graph())
    (tmp_path / "two.txt").write_text("a\nb")
    (tmp_path / "bad.json").write_text('["a", 1]')
    zones = tmp_path / "zones.onnx"
    zones.write_bytes(head_graph())
    for head, said in [
        (net, "write it as NAME=FILE.onnx:TASK"),
        (f"own={net}", "write it as NAME=FILE.onnx:TASK"),
        (f"own={net}:depth", "the task must be one of segmentation, classification, array"),
        (f"Own={net}:array", "a name is 1 to 60 of a-z"),
        (f"head_own={net}:array", "without head_ before it"),
        (f"segmentation={net}:array", "has a head of this name already"),
        (f"own={tmp_path}/none.onnx:array", "cannot be read (No such file or directory)"),
    ]:
        refused("--head", head, said=said)
    refused("--head", f"own={net}:array", "--head", f"own={net}:array", said="give each head a name of its own")
    labelled = ("--head", f"zones={zones}:segmentation", "--head-labels")
    refused(*labelled, f"other={tmp_path}/two.txt", said="names other, which no --head does")
    refused(*labelled, f"zones={tmp_path}/two.txt", said="names 2 classes")
    refused(*labelled, f"zones={tmp_path}/bad.json", said="different names of 1 to 60 characters")
    refused(*labelled, f"zones={tmp_path}/none", said="cannot be read")
    refused(*labelled, "zones", said="write it as NAME=FILE")
    refused("--head", f"own={net}:array", "--head-labels", f"own={tmp_path}/two.txt", said="has no classes")
    refused("--stream", said="--stream and --stream-from go together")
    refused("--stream-from", ROAD, said="--stream and --stream-from go together")
    refused("--stream", "--stream-from", f"{ROAD}@4:5", said="holds no two frames")
    refused("--stream", "--stream-from", f"{ROAD}@11:", said="holds no two consecutive frames")
    refused("--stream", "--stream-from", str(tmp_path / "none.mp4"), said="none.mp4")


def test_stream_tables_are_learned_and_save_bytes(tiny: Bundle, export: Callable[..., Bundle], tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    for k, image in enumerate(frames(8)):
        write_image(tmp_path / "drive" / f"{k}.png", image)
    made = export("--stream", "--stream-from", f"{tmp_path}/drive", "--stream-from", f"{ROAD}@:6")
    assert made.stream_model is not None
    assert made.stream_model.profile == 2
    assert made.answers_to(tiny.digest)
    assert made.graphs == tiny.graphs
    assert made.manifest["provenance"]["stream"] == [
        {"source": f"{tmp_path.name}/drive", "pairs": 7},
        {"source": f"{ROAD}@:6", "pairs": 5},
    ]
    pairs = stream_pairs(tiny, str(tmp_path / "drive"))
    latents = [pairs[0, :4], *pairs[:, 4:]]
    video, alone = VideoCodec(made.entropy_model, made.stream_model, 8, 12), PacketCodec(made.entropy_model, 8, 12)
    sizes = [len(video.encode(z, k, k)) for k, z in enumerate(latents)]
    assert sum(sizes[1:]) < sum(len(alone.encode(z, 0, 0)) for z in latents[1:])
    assert export("--stream", "--stream-from", f"{tmp_path}/drive", "--stream-from", f"{ROAD}@:6", "--overwrite").digest == made.digest


def test_pairs_are_of_consecutive_frames_and_spread_over_the_source(tiny: Bundle) -> None:
    whole = stream_pairs(tiny, ROAD)
    assert whole.shape == (11, 8, 8, 12)
    assert np.array_equal(whole[:-1, 4:], whole[1:, :4])
    assert np.array_equal(stream_pairs(tiny, f"{ROAD}@3:7"), whole[3:6])
    few = stream_pairs(tiny, ROAD, most=3)
    at = [next(k for k, pair in enumerate(whole) if np.array_equal(pair, one)) for one in few]
    assert len(at) == 3
    assert at[0] == 0
    assert at[-1] >= 8


def test_an_unreadable_picture_ends_it(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    for k, image in enumerate(frames(3)):
        write_image(tmp_path / "drive" / f"{k}.png", image)
    (tmp_path / "drive" / "1.png").write_bytes(b"gone")
    refused("--stream", "--stream-from", f"{tmp_path}/drive", said="1.png: not a readable image")
