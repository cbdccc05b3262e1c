"""FI-01 .. FI-07 on the device: every fault is one typed error, a lost frame or eager running; never a wrong output called valid."""

from __future__ import annotations

import ctypes

import pytest
from support.cuda.fake_tensorrt import engine_bytes
from support.cuda.rig import Rig, compute, engine
from support.fakes import IMAGE, LABELS, SYMBOLS, FakeSource

from percodec.runtime.engines.cuda import CudaError
from percodec.runtime.engines.cuda_slots import CudaSlots
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.engines.tensorrt import TrtEngine
from percodec.runtime.pipeline.slots import POISON
from percodec.sdk.errors import BackendError, EngineError


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_fi05_a_capture_that_fails_leaves_the_pipeline_eager(driver, call):
    rig = Rig(driver)
    driver.fail(call, 900)
    counts = rig.run(20)
    assert "capture failed" in rig.made[0].eager_because
    assert counts.predicted == 20
    assert driver.calls("cuGraphLaunch") == 0
    rig.check(driver)


def test_fi05_an_enqueue_that_fails_inside_a_capture_leaves_the_pipeline_eager(driver):
    rig = Rig(driver)
    driver.trt.faults["enqueue"] = 3  # the warm-up takes two
    assert rig.run(10).predicted == 10
    assert "did not queue" in rig.made[0].eager_because
    rig.check(driver)


def test_fi05_a_graph_that_replays_old_results_is_not_used(driver, monkeypatch):
    rig = Rig(driver)
    monkeypatch.setattr(rig.cuda, "launch", lambda graph, stream: None)
    assert rig.run(10).predicted == 10
    assert rig.made[0].eager_because == "the graph does not compute what the eager run does"
    rig.check(driver)


def test_fi04_an_enqueue_that_fails_loses_that_frame_only(driver):
    rig = Rig(driver)
    pipeline = rig.pipeline(20, graphs=False)
    driver.trt.faults["enqueue"] = driver.trt.counts["enqueue"] + 8  # the fourth frame's head
    counts = pipeline.run()
    assert counts.dropped == {"engine": 1}
    assert counts.predicted == 19
    assert 3 not in [frame for frame, _, _ in rig.seen]
    rig.check(driver)


def test_fi04_an_engine_that_writes_nothing_is_never_believed(driver):
    """TensorRT says yes and does nothing: the poison is still there."""
    rig = Rig(driver)
    pipeline = rig.pipeline(8, graphs=False)
    driver.trt.compute = lambda name, given: POISON if name == "labels" else compute(name, given)
    counts = pipeline.run()
    assert counts.invalid == 8
    assert not any(valid for _, _, valid in rig.seen)
    rig = Rig(driver)
    pipeline = rig.pipeline(8, graphs=False)
    driver.trt.compute = lambda name, given: POISON if name == "symbols" else compute(name, given)
    with pytest.raises(BackendError, match=r"no frame was predicted.*symbols outside 0"):
        pipeline.run()
    assert rig.seen == []
    assert rig.packets == []


def test_fi04_an_engine_that_always_fails_ends_the_run(driver):
    rig = Rig(driver)
    pipeline = rig.pipeline(100, graphs=False)
    driver.trt.faults["enqueue"] = -1
    with pytest.raises(BackendError, match=r"lost 10 frames in a row.*did not queue"):
        pipeline.run()
    assert rig.seen == []
    assert pipeline.counts.balanced


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuEventSynchronize", "cuEventRecord"])
def test_fi07_a_sticky_error_ends_the_run_at_once(driver, call):
    rig = Rig(driver)
    pipeline = rig.pipeline(1000, source=FakeSource(1000, 0.001))
    driver.fail(call, 700, after=30)
    with pytest.raises(CudaError, match="restart it"):
        pipeline.run()
    assert pipeline.counts.balanced
    assert len(rig.seen) < 100
    assert all(value == frame + 1 for frame, value, _ in rig.seen)


def test_fi06_no_context_and_no_memory_are_typed_errors(driver):
    rig = Rig(driver)
    driver.trt.faults["context"] = 2
    with pytest.raises(BackendError, match="no execution context; most often GPU memory is short"):
        rig.slots()
    rig = Rig(driver)
    driver.library.fake_device(0, ctypes.c_uint64(4000))
    with pytest.raises(CudaError, match="free GPU memory"):
        rig.slots(4)


def test_fi01_an_engine_of_another_version_is_refused_with_tensorrts_words(driver):
    rig = Rig(driver)
    driver.trt.faults["deserialize"] = driver.trt.counts.get("deserialize", 0) + 1
    with pytest.raises(EngineError, match="refuses the engine: the serialized engine is of another version"):
        engine(rig.cuda, IMAGE, SYMBOLS)
    wide = TensorSpec("image", (1, 16, 32, 3))
    with pytest.raises(EngineError, match=r"image must be uint8 \[1, 16, 24, 3\], the engine has UINT8 \[1, 16, 32, 3\]"):
        TrtEngine(rig.cuda, engine_bytes(wide, SYMBOLS), IMAGE, (SYMBOLS,), flavour="tensorrt", what="encoder", precision="fp16")
    with pytest.raises(EngineError, match="symbols is missing"):
        TrtEngine(rig.cuda, engine_bytes(IMAGE, LABELS), IMAGE, (SYMBOLS,), flavour="tensorrt", what="encoder", precision="fp16")
    with pytest.raises(ValueError, match="the encoder gives"):
        CudaSlots(rig.cuda, rig.encoder, {"segmentation": rig.encoder}, 2)


def test_a_failed_frame_leaves_nothing_behind(driver):
    """Half a frame is queued when its head fails: neither the next frame in that slot nor the end of the run meets it."""
    for seed in range(40):
        rig = Rig(driver, seed)
        pipeline = rig.pipeline(12, graphs=False)
        last = 2 * 11 if seed % 2 else 2 + 2 * (seed % 8)
        driver.trt.faults["enqueue"] = driver.trt.counts["enqueue"] + last + 2
        pipeline.run()
        rig.made[0].close()
        rig.check(driver)
        assert len(rig.seen) == 11
