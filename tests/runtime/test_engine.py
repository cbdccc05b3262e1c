"""ONNX Runtime behind the `Engine` contract, and the self-test that guards it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import (
    HEIGHT,
    LABELS,
    WIDTH,
    array_graph,
    classification_graph,
    decoder_graph,
    encoder_graph,
    frames,
    head_graph,
    make_bundle,
    run_graph,
)

from percodec.runtime.engines.engine import Engine, TensorSpec
from percodec.runtime.engines.onnxruntime import OrtEngine
from percodec.runtime.engines.open import graph_specs, open_engine
from percodec.runtime.engines.selftest import run_selftest
from percodec.runtime.pipeline.slots import POISON
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, write_engine
from percodec.sdk.errors import BackendError, BundleError, EngineError, SelfTestError


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle.open(bundle_folder)


def test_bound_run_equals_a_plain_one(bundle: Bundle) -> None:
    encoder, head = open_engine(bundle, "encoder"), open_engine(bundle, "head_segmentation")
    image = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    symbols = np.zeros((1, *bundle.latent_shape), np.uint8)
    labels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    encode, predict = encoder.bind(image, symbols), head.bind(symbols, labels)
    for frame in frames(4, seed=2):
        image[0] = frame
        encode()
        predict()
        np.testing.assert_array_equal(symbols, run_graph(bundle.graph("encoder"), frame[None]))
        np.testing.assert_array_equal(labels, run_graph(bundle.graph("head_segmentation"), symbols))
        assert len(np.unique(symbols)) > 2, "a constant latent proves nothing"


def test_one_engine_runs_two_bindings_at_once(bundle: Bundle) -> None:
    encoder = open_engine(bundle, "encoder")
    images = frames(2, seed=4)[:, None]
    outputs = [np.zeros((1, *bundle.latent_shape), np.uint8) for _ in images]

    def work(k: int) -> None:
        run = encoder.bind(images[k], outputs[k])
        for _ in range(200):
            run()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for image, output in zip(images, outputs, strict=True):
        np.testing.assert_array_equal(output, run_graph(bundle.graph("encoder"), image))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_results(bundle: Bundle, threads: int) -> None:
    run_selftest(bundle, open_engine(bundle, "encoder", threads=threads), open_engine(bundle, "head_segmentation", threads=threads))


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((1, HEIGHT, WIDTH + 1, 3), np.uint8), "image needs contiguous uint8"),
        (np.zeros((1, HEIGHT, WIDTH, 3), np.int8), "int8"),
        (np.zeros((1, HEIGHT, WIDTH * 2, 3), np.uint8)[:, :, ::2], "contiguous"),
    ],
)
def test_wrong_buffers_are_refused(bundle: Bundle, array: Any, match: str) -> None:
    with pytest.raises(BackendError, match=match):
        open_engine(bundle, "encoder").bind(array, np.zeros((1, *bundle.latent_shape), np.uint8))


@pytest.mark.parametrize(
    ("backend", "match"), [("tensorrt", "tensorrt cannot run here"), ("tensorrt_rtx", "rtx cannot run here"), ("cuda", "unknown backend")]
)
def test_backends_that_are_not_there(bundle: Bundle, backend: str, match: str) -> None:
    with pytest.raises(BackendError, match=match):
        open_engine(bundle, "encoder", backend=backend)


def test_the_graph_must_be_what_the_manifest_says(bundle: Bundle) -> None:
    source, (destination,) = graph_specs(bundle, "encoder")
    with pytest.raises(BundleError, match="is not an ONNX model"):
        OrtEngine(b"not a model", source, (destination,))
    with pytest.raises(BundleError, match="input must be uint8 'image'"):
        OrtEngine(encoder_graph(HEIGHT, WIDTH + 8), source, (destination,))
    with pytest.raises(BundleError, match="inputs are image by the manifest, symbols in the graph"):
        OrtEngine(head_graph(), source, (destination,))
    with pytest.raises(BundleError, match="latent by the manifest, symbols in the graph"):
        OrtEngine(encoder_graph(), source, (TensorSpec("latent", destination.shape),))


def test_output_is_poisoned_before_a_run(bundle: Bundle) -> None:
    head = open_engine(bundle, "head_segmentation")
    labels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    run: Any = head.bind(np.zeros((1, *bundle.latent_shape), np.uint8), labels)
    run._run = lambda binding: None  # reports success, writes nothing
    run()
    assert np.all(labels == POISON)


def test_selftest_passes_and_reports(bundle: Bundle) -> None:
    result = run_selftest(bundle, open_engine(bundle, "encoder"), open_engine(bundle, "head_segmentation"))
    assert (result.vectors, result.symbol_disagreement, result.label_agreement) == (2, 0.0, 1.0)


class Lying:
    """An engine whose output is spoilt."""

    backend = "lying"

    def __init__(self, engine: Engine, spoil: Any) -> None:
        self._engine, self._spoil = engine, spoil
        self.source, self.outputs = engine.source, engine.outputs
        self.precision, self.limits = engine.precision, engine.limits

    def bind(self, source: Any, destination: Any) -> Any:
        run = self._engine.bind(source, destination)

        def both() -> None:
            run()
            destination[...] = self._spoil(destination)

        return both


@pytest.mark.parametrize("spoil", [np.zeros_like, lambda a: np.roll(a, 1, -1), lambda a: (a + 1) % 3, lambda a: np.full_like(a, 0xCD)])
def test_selftest_rejects_wrong_engines(bundle: Bundle, spoil: Any) -> None:
    encoder, head = open_engine(bundle, "encoder"), open_engine(bundle, "head_segmentation")
    with pytest.raises(SelfTestError, match="symbols differ on the lying fp32 encoder"):
        run_selftest(bundle, Lying(encoder, spoil), head)
    with pytest.raises(SelfTestError, match="labels are as expected on the lying fp32 head"):
        run_selftest(bundle, encoder, Lying(head, spoil))


def host_engine(bundle: Bundle, graph: str, data: bytes, **selftest: float) -> None:
    """What `percodec build --target host --precision int8` leaves in a bundle."""
    import hashlib

    sha = hashlib.sha256(bundle.graph(graph)).hexdigest()
    key = EngineKey(bundle.digest, graph, sha, sha, "int8", "host", "ort", "onnx", "", "", (), ())
    write_engine(bundle.path, key, data, {"selftest": selftest} if selftest else {})


def test_what_a_bundle_holds_for_cpus_is_its_default(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", metrics={"limits": {"int8": {"symbols_differ": 0.25, "labels_differ": 0.1}}})
    assert open_engine(bundle, "encoder").precision == "fp32"
    host_engine(bundle, "encoder", encoder_graph(gain=1.02), max_symbol_disagreement=0.25, min_label_agreement=0.9)
    encoder, head = open_engine(bundle, "encoder"), open_engine(bundle, "head_segmentation")
    assert (encoder.precision, encoder.limits) == ("int8", (0.25, 0.9))
    assert (head.precision, head.limits) == ("fp32", None), "a graph that was not built runs as exported"
    found = run_selftest(bundle, encoder, head)
    assert 0 < found.symbol_disagreement <= 0.25, "another graph runs, within the limits of its own record"
    assert run_selftest(bundle, open_engine(bundle, "encoder", backend="ort:fp32"), head).symbol_disagreement == 0
    assert open_engine(bundle, "encoder", backend="ort:int8").precision == "int8"


def test_a_cpu_engine_that_is_not_this_bundles_is_refused(tmp_path: Path) -> None:
    bundle, other = make_bundle(tmp_path / "tiny"), make_bundle(tmp_path / "other", expected_labels=np.zeros((2, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(EngineError, match=r"host-int8/encoder is not there .*build it here: percodec build"):
        open_engine(bundle, "encoder", backend="ort:int8")
    host_engine(other, "encoder", encoder_graph())
    shutil.copytree(other.path / "engines", bundle.path / "engines")
    with pytest.raises(EngineError, match="built for something else: bundle"):
        open_engine(bundle, "encoder")
    assert open_engine(bundle, "encoder", backend="ort:fp32").precision == "fp32"
    host_engine(bundle, "encoder", b"not a graph")
    with pytest.raises(BundleError, match="is not an ONNX model"):
        open_engine(bundle, "encoder")


def test_a_selftest_past_the_limits_of_its_precision_fails(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    host_engine(bundle, "encoder", encoder_graph(gain=1.5), max_symbol_disagreement=0.01, min_label_agreement=0.99)
    with pytest.raises(SelfTestError, match=r"differ on the ort int8 encoder, the bundle allows 1\.000%"):
        run_selftest(bundle, open_engine(bundle, "encoder"), None)


@pytest.mark.parametrize("said", [{}, {"limits": 5}, {"limits": {"int8": 5}}, {"limits": {"int8": {"symbols_differ": "all"}}}])
def test_a_record_cannot_switch_the_selftest_off(tmp_path: Path, said: dict[str, object]) -> None:
    bundle = make_bundle(tmp_path / "tiny", metrics=said)
    host_engine(bundle, "encoder", encoder_graph(gain=1.5), max_symbol_disagreement=1.0, min_label_agreement=0.0)
    encoder = open_engine(bundle, "encoder")
    assert encoder.limits == (0.05, 0.95)
    with pytest.raises(SelfTestError, match=r"differ on the ort int8 encoder, the bundle allows 5\.000%"):
        run_selftest(bundle, encoder, None)


def test_selftest_rejects_a_bundle_that_expects_something_else(tmp_path: Path) -> None:
    wrong = np.full((2, HEIGHT, WIDTH), len(LABELS) - 1, np.uint8)
    bundle = make_bundle(tmp_path / "wrong", expected_labels=wrong)
    with pytest.raises(SelfTestError, match="asks for 99"):
        run_selftest(bundle, open_engine(bundle, "encoder"), open_engine(bundle, "head_segmentation"))


def test_the_tiny_graphs_are_what_onnx_calls_valid() -> None:
    """They are written by hand (tests/support/onnx_bytes.py)."""
    onnx = pytest.importorskip("onnx", reason="needs the export extra")
    for graph in (encoder_graph(), head_graph(), decoder_graph(), classification_graph(), array_graph()):
        onnx.checker.check_model(onnx.load_model_from_string(graph), full_check=True)
