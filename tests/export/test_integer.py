"""Encoders of blocks in integers: the same symbols but for rounding, and only where the form allows it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from percodec.export.bundles.steps_bundle import fit_levels  # noqa: E402
from percodec.export.engines.calibrate import measure  # noqa: E402
from percodec.export.engines.graph_function import graph_function  # noqa: E402
from percodec.export.engines.integer import integer_encoder  # noqa: E402
from percodec.export.engines.lint import lint  # noqa: E402
from percodec.export.engines.onnx_graph import plain  # noqa: E402
from percodec.export.engines.precision import Plan, make_explicit  # noqa: E402
from percodec.export.models import AUTOENCODERS  # noqa: E402
from percodec.export.models.to_onnx import graphs  # noqa: E402
from percodec.export.train.klt import klt_start  # noqa: E402
from percodec.sdk.bundle.onnx_ops import check_graph  # noqa: E402
from percodec.sdk.synthetic.road import RoadScene  # noqa: E402
from percodec.sdk.targets import target  # noqa: E402

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def frames():
    return [RoadScene(3 + k, HEIGHT, WIDTH).render(5 * k)[0][None] for k in range(8)]


def encoder(name: str, levels: int = 6) -> bytes:
    """With batch norm's statistics as if trained: layers whose outputs have unit variance."""
    torch.manual_seed(1)
    codec = AUTOENCODERS[name](8, levels, 1.0).train()
    with torch.no_grad():
        for _ in range(60):
            codec.encode(torch.nn.functional.interpolate(255 * torch.rand(4, 3, 16, 16), scale_factor=4, mode="bilinear"))
    return graphs(codec.eval(), {}, HEIGHT, WIDTH)["encoder"][1]


@pytest.mark.parametrize(("name", "levels"), [("fast", 2), ("fast", 6), ("fast", 17), ("balanced", 6)])
def test_symbols_are_those_of_the_float_graph_but_for_rounding(frames, name, levels):
    data = encoder(name, levels)
    ranges = measure(plain(data), frames)
    made = make_explicit(data, Plan("int8", activations="uint8"), ranges)
    assert made.report["convolutions"] == {"int8": 2 if name == "fast" else 4}
    kinds = {n.op_type for n in onnx.load_from_string(made.data).graph.node}
    assert kinds == {"Reshape", "Transpose", "QLinearConv", "Clip"}
    check_graph(made.data, "encoder")  # a bundle may hold it
    assert not lint(made.data, target("host"))
    assert lint(made.data, target("rtx-ada"))[0].severity == "error"  # TensorRT knows no QLinearConv
    one, other = graph_function(data), graph_function(made.data)
    differ = []
    for frame in frames:
        a, b = one(frame)[0].astype(int), other(frame)[0].astype(int)
        assert a.shape == b.shape == (8, HEIGHT // 8, WIDTH // 8)
        assert np.abs(a - b).max() <= 1
        differ.append((a != b).mean())
    assert np.mean(differ) < 0.01 * levels
    black, white = np.zeros_like(frames[0]), np.full_like(frames[0], 255)
    for extreme in (black, white):  # beyond the ranges: bytes saturate, symbols stay levels
        assert int(other(extreme)[0].max()) < levels


def test_other_graphs_are_left_alone(frames):
    data = encoder("edge")
    model = plain(data)
    ranges = measure(model, frames)
    assert integer_encoder(model, ranges) is None
    uneven = plain(encoder("fast"))
    borders = [n.input[1] for n in uneven.graph.node if n.op_type == "Greater"]
    for tensor in uneven.graph.initializer:
        if tensor.name == borders[-1]:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 0.3, tensor.name))
    assert integer_encoder(uneven, measure(uneven, frames)) is None


def test_blocks_with_a_residual_stage_are_integers_from_end_to_end(frames):
    torch.manual_seed(2)
    codec = AUTOENCODERS["refined"](8, 255, 0.1).eval()
    klt_start(codec, [frame[0] for frame in frames], 0.2)
    last = codec.g_a[1].body[2]
    with torch.no_grad():
        last.weight.normal_(0, 0.03)
        last.bias.normal_(0, 0.1)
    fit_levels(codec, [frame[0] for frame in frames])
    data = graphs(codec, {}, HEIGHT, WIDTH)["encoder"][1]
    made = make_explicit(data, Plan("int8", activations="uint8"), measure(plain(data), frames))
    assert made.report["convolutions"] == {"int8": 5}
    kinds = {n.op_type for n in onnx.load_from_string(made.data).graph.node}
    assert kinds == {"Reshape", "Transpose", "QLinearConv", "Concat", "Min"}
    check_graph(made.data, "encoder")
    one, other = graph_function(data), graph_function(made.data)
    differ = []
    for frame in frames:
        a, b = one(frame)[0].astype(int), other(frame)[0].astype(int)
        assert np.abs(a - b).max() <= 1
        differ.append((a != b).mean())
    assert np.mean(differ) < 0.05
    silent = AUTOENCODERS["refined"](8, 255, 0.1).eval()
    silent.load_state_dict({**codec.state_dict(), "g_a.1.body.2.weight": torch.zeros_like(last.weight)})
    without = graph_function(graphs(silent, {}, HEIGHT, WIDTH)["encoder"][1])
    assert np.mean([(without(f)[0] != one(f)[0]).mean() for f in frames]) > 0.05  # the stage says something here
