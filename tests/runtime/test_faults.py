"""FI-03, FI-16, FI-17: wrong outputs, lost and frozen cameras, engines that become slow. What is published as valid is right and fresh."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fakes import HEADS, IMAGE, LABELS, LEVELS, SYMBOLS, FakeCapture, FakeCoder, FakeEngine, H, W

from percodec.runtime.capture.camera import Camera, Reconnecting
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.engines.host_slots import host_slots
from percodec.runtime.pipeline.options import Outputs, PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.plausibility import REPEATS, Guard
from percodec.runtime.pipeline.records import FrameRecord, HeadTask
from percodec.runtime.pipeline.slots import FrameLost, Slot
from percodec.runtime.supervise.health import DEGRADED, FAULT, READY, Health
from percodec.runtime.supervise.watch import Watch
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame

RNG = np.random.default_rng(3)


THREE = {"segmentation": HeadTask("segmentation", 3)}


def picture(seed: int) -> NDArray[np.uint8]:
    """A lively picture; pictures of different seeds differ everywhere."""
    return np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)


def slot_of(seed: int, **parts: Any) -> Slot:
    rng = np.random.default_rng(1000 + seed)
    symbols, labels = rng.integers(0, 6, SYMBOLS.shape, np.uint8), rng.integers(0, 3, LABELS.shape, np.uint8)
    slot = Slot(0, picture(seed)[None].copy(), symbols, {"segmentation": {"labels": labels}}, lambda: None, lambda: None)
    for name, value in parts.items():
        (labels if name == "labels" else getattr(slot, name))[:] = value
    return slot


def judge(guard: Guard, slot: Slot) -> str:
    record = FrameRecord(0, 0, 0)
    guard.check(slot)
    guard.examine(slot, record, {"segmentation": np.zeros(LABELS.shape, np.bool_)})
    guard.follow(slot, record)
    return record.invalid


def test_fi03_outputs_that_are_none_are_named_within_one_frame() -> None:
    guard = Guard(6, THREE)
    assert judge(guard, slot_of(0)) == ""
    assert "labels of no class" in judge(guard, slot_of(1, labels=3))
    assert "constant" in judge(guard, slot_of(2, labels=0, symbols=0))
    assert judge(guard, slot_of(3)) == ""
    assert "the last frame's" in judge(guard, slot_of(4, symbols=slot_of(3).symbols))
    with pytest.raises(FrameLost, match="symbols outside 0"):
        judge(guard, slot_of(5, symbols=6))


def test_a_cap_on_the_lens_or_a_parked_car_is_no_fault_of_the_engine() -> None:
    guard = Guard(6, THREE)
    for _ in range(10):
        assert judge(guard, slot_of(0, image=7, symbols=0, labels=0)) == ""
    still = slot_of(1)
    for k in range(10):
        still.image[0, 0, 0, 0] = k  # noise, everything else equal
        assert judge(guard, still) == ""


def test_fi16_a_live_camera_that_repeats_one_picture_is_not_believed() -> None:
    live, file = Guard(6, THREE, live=True), Guard(6, THREE)
    said = [judge(live, slot_of(0)) for _ in range(REPEATS + 2)]
    assert said[:REPEATS] == [""] * REPEATS
    assert set(said[REPEATS:]) == {"the camera repeats one picture"}
    assert judge(live, slot_of(1)) == ""
    assert [judge(file, slot_of(0)) for _ in range(REPEATS + 2)] == [""] * (REPEATS + 2)


class Live:
    """A camera of `period_s` over a script of pauses: frame number -> further seconds before it."""

    def __init__(self, count: int, period_s: float, pauses: dict[int, float] | None = None, frozen: range = range(0)) -> None:
        self.info = SourceInfo("live", "fake", True, W, H, 1 / period_s, count)
        self._count, self._period, self._pauses, self._frozen = count, period_s, pauses or {}, frozen
        self._next, self._closed, self._due = 0, False, time.monotonic()

    def read(self) -> Frame | None:
        if self._next == self._count or self._closed:
            return None
        index, self._next = self._next, self._next + 1
        self._due += self._period + self._pauses.get(index, 0)
        time.sleep(max(0.0, self._due - time.monotonic()))
        return Frame(picture(self._frozen[0] if index in self._frozen else index), index, time.monotonic_ns())

    def close(self) -> None:
        self._closed = True


class Hashing(FakeEngine):
    """An engine whose output depends on all of its input."""

    def bind(self, source: NDArray[np.uint8], destination: NDArray[np.uint8]) -> Callable[[], None]:
        delay = super().bind(source, destination)

        def run() -> None:
            delay()
            flat = np.resize(source.reshape(-1), destination.size)
            np.copyto(destination, (flat % 6).reshape(destination.shape))

        return run


class Watched:
    """A pipeline with a watch, and what it said when."""

    def __init__(self, source: Any, delays: list[float] | None = None, **options: Any) -> None:
        self.states: list[tuple[float, str, str]] = []
        self.health = Health(lambda s: self.states.append((time.monotonic(), s.state, str(s))))
        self.seen: list[tuple[float, int, bool]] = []
        self.records: list[FrameRecord] = []
        self.head = Hashing(SYMBOLS, LABELS)
        self.head._delays = delays or []

        def fit(frame: Frame, out: Any) -> None:
            np.copyto(out, frame.image)

        self.pipeline = Pipeline(
            source, fit, host_slots(Hashing(IMAGE, SYMBOLS), {"segmentation": self.head}), FakeCoderOfAnything(),
            levels=LEVELS, heads=HEADS,
            options=PipelineOptions("latest", **{"max_age_ms": 100.0, **options}),
            outputs=Outputs(lambda p: self.seen.append((time.monotonic(), p.frame_id, p.valid)), on_record=self.records.append),
        )  # fmt: skip
        self.watch = Watch(self.pipeline, self.health, live=source.info.live, fps=source.info.fps)

    def run(self) -> Any:
        self.pipeline.start()
        self.watch.start()
        assert self.pipeline.wait(20)
        self.watch.stop()
        counts = self.pipeline.finish()
        assert counts.balanced
        return counts

    def causes(self) -> set[str]:
        return {text for _, state, text in self.states if state == DEGRADED}


class FakeCoderOfAnything(FakeCoder):
    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int) -> bytes:
        return b"packet"


def test_fi16_no_signal_is_said_within_three_periods_and_taken_back() -> None:
    period = 0.04
    run = Watched(Live(40, period, pauses={20: 1.5}))
    counts = run.run()
    assert counts.predicted + sum(counts.dropped.values()) == 40
    last = max(at for at, frame, _ in run.seen if frame < 20)
    said = [at for at, _, text in run.states if "no signal" in text and at > last]
    assert said, run.states
    assert said[0] - last < 1.0  # three periods, and how often it looks on a busy machine
    assert run.health.status.state == READY
    ids = [frame for _, frame, _ in run.seen]
    assert len(ids) == len(set(ids)), "an old picture was predicted again"


def test_fi16_a_frozen_camera_degrades_and_recovers() -> None:
    run = Watched(Live(80, 0.02, frozen=range(20, 50)), max_age_ms=500.0)
    run.run()
    frozen = [record for record in run.records if record.invalid == "the camera repeats one picture"]
    assert frozen
    assert all(20 + REPEATS <= r.frame_id < 50 for r in frozen)
    assert any("the camera repeats one picture" in text for text in run.causes())
    assert run.health.status.state == READY


def test_fi16_a_camera_that_comes_back_goes_on_counting() -> None:
    opened: list[FakeCapture] = []

    def camera() -> Camera:
        if len(opened) in (1, 2):
            opened.append(FakeCapture([], opened=False))
            raise SourceError("busy")
        frames: list[Any] = []
        for k in range(5):
            frames += [0.01, picture(k)]
        opened.append(FakeCapture(frames))
        return Camera("fake", "fake", lambda: opened[-1], 1.0)

    source = Reconnecting(camera(), camera, 5)
    got = [source.read() for _ in range(6)]
    ids, stamps = [f.frame_id for f in got if f], [f.timestamp_ns for f in got if f]
    assert len(ids) == 6
    assert ids == sorted(set(ids))
    assert stamps == sorted(set(stamps))
    assert ids[5] >= ids[4] + 2, "the time without the camera leaves no gap"
    assert len(opened) == 4
    source.close()
    assert source.read() is None


def test_fi16_a_camera_that_stays_away_is_one_error() -> None:
    def never() -> Camera:
        raise SourceError("/dev/video0: no such camera")

    source = Reconnecting(Camera("fake", "fake", lambda: FakeCapture([picture(0)]), 0.1), never, 0.3)
    assert source.read() is not None
    begin = time.monotonic()
    with pytest.raises(SourceError, match=r"did not come back within 0\.3 s .*no such camera"):
        source.read()
    assert time.monotonic() - begin < 30


def test_fi17_an_engine_that_becomes_slow_drops_frames_not_freshness() -> None:
    period = 0.02
    run = Watched(Live(200, period), delays=[0.005] * 60 + [0.06] * 20 + [0.005] * 200, max_age_ms=500.0)
    counts = run.run()
    assert set(counts.dropped) <= {"superseded", "no_slot"}
    assert sum(counts.dropped.values()) > 20
    assert any("faster than they can be predicted" in text for text in run.causes())
    assert run.health.status.state == READY, "it recovered"
    ages = [record.age_ms for record in run.records]
    assert np.percentile(ages, 90) < 500  # a queue of what was too much would be 800 ms long
    assert [frame for _, frame, _ in run.seen] == sorted({frame for _, frame, _ in run.seen})


def test_health_keeps_reasons_apart_and_a_fault_for_good() -> None:
    said: list[str] = []
    health = Health(lambda status: said.append(str(status)))
    health.degrade("worker", "restarting")
    health.degrade("signal", "no signal")
    health.degrade("signal", "no signal")
    health.clear("worker")
    health.clear("worker")
    assert said == ["DEGRADED (restarting)", "DEGRADED (restarting; no signal)", "DEGRADED (no signal)"]
    health.clear("signal")
    assert health.status.state == READY
    health.fault("backend", "nothing left")
    health.clear("backend")
    health.degrade("signal", "no signal")
    assert health.status.state == FAULT
    assert str(health.status) == "FAULT (nothing left; no signal)"
