"""Graphs with free batch, height and width: committed bundles compute a batch as its pictures one by one, and an old bundle is freed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the export extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from percodec.export.engines.build import bound_graph
from percodec.export.engines.free_shapes import bound, freed
from percodec.export.engines.graph_function import graph_function
from percodec.runtime.engines.open import cpu_graph, takes_any_size
from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import main
from percodec.sdk.errors import ExportError

ROOT = Path(__file__).resolve().parents[2]
ROAD = ROOT / "benchmarks" / "bundles" / "road-edge"
BUNDLES = [ROAD, *sorted(path for path in (ROOT / "benchmarks" / "bundles").iterdir() if path.is_dir())]
LIMITS = {"selftest": {"max_symbol_disagreement": 0.1, "min_label_agreement": 0.9}}
CHEAP = 4_000_000  # bytes of a graph that is tried on a batch here


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.name)
def test_a_batch_is_its_pictures_one_by_one(folder: Path) -> None:
    bundle, rng = Bundle.open(folder), np.random.default_rng(0)
    for name in bundle.graphs:
        data = cpu_graph(bundle, name, None)[0]
        assert freed(data) == data
        fixed = folder == ROAD and name == "head_segmentation"  # it scales 12 rows to 23
        assert takes_any_size(data) is not fixed
        if len(data) > CHEAP:
            continue
        rows, columns = bundle.latent_shape[1:] if fixed else (6, 10)
        shape = (2, rows * 8, columns * 8, 3) if name == "encoder" else (2, bundle.latent_shape[0], rows, columns)
        given = rng.integers(0, 256 if name == "encoder" else bundle.levels, shape, dtype=np.uint8)
        run = graph_function(data)
        both, single = run(given), np.concatenate([run(one[None]) for one in given])
        if bundle.graphs[name].task == "classification":
            assert np.allclose(both, single, atol=1e-5)
        else:
            assert np.array_equal(both, single), name


def _of_one_size(tmp_path: Path) -> Path:
    """road-edge as it was when every side of a graph was a number, with its INT8 encoder."""
    from percodec.sdk.bundle import extend_bundle
    from percodec.sdk.bundle.engines import EngineKey, write_engine

    bundle = Bundle.open(ROAD)
    old = extend_bundle(bundle, tmp_path / "old", graphs={name: bound_graph(bundle, name) for name in bundle.graphs})
    shapes = {t.name: (1, *t.shape) for t in (*bundle.graphs["encoder"].inputs, *bundle.graphs["encoder"].outputs)}
    data = bound(cpu_graph(bundle, "encoder", "int8")[0], shapes)
    digests = [hashlib.sha256(part).hexdigest() for part in (old.graph("encoder"), data)]
    write_engine(old.path, EngineKey(old.digest, "encoder", *digests, "int8", "host", "ort", "onnx", "", "", (), ()), data, LIMITS)
    return old.path


def test_an_old_bundle_is_freed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = _of_one_size(tmp_path), tmp_path / "new"
    assert main(["export", str(old), "--any-size", "--out", str(new), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["any_size"] == ["encoder", "decoder"]
    made = Bundle.open(new)
    assert made.answers_to(Bundle.open(old).digest)
    assert sorted(path.name for path in (new / "engines").iterdir()) == sorted(path.name for path in (old / "engines").iterdir())
    picture = np.random.default_rng(1).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    with Session.open(old) as before, Session.open(new, size=(480, 360)) as after:
        assert after.about["precision"]["encoder"] == "int8"
        assert np.array_equal(before.encode(picture).symbols, after.encode(picture).symbols)
    assert main(["export", str(old), "--any-size", "--stream", "--stream-from", "x", "--out", str(tmp_path / "no")]) == 2


def test_its_tables_of_ranges_stay_of_use(tmp_path: Path) -> None:
    """Without frames: the ranges kept are taken for those of the freed graph."""
    old, new = _of_one_size(tmp_path), tmp_path / "new"
    shutil.copytree(ROAD / "engines" / "calibration", old / "engines" / "calibration", dirs_exist_ok=True)
    assert main(["export", str(old), "--any-size", "--out", str(new)]) == 0
    assert main(["build", str(new), "--target", "host", "--precision", "int8", "--graph", "encoder"]) == 0


def test_what_cannot_be_freed_says_so() -> None:
    x = helper.make_tensor_value_info("symbols", TensorProto.FLOAT, [1, 4, 6, 10])
    y = helper.make_tensor_value_info("labels", TensorProto.FLOAT, [1, 4, 9, 10])
    resize = helper.make_node("Resize", ["symbols", "", "", "sizes"], ["labels"], name="up", mode="linear")
    sizes = numpy_helper.from_array(np.array([1, 4, 9, 10], np.int64), "sizes")
    model = helper.make_model(helper.make_graph([resize], "g", [x], [y], [sizes]), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(ExportError, match="up resizes to a fixed size"):
        freed(model.SerializeToString())
