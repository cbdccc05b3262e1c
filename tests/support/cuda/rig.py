"""A device, two engines that pass numbers on, and pipelines over them that write down what came out."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from percodec.runtime.engines.cuda_open import open_cuda
from percodec.runtime.engines.cuda_slots import CudaSlots
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.engines.tensorrt import TrtEngine
from percodec.runtime.pipeline.options import Outputs, PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from support.cuda.fake_tensorrt import engine_bytes
from support.fakes import HEADS, IMAGE, LABELS, LEVELS, SYMBOLS, FakeCoder, FakeSource, copy_preprocess

PROVIDER = os.environ["PERCODEC_PROVIDER"]
RAW = TensorSpec("raw", IMAGE.shape)


def compute(name: str, given: Any) -> int:
    """Every network passes on what it was given, the encoder plus one: a frame's number stays readable everywhere."""
    return (int(given[0]) + (name == "symbols")) % 256


def engine(cuda: Any, source: TensorSpec, destination: TensorSpec, scratch: int = 64) -> TrtEngine:
    data = engine_bytes(source, destination, scratch=scratch)
    return TrtEngine(cuda, data, source, (destination,), flavour="tensorrt", what=destination.name, precision="fp16")


class Rig:
    """A device, two engines, and one pipeline at a time."""

    def __init__(self, driver: Any, seed: int = 1) -> None:
        driver.reset(seed)
        driver.trt.compute = compute
        driver.trt.faults.clear()
        driver.trt.counts.clear()
        self.cuda = open_cuda(PROVIDER)
        self.encoder, self.head = engine(self.cuda, IMAGE, SYMBOLS), engine(self.cuda, SYMBOLS, LABELS, 32)
        self.made: list[CudaSlots] = []
        self.seen: list[tuple[int, int, bool]] = []
        self.packets: list[tuple[int, int]] = []

    def slots(self, count: int = 2, **more: Any) -> CudaSlots:
        self.made.append(CudaSlots(self.cuda, self.encoder, {"segmentation": self.head}, count, **more))
        return self.made[-1]

    def pipeline(
        self, frames: int = 12, *, source: Any = None, preprocess: Any = copy_preprocess, coder: Any = None, **more: Any
    ) -> Pipeline:
        options = {k: more.pop(k) for k in list(more) if k in ("policy", "workers", "max_lost")}
        return Pipeline(
            source or FakeSource(frames), preprocess, lambda count: self.slots(count, **more).slots, coder or FakeCoder(),
            levels=LEVELS, heads=HEADS, options=PipelineOptions(**options), outputs=Outputs(self._prediction, self._packet),
        )  # fmt: skip

    def run(self, frames: int = 12, **more: Any) -> Any:
        pipeline = self.pipeline(frames, **more)
        pipeline.start()
        assert pipeline.wait(30), f"deadlock: {pipeline.counts}"
        counts = pipeline.settle()
        assert counts.balanced, counts
        self.error = pipeline.error
        return counts

    def _prediction(self, prediction: Any) -> None:
        assert (prediction.labels == prediction.labels.flat[0]).all()
        self.seen.append((prediction.frame_id, int(prediction.labels.flat[0]), prediction.valid))

    def _packet(self, packet: bytes, frame_id: int, timestamp_ns: int) -> None:
        value, frame, _ = packet.decode().split(",")
        self.packets.append((int(frame), int(value)))

    def check(self, driver: Any) -> None:
        assert driver.violations() == []
        assert all(value == frame + 1 and valid for frame, value, valid in self.seen), "the prediction of another frame"
        assert all(value == frame + 1 for frame, value in self.packets), "the packet of another frame"


class SlowSource(FakeSource):
    def __init__(self, frames: int, rng: np.random.Generator) -> None:
        super().__init__(frames)
        self._rng = rng

    def read(self) -> Any:
        if self._rng.random() < 0.2:
            time.sleep(self._rng.random() * 1e-3)
        return super().read()


class SlowCoder(FakeCoder):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng

    def encode(self, symbols: Any, frame_id: int, timestamp_ns: int) -> bytes:
        if self._rng.random() < 0.2:
            time.sleep(self._rng.random() * 1e-3)
        return super().encode(symbols, frame_id, timestamp_ns)
