"""The pipeline over CUDA slots, on a driver that puts everything CUDA may reorder into random order."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import numpy as np
import pytest
from support.cuda.rig import PROVIDER, RAW, Rig, SlowCoder, SlowSource, engine
from support.fakes import IMAGE, LABELS, SYMBOLS

from percodec.runtime.engines.cuda_open import open_cuda
from percodec.runtime.engines.cuda_slots import CudaSlots
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.pipeline.options import Outputs
from percodec.sdk.errors import BackendError

SCHEDULES = int(os.environ.get("PERCODEC_SCHEDULES", "40"))


def schedule(driver: Any, seed: int) -> Rig:
    """One pipeline of everything that can differ, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    rig = Rig(driver, seed)
    frames = int(rng.integers(4, 16))
    counts = rig.run(
        frames, source=SlowSource(frames, rng), coder=SlowCoder(rng),
        transfer=("copy", "mapped", "managed")[seed % 3], graphs=bool(rng.integers(2)),
        camera=engine(rig.cuda, RAW, IMAGE) if rng.integers(2) else None, policy=("block", "latest")[int(rng.integers(2))],
        workers=int(rng.integers(1, 4)),
    )  # fmt: skip
    assert rig.error is None
    assert counts.captured == frames
    rig.made[0].close()
    rig.cuda.close()
    return rig


def test_random_schedules(driver):
    """No ordering violation, no reuse before consumption, exact accounting, no deadlock."""
    begin, launches, frames = time.monotonic(), 0, 0
    for seed in range(SCHEDULES):
        rig = schedule(driver, seed)
        rig.check(driver)
        launches += driver.calls("cuGraphLaunch")
        frames += len(rig.seen)
    assert launches > SCHEDULES
    print(f"{SCHEDULES} schedules, {frames} frames predicted, {launches} graph launches, 0 violations, {time.monotonic() - begin:.1f} s")


@pytest.mark.parametrize(
    "cut", ["second stream waits for the encoder", "main stream waits for the download", "coder waits for the symbols"]
)
def test_a_removed_wait_is_caught(driver, monkeypatch, cut):
    """The negative control: without any one of the waits, random schedules fail."""
    caught = 0
    for seed in range(24):
        rig = Rig(driver, seed)
        wait = rig.cuda.wait

        def skipping(stream: int, event: int, rig: Rig = rig, wait: Any = wait) -> None:
            slots = rig.made[-1] if rig.made else None
            here = cut.startswith("second") if slots is None else stream == (slots._second if cut.startswith("second") else slots._stream)
            if not (here and not cut.startswith("coder")):
                wait(stream, event)

        original = CudaSlots.__init__

        def remembered(self: Any, *args: Any, rig: Rig = rig, original: Any = original, **more: Any) -> None:
            rig.made.append(self)
            original(self, *args, **more)

        monkeypatch.setattr(CudaSlots, "__init__", remembered)
        monkeypatch.setattr(rig.cuda, "wait", skipping)
        if cut.startswith("coder"):
            monkeypatch.setattr(CudaSlots, "_settle", lambda self, b: None)
        try:
            rig.run(8, transfer="copy", graphs=False)
            rig.check(driver)
            caught += rig.error is not None
        except AssertionError:
            caught += 1
        monkeypatch.undo()
    assert caught > 12


def test_the_latent_stays_on_the_device(driver):
    """The encoder's output address is the head's input address; one graph launch per frame, nothing allocated while running."""
    rig = Rig(driver)
    pipeline = rig.pipeline(40, transfer="copy")
    slots = rig.made[0]
    assert slots.eager_because == ""
    before = {call: driver.calls(call) for call in ("cuMemAlloc", "cuMemHostAlloc", "cuGraphLaunch", "cuMemcpyAsync", "cuEventCreate")}
    pipeline.run()
    after = {call: driver.calls(call) - n for call, n in before.items()}
    assert after == {"cuMemAlloc": 0, "cuMemHostAlloc": 0, "cuGraphLaunch": 40, "cuMemcpyAsync": 0, "cuEventCreate": 0}
    rig.check(driver)
    assert len(rig.seen) == len(rig.packets) == 40


@pytest.mark.parametrize(("integrated", "transfer"), [(0, "copy"), (1, "mapped")])
def test_what_is_uploaded_how_by_default(driver, integrated, transfer):
    rig = Rig(driver)
    driver.library.fake_device(integrated, ctypes.c_uint64(8 << 30))
    rig.cuda = open_cuda(PROVIDER)
    rig.encoder, rig.head = engine(rig.cuda, IMAGE, SYMBOLS), engine(rig.cuda, SYMBOLS, LABELS)
    assert rig.slots().transfer == transfer
    with pytest.raises(ValueError, match="transfer must be"):
        rig.slots(transfer="zero-copy")


