"""The scheduler on scripted engines: order, buffers, policies, accounting and every way a run can end."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.fakes import (
    HEADS,
    IMAGE,
    LABELS,
    LEVELS,
    SYMBOLS,
    FakeCoder,
    FakeEngine,
    FakeSource,
    StuckSource,
    copy_preprocess,
    source_error,
)

from percodec.runtime.engines.host_slots import host_slots
from percodec.runtime.pipeline import threads as crew
from percodec.runtime.pipeline.pipeline import Counts, Outputs, Pipeline, PipelineOptions
from percodec.runtime.pipeline.records import FrameRecord
from percodec.runtime.pipeline.slots import Slot
from percodec.sdk.errors import BackendError, CodecError, LogError, PercodecError, SourceError, UsageError
from percodec.sdk.types import Prediction


class Run:
    """A pipeline over fakes that writes down everything it is told."""

    def __init__(
        self,
        source: FakeSource,
        *,
        encode: tuple[float, ...] = (),
        predict: tuple[float, ...] = (),
        encoder: FakeEngine | None = None,
        head: FakeEngine | None = None,
        coder: FakeCoder | None = None,
        on_packet: Callable[[bytes, int, int], None] | None = None,
        on_view: Callable[[Slot, FrameRecord], None] | None = None,
        on_prediction: Callable[[Prediction], None] | None = None,
        **options: Any,
    ) -> None:
        self.predictions: list[tuple[int, int, int, bool]] = []
        self.packets: list[bytes] = []
        self.records: list[FrameRecord] = []
        self.events: list[tuple[str, int]] = []
        self.encoder = encoder or FakeEngine(IMAGE, SYMBOLS, encode)
        self.head = head or FakeEngine(SYMBOLS, LABELS, predict)
        self._on_packet, self._on_prediction = on_packet, on_prediction
        self.pipeline = Pipeline(
            source, copy_preprocess, host_slots(self.encoder, {"segmentation": self.head}), coder or FakeCoder(),
            levels=LEVELS, heads=HEADS,
            options=PipelineOptions(**options), outputs=Outputs(self._prediction, self._packet, self._record, on_view),
        )  # fmt: skip

    def _prediction(self, prediction: Prediction) -> None:
        first = int(prediction.labels.flat[0])
        assert np.all(prediction.labels == first)
        self.predictions.append((prediction.frame_id, prediction.timestamp_ns, first, prediction.valid))
        if self._on_prediction:
            self._on_prediction(prediction)

    def _packet(self, packet: bytes, frame_id: int, timestamp_ns: int) -> None:
        if self._on_packet:
            self._on_packet(packet, frame_id, timestamp_ns)
        self.packets.append(packet)
        self.events.append(("log", frame_id))

    def _record(self, record: FrameRecord) -> None:
        self.records.append(record)
        self.events.append(("line", record.frame_id))

    def to_end(self, limit_s: float = 10.0) -> Counts:
        """Like `Pipeline.run`, but a deadlock fails the test instead of hanging it."""
        self.pipeline.start()
        assert self.pipeline.wait(limit_s), f"deadlock: {self.pipeline.counts}"
        counts = self.pipeline.settle()
        assert counts.balanced, counts
        assert not self.encoder.reused
        assert not self.head.reused
        return counts

    def fails(self, kind: type[PercodecError], match: str) -> Counts:
        counts = self.to_end()
        with pytest.raises(kind, match=match):
            self.pipeline.finish()
        return counts


def check_frames(run: Run, ids: list[int]) -> None:
    assert [frame_id for frame_id, _, _, _ in run.predictions] == ids
    assert all(value == frame_id % 199 for frame_id, _, value, _ in run.predictions), "labels of another frame"


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("slots", [None, 1, 2])
def test_block_keeps_every_frame_in_order(workers: int, slots: int | None) -> None:
    run = Run(FakeSource(60), predict=(0.004, 0.0, 0.002, 0.0), encode=(0.0, 0.001), workers=workers, slots=slots)
    counts = run.to_end()
    check_frames(run, list(range(60)))
    assert [stamp for _, stamp, _, _ in run.predictions] == [k * 1_000_000 for k in range(60)]
    assert (counts.captured, counts.predicted, counts.coded, counts.logged, counts.recorded, counts.dropped) == (60, 60, 60, 60, 60, {})
    assert [record.frame_id for record in run.records] == list(range(60))
    assert run.packets == [f"{k % 199},{k},{k * 1_000_000}".encode() for k in range(60)]
    assert run.pipeline.ring.free == len(run.pipeline.ring.slots)
    if workers > 1 and slots is None:
        assert run.head.most_running > 1, "workers never ran side by side"


def test_log_precedes_acknowledgement() -> None:
    run = Run(FakeSource(40), predict=(0.0, 0.003), on_packet=lambda *_: time.sleep(0.001))
    run.to_end()
    for frame_id in range(40):
        assert run.events.index(("log", frame_id)) < run.events.index(("line", frame_id))
    assert all(record.logged and record.packet_bytes for record in run.records)


def test_the_encoder_writes_where_the_head_reads() -> None:
    run = Run(FakeSource(1))
    assert [written for _, written in run.encoder.bound] == [read for read, _ in run.head.bound]


def test_latest_drops_old_frames_and_counts_them() -> None:
    run = Run(FakeSource(120, 0.002), predict=(0.012,), policy="latest")
    counts = run.to_end()
    ids = [frame_id for frame_id, _, _, _ in run.predictions]
    check_frames(run, ids)
    assert ids == sorted(set(ids))
    assert counts.captured == 120
    assert 0 < counts.predicted < 80
    assert set(counts.dropped) == {"superseded"}
    assert ids[-1] == 119, "the newest frame must win"
    ages = [record.age_ms for record in run.records]
    assert np.median(ages) < 300, "frames waited in a queue"


def test_latest_prediction_does_not_wait_for_a_stuck_log() -> None:
    release = threading.Event()
    source = FakeSource(400, 0.002)
    run = Run(source, policy="latest", on_packet=lambda *_: release.wait(60) and None)
    run.pipeline.start()
    deadline = time.monotonic() + 30
    while run.pipeline.counts.predicted < 30 and time.monotonic() < deadline:
        time.sleep(0.005)
    predicted_while_stuck, logged = run.pipeline.counts.predicted, run.pipeline.counts.logged
    release.set()
    assert run.pipeline.wait(60)
    counts = run.pipeline.finish()
    assert predicted_while_stuck >= 30
    assert logged == 0
    assert counts.balanced
    assert counts.encoded == counts.coded + counts.coding_dropped
    assert counts.coding_dropped > 0
    assert [r.frame_id for r in run.records] == sorted(r.frame_id for r in run.records)
    assert sum(record.logged for record in run.records) == counts.logged == len(run.packets)


def test_latest_slow_view_does_not_slow_prediction() -> None:
    run = Run(FakeSource(60, 0.002), policy="latest", on_view=lambda slot, record: time.sleep(0.2))
    begin = time.monotonic()
    counts = run.to_end()
    assert counts.view_dropped > 20
    assert counts.viewed + counts.view_dropped == counts.predicted
    assert time.monotonic() - begin < 60 * 0.2


def test_block_view_sees_every_frame_unchanged() -> None:
    seen = []

    def view(slot: Slot, record: FrameRecord) -> None:
        time.sleep(0.002)
        assert int(slot.image.flat[0]) == int(slot.outputs["segmentation"]["labels"].flat[-1]) == record.frame_id % 199
        seen.append(record.frame_id)

    Run(FakeSource(30), on_view=view).to_end()
    assert seen == list(range(30))


@pytest.mark.parametrize("policy", ["block", "latest"])
def test_random_delays_never_deadlock(policy: str) -> None:
    rng = np.random.default_rng(3)
    delays = tuple(rng.exponential(0.0008, 64))
    run = Run(
        FakeSource(150, 0.0004), encode=delays, predict=delays[::-1], coder=FakeCoder(0.0006), policy=policy, workers=3,
        on_view=lambda slot, record: time.sleep(0.0005), code_depth=1, view_depth=1, slots=3,
    )  # fmt: skip
    counts = run.to_end()
    check_frames(run, [frame_id for frame_id, _, _, _ in run.predictions])
    assert counts.captured == 150
    if policy == "block":
        assert counts.predicted == counts.coded == counts.viewed == 150


def test_source_error_after_good_frames_loses_none() -> None:
    run = Run(FakeSource(20, end=source_error()), predict=(0.003,))
    counts = run.fails(SourceError, "scripted source")
    assert (counts.captured, counts.predicted, counts.logged, counts.recorded) == (20, 20, 20, 20)


@pytest.mark.parametrize("policy", ["block", "latest"])
@pytest.mark.parametrize("stage", ["encode", "predict", "code", "log", "view", "prediction"])
def test_a_failing_stage_ends_the_run_with_one_typed_error(stage: str, policy: str) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    parts: dict[str, dict[str, Any]] = {
        "encode": {"encoder": FakeEngine(IMAGE, SYMBOLS, fail_at=7)},
        "predict": {"head": FakeEngine(SYMBOLS, LABELS, fail_at=7), "workers": 2},
        "code": {"coder": FakeCoder(fail_at=7)},
        "log": {"on_packet": refuse},
        "view": {"on_view": refuse},
        "prediction": {"on_prediction": refuse},
    }
    kinds = {"code": CodecError, "log": LogError, "view": LogError}
    run = Run(FakeSource(200, 0.001), policy=policy, **parts[stage])
    counts = run.fails(kinds.get(stage, BackendError), "scripted|No space left")
    assert counts.captured < 200
    # A record waits until its frame is coded or, with "latest", dropped before the coder.
    assert counts.recorded <= counts.coded + (counts.coding_dropped if policy == "latest" else 0)
    logged = {frame_id for kind, frame_id in run.events if kind == "log"}
    assert all(record.frame_id in logged for record in run.records if record.logged)


def test_symbols_out_of_range_are_an_engine_fault() -> None:
    class Wild(FakeEngine):
        def bind(self, source: Any, destination: Any) -> Callable[[], None]:
            return lambda: destination.fill(LEVELS)

    run = Run(FakeSource(5), encoder=Wild(IMAGE, SYMBOLS))
    assert run.fails(BackendError, "outside 0").predicted == 0


def test_labels_nobody_wrote_are_not_valid() -> None:
    class Silent(FakeEngine):
        def bind(self, source: Any, destination: Any) -> Callable[[], None]:
            return lambda: destination.fill(0xCD)

    run = Run(FakeSource(5), head=Silent(SYMBOLS, LABELS))
    assert run.to_end().invalid == 5
    assert not any(valid for _, _, _, valid in run.predictions)


def test_old_predictions_are_not_valid() -> None:
    run = Run(FakeSource(6, live=True), predict=(0.0, 0.3), max_age_ms=200)
    run.to_end()
    assert {valid for _, _, _, valid in run.predictions} == {True, False}
    assert all(record.valid == (record.age_ms <= 200) for record in run.records)


def test_stop_finishes_what_was_captured() -> None:
    run = Run(FakeSource(10_000, 0.001), predict=(0.002,))
    run.pipeline.start()
    while run.pipeline.counts.predicted < 10:
        time.sleep(0.002)
    run.pipeline.stop()
    run.pipeline.stop()
    assert run.pipeline.wait(30)
    counts = run.pipeline.finish()
    assert 10 <= counts.captured < 10_000
    assert counts.captured == counts.predicted == counts.recorded == counts.logged


def test_a_source_that_never_returns_cannot_block_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "STOP_GRACE_S", 0.2)
    run = Run(StuckSource(5))
    run.pipeline.start()
    while run.pipeline.counts.predicted < 5:
        time.sleep(0.002)
    run.pipeline.stop()
    deadline = time.monotonic() + 30
    while not run.pipeline.wait(0.05):
        assert time.monotonic() < deadline, "hung"
    assert run.pipeline.settle().recorded == 5
    assert isinstance(run.pipeline.error, SourceError)


def test_max_frames() -> None:
    assert Run(FakeSource(50), max_frames=7).to_end().captured == 7


def test_no_buffer_is_allocated_after_warm_up() -> None:
    held = np.zeros(400, np.int64)
    peak = 0

    def view(slot: Slot, record: FrameRecord) -> None:
        nonlocal peak
        held[record.frame_id] = tracemalloc.get_traced_memory()[0]
        if record.frame_id == 50:
            tracemalloc.reset_peak()
        peak = tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        run = Run(FakeSource(400), on_view=view)
        run.predictions = _Forgetful()
        run.packets, run.records, run.events = _Forgetful(), _Forgetful(), _Forgetful()
        before = [slot.image.ctypes.data for slot in run.pipeline.ring.slots]
        run.to_end()
    finally:
        tracemalloc.stop()
    assert [slot.image.ctypes.data for slot in run.pipeline.ring.slots] == before
    # The level at one frame swings with how many are in flight; its median does not.
    warm, late = np.median(held[50:150]), np.median(held[300:])
    assert late - warm < 10_000, "memory grows with the number of frames"
    assert peak - warm < 60_000


class _Forgetful(list[Any]):
    def append(self, item: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("policy", "newest", "policy is one of block, latest; got 'newest'"),
        ("workers", 0, "workers is a whole number from 1 to 64; got 0"),
        ("workers", 100_000, "workers is a whole number"),
        ("workers", None, "workers is a whole number"),
        ("code_depth", 1.5, "code_depth is a whole number from 1 to 1024; got 1.5"),
        ("slots", -1, "slots is a whole number"),
        ("max_frames", 0, "max_frames is a whole number"),
        ("max_age_ms", float("nan"), "max_age_ms is above 0; got nan"),
        ("max_lost", -1, "max_lost is above 0; got -1"),
    ],
)
def test_wrong_options_are_refused(name: str, value: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        PipelineOptions(**{name: value})
