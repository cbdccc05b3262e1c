"""capture -> encode -> predict, with coding beside it: one thread per stage, one ring of slots, nothing lost without being counted.

    source --capture--> [to_encode] --encode--> [to_predict] --predict x workers--> in-order delivery --> on_prediction
                                       |                                               '--> [to_view] --view--> on_view
                                       '--> [to_code] --code--> on_packet (log)                                   (overlay)
                                                         both settled --record--> on_record (JSON lines), in capture order

Policies. `block` (files): every stage waits for the next; nothing is dropped; packets do not depend on timing. `latest` (cameras): a
frame that waited while a newer one arrived is dropped; coding and view hold at most their quota of slots, and a full lane drops *its*
copy of the frame (`coding_dropped`, `view_dropped`), so prediction never waits for the coder, the disk or the overlay.

Accounting, exact at the end of every run however it ended: captured = predicted + sum(dropped by reason), reasons `superseded` (a newer
frame took its place), `no_slot`, `engine` (the engine lost this frame; `max_lost` in a row end the run), `error` (in flight when a stage
failed).

Ends. The source ends or `stop()` is called: everything captured is finished. The source fails: the same, then its error is raised. Any
other stage fails: the run stops at once, packets already encoded are still coded and logged, and one typed error is raised by `finish`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from percodec.runtime.capture.source import FrameSource
from percodec.runtime.pipeline.options import Coder, Outputs, PipelineOptions
from percodec.runtime.pipeline.plausibility import Guard
from percodec.runtime.pipeline.records import Counts, FrameRecord, HeadTask
from percodec.runtime.pipeline.slots import FrameLost, Slot, SlotRing
from percodec.runtime.pipeline.threads import Crew
from percodec.runtime.pipeline.timing import Profiler
from percodec.sdk.errors import BackendError, LogError, PercodecError
from percodec.sdk.familiarity import Familiarity
from percodec.sdk.types import Frame, Prediction

STAGES = ("capture", "preprocess", "encode", "predict", "code", "log", "record", "view", "age")
MAX_UNSETTLED = 1000


class Pipeline:
    """One run over one source. `run()` does it all; or `start()`, `wait()` until True, `finish()`."""

    def __init__(
        self,
        source: FrameSource,
        preprocess: Callable[[Frame, Any], None],
        make_slots: Callable[[int], list[Slot]],
        coder: Coder,
        *,
        levels: int,
        heads: Mapping[str, HeadTask],
        familiarity: Familiarity | None = None,
        options: PipelineOptions | None = None,
        outputs: Outputs | None = None,
        profiler: Profiler | None = None,
    ) -> None:
        self.options = options or PipelineOptions()
        self.profiler = profiler or Profiler(STAGES)
        self.first_capture_ns = self.last_capture_ns = self.last_prediction_ns = 0
        self.invalid_in_a_row = (0, "")  # and the last one's reason
        self._source, self._preprocess, self._coder = source, preprocess, coder
        self._heads = dict(heads)
        live = source.info.live and source.info.kind != "memory"
        self._guard = Guard(levels, heads, live=live, familiarity=familiarity, strict=not self.options.allow_unfamiliar)
        self._out = outputs or Outputs()
        self._latest = self.options.policy == "latest"
        self._queue_limit = 1 if self._latest else 2
        need = 4 + self._queue_limit + 2 * self.options.workers + self.options.code_depth + self.options.view_depth
        self.ring = SlotRing(make_slots(self.options.slots or need))
        self._counts = Counts()
        self._cv = threading.Condition()
        self._deliver_lock = threading.Lock()
        self._to_encode: deque[Slot] = deque()
        self._to_predict: deque[Slot] = deque()
        self._to_code: deque[Slot] = deque()
        self._to_view: deque[tuple[Slot, FrameRecord]] = deque()
        self._predicted: dict[int, Slot] = {}
        self._records: dict[int, FrameRecord] = {}
        self._code_held = self._view_held = self._lost_in_a_row = 0
        self._last_loss: Exception | None = None
        self._next_sequence = self._next_delivery = self._next_record = 0
        loops: list[tuple[str, Callable[[], None]]] = [
            ("capture", self._capture_loop),
            ("encode", self._encode_loop),
            *[("predict", self._predict_loop)] * self.options.workers,
            ("code", self._code_loop),
            ("record", self._record_loop),
            ("view", self._view_loop),
        ]
        self._crew = Crew(self._cv, loops)

    # -- life of a run --------------------------------------------------------------------------------------------
    def run(self) -> Counts:
        """Process the source to its end. Raises the run's first error, after everything that could be finished was.

        A Ctrl-C stops it first, and is raised when all stages have ended.
        """
        self.start()
        self._crew.join(self.stop)
        return self.finish()

    def start(self) -> None:
        """Start all stages."""
        self._crew.start()

    def stop(self) -> None:
        """End the run cleanly: no more frames are captured, those captured are finished. Safe from any thread and twice."""
        with self._cv:
            self._crew.stop()
        self._crew.close(self._source)

    def wait(self, timeout_s: float) -> bool:
        """True once every stage has ended; at most `timeout_s` later otherwise."""
        return self._crew.wait(timeout_s)

    def finish(self) -> Counts:
        """Settle the accounts of a run that ended. Raises the run's first error."""
        counts = self.settle()
        if self.error is not None:
            raise self.error
        return counts

    def settle(self) -> Counts:
        """Like `finish`, without raising: exact counts of a run that ended."""
        self._crew.close(self._source)
        with self._cv:
            for slot in self.ring.slots:
                if slot.awaits_prediction:
                    slot.awaits_prediction = False
                    self._drop("error")
            if self._lost_in_a_row and not self._counts.predicted and self.error is None:
                self._crew.fail(BackendError(f"no frame was predicted; the last one because: {self._last_loss}"), "predict")
        return self.counts

    @property
    def error(self) -> PercodecError | None:
        """The run's first error, if any."""
        return self._crew.error

    @property
    def counts(self) -> Counts:
        """A consistent copy of the numbers so far."""
        with self._cv:
            return replace(self._counts, dropped=dict(self._counts.dropped))

    # -- stages ---------------------------------------------------------------------------------------------------
    def _capture_loop(self) -> None:
        limit, live, crew = self.options.max_frames, self._source.info.live, self._crew
        while not crew.stopping:
            begin = time.monotonic_ns()
            frame = self._source.read()
            now = time.monotonic_ns()
            if frame is None:
                return
            with self._cv:
                if crew.stopping or not crew.running["capture"]:
                    return
                self.profiler.record("capture", begin, now, frame.frame_id)
                self.first_capture_ns, self.last_capture_ns = self.first_capture_ns or begin, now
                self._counts.captured += 1
                captured = self._counts.captured
                slot = self._take_slot()
            if slot is not None:
                slot.frame_id, slot.timestamp_ns = frame.frame_id, frame.timestamp_ns
                slot.origin_ns = frame.timestamp_ns if live else now
                with self.profiler.span("preprocess", frame.frame_id):
                    self._preprocess(frame, slot.source)
                with self._cv:
                    while self._latest and self._to_encode:
                        self._supersede()
                    self._to_encode.append(slot)
                    self._cv.notify_all()
            if captured == limit:
                return

    def _encode_loop(self) -> None:
        crew = self._crew
        while True:
            with self._cv:
                self._cv.wait_for(
                    lambda: (
                        crew.aborting
                        or (self._to_encode and len(self._to_predict) < self._queue_limit)
                        or not (self._to_encode or crew.running["capture"])
                    )
                )
                if crew.aborting or not self._to_encode:
                    return
                slot = self._to_encode.popleft()
            try:
                with self.profiler.span("encode", slot.frame_id):
                    slot.encode()
            except FrameLost as lost:
                with self._cv:
                    self._lose(slot, lost, "encode")
                continue
            with self._cv:
                record = FrameRecord(self._next_sequence, slot.frame_id, slot.timestamp_ns)
                self._records[record.sequence] = slot.record = record
                self._next_sequence += 1
                self._counts.encoded += 1
                if len(self._records) > MAX_UNSETTLED:
                    raise LogError(f"{MAX_UNSETTLED} frames wait for the log; the disk does not accept data")
                slot.holders += 1  # for coding, before prediction could let go
                self._to_predict.append(slot)
                self._cv.notify_all()
                if not self._latest:
                    self._cv.wait_for(lambda: crew.aborting or self._code_held < self.options.code_depth)
                if self._code_held < self.options.code_depth:
                    self._code_held += 1
                    self._to_code.append(slot)
                else:
                    self._not_coded(slot, record)
                self._cv.notify_all()

    def _predict_loop(self) -> None:
        outputs = self.ring.slots[0].outputs
        masks = {n: np.zeros(outputs[n]["labels"].shape, np.bool_) for n, task in self._heads.items() if task.task == "segmentation"}
        crew = self._crew
        while True:
            with self._cv:
                self._cv.wait_for(lambda: crew.aborting or self._to_predict or not crew.running["encode"])
                if crew.aborting or not self._to_predict:
                    return
                slot = self._to_predict.popleft()
                self._cv.notify_all()
            record = _record_of(slot)
            try:
                with self.profiler.span("predict", slot.frame_id):
                    slot.predict()
                self._guard.check(slot)
                self._guard.examine(slot, record, masks)
            except FrameLost as lost:
                record.lost = lost
            with self._cv:
                self._predicted[record.sequence] = slot
            self._deliver()

    def _deliver(self) -> None:
        """Hand over finished predictions in order; a worker that finished early leaves this to the one before it."""
        crew = self._crew
        with self._deliver_lock:
            while True:
                with self._cv:
                    if crew.aborting or self._next_delivery not in self._predicted:
                        return
                    slot = self._predicted.pop(self._next_delivery)
                    self._next_delivery += 1
                    record = _record_of(slot)
                    if record.lost is not None:
                        record.predicted = True
                        self._lose(slot, record.lost, "predict")
                        continue
                self._guard.follow(slot, record)
                with self._cv:
                    now = time.monotonic_ns()
                    record.age_ms = (now - slot.origin_ns) / 1e6
                    if record.age_ms > self.options.max_age_ms:
                        record.invalid = record.invalid or "too old"
                    self.profiler.record("age", slot.origin_ns, now, slot.frame_id)
                    self.last_prediction_ns = now
                    slot.awaits_prediction = False
                    self._lost_in_a_row = 0
                    self._counts.predicted += 1
                    self._counts.invalid += not record.valid
                    self._counts.unfamiliar += record.unfamiliar
                    self.invalid_in_a_row = (0, "") if record.valid else (self.invalid_in_a_row[0] + 1, record.invalid)
                if self._out.on_prediction is not None:
                    for head, outputs in slot.outputs.items():
                        arrays = {name: array[0] for name, array in outputs.items()}
                        self._out.on_prediction(Prediction(head, arrays, slot.frame_id, slot.timestamp_ns, record.valid))
                with self._cv:
                    if self._out.on_view is not None:
                        if not self._latest:
                            self._cv.wait_for(lambda: crew.aborting or self._view_held < self.options.view_depth)
                        if self._view_held < self.options.view_depth:
                            self._view_held += 1
                            slot.holders += 1
                            self._to_view.append((slot, record))
                        else:
                            self._counts.view_dropped += 1
                    record.predicted = True
                    self.ring.release(slot)
                    self._cv.notify_all()

    def _code_loop(self) -> None:
        while True:
            with self._cv:
                self._cv.wait_for(lambda: self._to_code or not self._crew.running["encode"])
                if not self._to_code:
                    return
                slot = self._to_code.popleft()
                record = _record_of(slot)
            try:
                slot.ready()
                self._guard.check(slot)
            except FrameLost:
                with self._cv:
                    self._code_held -= 1
                    self._not_coded(slot, record)
                continue
            with self.profiler.span("code", slot.frame_id):
                packet = self._coder.encode(slot.symbols[0], slot.frame_id, slot.timestamp_ns)
            with self._cv:
                self._code_held -= 1
                self._counts.coded += 1
                self._counts.packet_bytes += len(packet)
                self.ring.release(slot)
                self._cv.notify_all()
            if self._out.on_packet is not None:
                with self.profiler.span("log", record.frame_id):
                    self._out.on_packet(packet, record.frame_id, record.timestamp_ns)
            with self._cv:
                record.logged = self._out.on_packet is not None
                self._counts.logged += record.logged
                record.packet_bytes, record.coding_settled = len(packet), True
                self._cv.notify_all()

    def _record_loop(self) -> None:
        while True:
            with self._cv:
                self._cv.wait_for(lambda: self._settled() or not (self._crew.running["code"] or self._crew.running["predict"]))
                if not self._settled():
                    return
                record = self._records.pop(self._next_record)
                self._next_record += 1
            if self._out.on_record is not None:
                with self.profiler.span("record", record.frame_id):
                    self._out.on_record(record)
            with self._cv:
                self._counts.recorded += 1

    def _view_loop(self) -> None:
        while True:
            with self._cv:
                self._cv.wait_for(lambda: self._to_view or not self._crew.running["predict"])
                if not self._to_view:
                    return
                slot, record = self._to_view.popleft()
            if self._out.on_view is not None:
                with self.profiler.span("view", record.frame_id):
                    self._out.on_view(slot, record)
            with self._cv:
                self._view_held -= 1
                self._counts.viewed += 1
                self.ring.release(slot)
                self._cv.notify_all()

    # -- shared, all called with the lock held ----------------------------------------------------------------------
    def _take_slot(self) -> Slot | None:
        if not self._latest:
            self._cv.wait_for(lambda: self.ring.free or self._crew.aborting)
        elif not self.ring.free and self._to_encode:
            self._supersede()
        slot = None if self._crew.aborting else self.ring.take()
        if slot is None:
            self._drop("error" if self._crew.aborting else "no_slot")
        return slot

    def _supersede(self) -> None:
        slot = self._to_encode.popleft()
        slot.awaits_prediction = False
        self.ring.release(slot)
        self._drop("superseded")

    def _lose(self, slot: Slot, why: Exception, stage: str) -> None:
        slot.awaits_prediction = False
        self.ring.release(slot)
        self._drop("engine")
        self._lost_in_a_row, self._last_loss = self._lost_in_a_row + 1, why
        if self._lost_in_a_row >= self.options.max_lost:
            self._crew.fail(BackendError(f"the engine lost {self._lost_in_a_row} frames in a row, the last one because: {why}"), stage)
        self._cv.notify_all()

    def _not_coded(self, slot: Slot, record: FrameRecord) -> None:
        self._counts.coding_dropped += 1
        record.coding_settled = True
        self.ring.release(slot)
        self._cv.notify_all()

    def _drop(self, why: str) -> None:
        self._counts.dropped[why] = self._counts.dropped.get(why, 0) + 1

    def _settled(self) -> bool:
        record = self._records.get(self._next_record)
        return record is not None and record.predicted and record.coding_settled


def _record_of(slot: Slot) -> FrameRecord:
    assert slot.record is not None, "a slot past the encoder has a record"
    return slot.record


__all__ = ["STAGES", "Pipeline"]