def test_host_arrays_in_host_arrays_out(driver):
    """`bind` is the same protocol as on the CPU: the self-test vectors run through it."""
    rig = Rig(driver)
    image, symbols = np.full(IMAGE.shape, 9, np.uint8), np.zeros(SYMBOLS.shape, np.uint8)
    encode = rig.encoder.bind(image, symbols)
    for value in (9, 10, 11):
        image.fill(value)
        encode()
        assert (symbols == value + 1).all()
    with pytest.raises(BackendError, match="needs contiguous uint8"):
        rig.encoder.bind(image[:, :, ::2], symbols)
    assert driver.violations() == []


def test_the_camera_graph_feeds_the_encoder_on_the_device(driver):
    """The host writes the camera's format; RGB is made on the device and comes back for the overlay."""
    rig = Rig(driver)
    raw = TensorSpec("raw", (1, H_RAW, 24, 2))
    seen: list[int] = []

    def preprocess(frame: Any, out: Any) -> None:
        assert out.shape == raw.shape[1:]
        out.fill(frame.frame_id)

    pipeline = rig.pipeline(10, preprocess=preprocess, camera=engine(rig.cuda, raw, IMAGE))
    pipeline._out = Outputs(
        rig._prediction, rig._packet, on_view=lambda slot, record: seen.append(int(slot.image.flat[-1]) - record.frame_id)
    )
    pipeline.run()
    assert seen == [0] * 10
    rig.check(driver)
    with pytest.raises(ValueError, match="the camera graph gives"):
        rig.slots(camera=engine(rig.cuda, raw, LABELS))


H_RAW = 20


class OnDevice:
    """A frame source whose pictures another library has put on the device, on a stream of its own."""

    def __init__(self, cuda: Any, driver: Any) -> None:
        self.cuda, self.stream = cuda, cuda.stream()
        self.memory = [cuda.allocate(int(np.prod(IMAGE.shape))) for _ in range(40)]

    def picture(self, number: int) -> Any:
        memory = self.memory[number]
        self.cuda.fill(memory.device, number, memory.nbytes, self.stream)
        found = {"version": 3, "shape": IMAGE.shape[1:], "typestr": "|u1", "data": (memory.device, False), "stream": self.stream}
        return type("Picture", (), {"__cuda_array_interface__": found})()


def test_pictures_that_are_on_the_device_already(driver):
    rig = Rig(driver)
    device = OnDevice(rig.cuda, driver)
    pipeline = rig.pipeline(30, preprocess=lambda frame, source: source.take(device.picture(frame.frame_id)), transfer="foreign")
    pipeline.run()
    assert [frame for frame, _, _ in rig.seen] == list(range(30))
    rig.check(driver)
    with pytest.raises(ValueError, match="on the GPU is needed"):
        pipeline.ring.slots[0].source.take(
            type("P", (), {"__cuda_array_interface__": {"shape": (3,), "typestr": "|u1", "data": (1, False)}})()
        )


def test_several_cameras_share_one_device_by_priority(driver):
    rig = Rig(driver)
    found = ctypes.c_int()
    pipelines = [rig.pipeline(25, priority=p) for p in (0, -1, -5)]
    for slots, priority in zip(rig.made, (0, -1, -5), strict=True):
        for stream in (slots._stream, slots._second):
            driver.library.cuStreamGetPriority(ctypes.c_void_p(stream), ctypes.byref(found))
            assert found.value == priority
    for pipeline in pipelines:
        pipeline.start()
    for pipeline in pipelines:
        assert pipeline.wait(20)
        assert pipeline.finish().predicted == 25
    rig.check(driver)


def test_another_librarys_stream_is_computed_on_and_left_alone(driver):
    rig = Rig(driver)
    theirs = rig.cuda.stream(-3)
    pipeline = rig.pipeline(20, stream=type("Stream", (), {"__cuda_stream__": lambda self: (0, theirs)})())
    pipeline.run()
    assert rig.made[0]._stream == theirs
    rig.made[0].close()
    memory, done = rig.cuda.allocate(8), rig.cuda.event()
    rig.cuda.fill(memory.device, 1, 8, theirs)
    rig.cuda.record(done, theirs)
    rig.cuda.synchronize(done)
    rig.check(driver)
    with pytest.raises(TypeError, match="no CUDA stream"):
        rig.slots(stream="stream")


def test_time_on_the_device_per_part(driver):
    rig = Rig(driver)
    times = rig.slots(camera=engine(rig.cuda, RAW, IMAGE)).device_ms(5)
    assert list(times) == ["h2d", "camera", "encode", "predict", "d2h", "latency"]
    assert all(len(v) == 5 and min(v) > 0 for v in times.values())
    assert sum(times[k][2] for k in ("h2d", "camera", "encode", "predict", "d2h")) == pytest.approx(times["latency"][2], rel=1e-3)


def test_a_tensorrt_that_captures_by_itself_is_left_to_it(driver, monkeypatch):
    rig = Rig(driver)
    driver.trt.with_own_graphs()
    slots = rig.slots()
    assert slots.eager_because == "this TensorRT captures graphs itself"
    assert driver.calls("cuStreamBeginCapture") == 0
    assert driver.trt.strategies == ["WHOLE_GRAPH_CAPTURE"] * 2
    del driver.trt.CudaGraphStrategy
