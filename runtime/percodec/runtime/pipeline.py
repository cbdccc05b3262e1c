"""capture -> encode -> predict, with coding beside it: one thread per stage, one ring of slots, nothing lost without being counted.

    source --capture--> [to_encode] --encode--> [to_predict] --predict x workers--> in-order delivery --> on_prediction
                                       |                                               '--> [to_view] --view--> on_view
                                       '--> [to_code] --code--> on_packet (log)                                   (overlay)
                                                         both settled --record--> on_record (JSON lines), in capture order

Policies. `block` (files): every stage waits for the next; nothing is dropped; packets do not depend on timing. `latest` (cameras): a
frame that waited while a newer one arrived is dropped; coding and view hold at most their quota of slots, and a full lane drops *its*
copy of the frame (`coding_dropped`, `view_dropped`), so prediction never waits for the coder, the disk or the overlay.

Accounting, exact at the end of every run however it ended: captured = predicted + sum(dropped by reason), reasons `superseded` (a newer
frame took its place), `no_slot`, `error` (in flight when a stage failed).

Ends. The source ends or `stop()` is called: everything captured is finished. The source fails: the same, then its error is raised. Any
other stage fails: the run stops at once, packets already encoded are still coded and logged, and one typed error is raised by `finish`.
"""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.accounting import Counts, FrameRecord, typed_error
from percodec.runtime.capture import FrameSource
from percodec.runtime.engine import Engine
from percodec.runtime.options import POLICIES, Coder, Outputs, PipelineOptions
from percodec.runtime.profiler import Profiler
from percodec.runtime.slots import Slot, SlotRing
from percodec.sdk.errors import BackendError, LogError, PercodecError, SourceError
from percodec.sdk.types import Frame, Prediction

STAGES = ("capture", "preprocess", "encode", "predict", "code", "log", "record", "view", "age")
STOP_GRACE_S = 5.0
MAX_UNSETTLED = 1000


class Pipeline:
    """One run over one source. `run()` does it all; or `start()`, `wait()` until True, `finish()`."""

    def __init__(
        self,
        source: FrameSource,
        preprocess: Callable[[Frame, NDArray[np.uint8]], None],
        encoder: Engine,
        head: Engine,
        coder: Coder,
        *,
        levels: int,
        classes: int,
        options: PipelineOptions | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        self.options = options or PipelineOptions()
        if self.options.policy not in POLICIES or min(self.options.workers, self.options.code_depth, self.options.view_depth) < 1:
            raise ValueError(f"policy must be one of {POLICIES}; workers and depths at least 1: {self.options}")
        self.profiler = Profiler(STAGES)
        self.first_capture_ns = self.last_prediction_ns = 0
        self._source, self._preprocess, self._coder = source, preprocess, coder
        self._levels, self._classes = levels, classes
        self._out = outputs or Outputs()
        self._latest = self.options.policy == "latest"
        self._queue_limit = 1 if self._latest else 2
        need = 4 + self._queue_limit + 2 * self.options.workers + self.options.code_depth + self.options.view_depth
        self.ring = SlotRing(encoder, head, self.options.slots or need)
        self._counts = Counts()
        self._cv = threading.Condition()
        self._deliver_lock = threading.Lock()
        self._to_encode: deque[Slot] = deque()
        self._to_predict: deque[Slot] = deque()
        self._to_code: deque[Slot] = deque()
        self._to_view: deque[tuple[Slot, FrameRecord]] = deque()
        self._predicted: dict[int, Slot] = {}
        self._records: dict[int, FrameRecord] = {}
        self._code_held = self._view_held = 0
        self._next_sequence = self._next_delivery = self._next_record = 0
        self._stopping = self._aborting = False
        self._stop_since = math.inf
        self._error: PercodecError | None = None
        self._running = {"capture": 1, "encode": 1, "predict": self.options.workers, "code": 1, "record": 1, "view": 1}
        self._threads: list[threading.Thread] = []

    # -- life of a run --------------------------------------------------------------------------------------------
    def run(self) -> Counts:
        """Process the source to its end. Raises the run's first error, after everything that could be finished was."""
        self.start()
        while not self.wait(0.5):
            pass
        return self.finish()

    def start(self) -> None:
        """Start all stages."""
        loops: list[tuple[str, Callable[[], None]]] = [
            ("capture", self._capture_loop),
            ("encode", self._encode_loop),
            *[("predict", self._predict_loop)] * self.options.workers,
            ("code", self._code_loop),
            ("record", self._record_loop),
            ("view", self._view_loop),
        ]
        for name, loop in loops:
            self._threads.append(threading.Thread(target=self._stage, args=(name, loop), name=f"percodec-{name}", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the run cleanly: no more frames are captured, those captured are finished. Safe from any thread and twice."""
        with self._cv:
            if not self._stopping:
                self._stopping, self._stop_since = True, time.monotonic()
                self._cv.notify_all()
        self._source.close()

    def wait(self, timeout_s: float) -> bool:
        """True once every stage has ended; at most `timeout_s` later otherwise."""
        with self._cv:
            if self._running["capture"] and time.monotonic() - self._stop_since > STOP_GRACE_S:
                self._fail(SourceError(f"the source did not return within {STOP_GRACE_S:g} s of being stopped"), "capture")
                self._running["capture"] = 0  # left behind; what it may still read is not taken
                self._cv.notify_all()
            return self._cv.wait_for(lambda: not any(self._running.values()), timeout=timeout_s)

    def finish(self) -> Counts:
        """Settle the accounts of a run that ended. Raises the run's first error."""
        counts = self.settle()
        if self._error is not None:
            raise self._error
        return counts

    def settle(self) -> Counts:
        """Like `finish`, without raising: exact counts of a run that ended."""
        self._source.close()
        with self._cv:
            for slot in self.ring.slots:
                if slot.awaits_prediction:
                    slot.awaits_prediction = False
                    self._drop("error")
        return self.counts

    @property
    def error(self) -> PercodecError | None:
        """The run's first error, if any."""
        return self._error

    @property
    def counts(self) -> Counts:
        """A consistent copy of the numbers so far."""
        with self._cv:
            return replace(self._counts, dropped=dict(self._counts.dropped))

    # -- stages ---------------------------------------------------------------------------------------------------
    def _capture_loop(self) -> None:
        limit = self.options.max_frames
        live = self._source.info.live
        while not self._stopping:
            begin = time.monotonic_ns()
            frame = self._source.read()
            now = time.monotonic_ns()
            if frame is None:
                return
            with self._cv:
                if self._stopping or not self._running["capture"]:
                    return
                self.profiler.record("capture", now - begin)
                self.first_capture_ns = self.first_capture_ns or begin
                self._counts.captured += 1
                captured = self._counts.captured
                slot = self._take_slot()
            if slot is not None:
                slot.frame_id, slot.timestamp_ns = frame.frame_id, frame.timestamp_ns
                slot.origin_ns = frame.timestamp_ns if live else now
                begin = time.monotonic_ns()
                self._preprocess(frame, slot.image[0])
                self.profiler.record("preprocess", time.monotonic_ns() - begin)
                with self._cv:
                    while self._latest and self._to_encode:
                        self._supersede()
                    self._to_encode.append(slot)
                    self._cv.notify_all()
            if captured == limit:
                return

    def _encode_loop(self) -> None:
        while True:
            with self._cv:
                self._cv.wait_for(
                    lambda: (
                        self._aborting
                        or (self._to_encode and len(self._to_predict) < self._queue_limit)
                        or not (self._to_encode or self._running["capture"])
                    )
                )
                if self._aborting or not self._to_encode:
                    return
                slot = self._to_encode.popleft()
            begin = time.monotonic_ns()
            slot.encode()
            self.profiler.record("encode", time.monotonic_ns() - begin)
            if int(slot.symbols.max()) >= self._levels:
                wrong = f"the encoder gave symbols outside 0..{self._levels - 1}; do not trust this engine"
                raise BackendError(f"frame {slot.frame_id}: {wrong}")
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
                    self._cv.wait_for(lambda: self._aborting or self._code_held < self.options.code_depth)
                if self._code_held < self.options.code_depth:
                    self._code_held += 1
                    self._to_code.append(slot)
                else:
                    self._counts.coding_dropped += 1
                    record.coding_settled = True
                    self.ring.release(slot)
                self._cv.notify_all()

    def _predict_loop(self) -> None:
        mask: NDArray[np.bool_] = np.zeros(self.ring.slots[0].labels.shape, np.bool_)
        while True:
            with self._cv:
                self._cv.wait_for(lambda: self._aborting or self._to_predict or not self._running["encode"])
                if self._aborting or not self._to_predict:
                    return
                slot = self._to_predict.popleft()
                self._cv.notify_all()
            begin = time.monotonic_ns()
            slot.predict()
            self.profiler.record("predict", time.monotonic_ns() - begin)
            record = _record_of(slot)
            # Every pixel must carry a known class: an engine that wrote nothing leaves poison behind.
            record.valid = int(slot.labels.max()) < self._classes
            record.class_pixels = np.array([np.count_nonzero(np.equal(slot.labels, k, out=mask)) for k in range(self._classes)], np.int64)
            record.labels_crc = zlib.crc32(slot.labels.data)
            record.latent_crc = zlib.crc32(slot.symbols.data)
            with self._cv:
                self._predicted[record.sequence] = slot
            self._deliver()

    def _deliver(self) -> None:
        """Hand over finished predictions in order; a worker that finished early leaves this to the one before it."""
        with self._deliver_lock:
            while True:
                with self._cv:
                    if self._aborting or self._next_delivery not in self._predicted:
                        return
                    slot = self._predicted.pop(self._next_delivery)
                    self._next_delivery += 1
                    record = _record_of(slot)
                    now = time.monotonic_ns()
                    record.age_ms = (now - slot.origin_ns) / 1e6
                    record.valid = record.valid and record.age_ms <= self.options.max_age_ms
                    self.profiler.record("age", now - slot.origin_ns)
                    self.last_prediction_ns = now
                    slot.awaits_prediction = False
                    self._counts.predicted += 1
                    self._counts.invalid += not record.valid
                if self._out.on_prediction is not None:
                    self._out.on_prediction(Prediction(slot.labels[0], slot.frame_id, slot.timestamp_ns, record.valid))
                with self._cv:
                    if self._out.on_view is not None:
                        if not self._latest:
                            self._cv.wait_for(lambda: self._aborting or self._view_held < self.options.view_depth)
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
                self._cv.wait_for(lambda: self._to_code or not self._running["encode"])
                if not self._to_code:
                    return
                slot = self._to_code.popleft()
                record = _record_of(slot)
            begin = time.monotonic_ns()
            packet = self._coder.encode(slot.symbols[0], slot.frame_id, slot.timestamp_ns)
            self.profiler.record("code", time.monotonic_ns() - begin)
            with self._cv:
                self._code_held -= 1
                self._counts.coded += 1
                self._counts.packet_bytes += len(packet)
                self.ring.release(slot)
                self._cv.notify_all()
            if self._out.on_packet is not None:
                begin = time.monotonic_ns()
                self._out.on_packet(packet, record.frame_id, record.timestamp_ns)
                self.profiler.record("log", time.monotonic_ns() - begin)
            with self._cv:
                record.logged = self._out.on_packet is not None
                self._counts.logged += record.logged
                record.packet_bytes = len(packet)
                record.coding_settled = True
                self._cv.notify_all()

    def _record_loop(self) -> None:
        while True:
            with self._cv:
                self._cv.wait_for(lambda: self._settled() or not (self._running["code"] or self._running["predict"]))
                if not self._settled():
                    return
                record = self._records.pop(self._next_record)
                self._next_record += 1
            if self._out.on_record is not None:
                begin = time.monotonic_ns()
                self._out.on_record(record)
                self.profiler.record("record", time.monotonic_ns() - begin)
            with self._cv:
                self._counts.recorded += 1

    def _view_loop(self) -> None:
        while True:
            with self._cv:
                self._cv.wait_for(lambda: self._to_view or not self._running["predict"])
                if not self._to_view:
                    return
                slot, record = self._to_view.popleft()
            if self._out.on_view is not None:
                begin = time.monotonic_ns()
                self._out.on_view(slot, record)
                self.profiler.record("view", time.monotonic_ns() - begin)
            with self._cv:
                self._view_held -= 1
                self._counts.viewed += 1
                self.ring.release(slot)
                self._cv.notify_all()

    # -- shared, all called with the lock held except _stage --------------------------------------------------------
    def _stage(self, name: str, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:
            with self._cv:
                self._fail(error, name)
        finally:
            with self._cv:
                self._running[name] = max(0, self._running[name] - 1)
                self._cv.notify_all()

    def _take_slot(self) -> Slot | None:
        if not self._latest:
            self._cv.wait_for(lambda: self.ring.free or self._aborting)
        elif not self.ring.free and self._to_encode:
            self._supersede()
        slot = None if self._aborting else self.ring.take()
        if slot is None:
            self._drop("error" if self._aborting else "no_slot")
        return slot

    def _supersede(self) -> None:
        slot = self._to_encode.popleft()
        slot.awaits_prediction = False
        self.ring.release(slot)
        self._drop("superseded")

    def _drop(self, why: str) -> None:
        self._counts.dropped[why] = self._counts.dropped.get(why, 0) + 1

    def _settled(self) -> bool:
        record = self._records.get(self._next_record)
        return record is not None and record.predicted and record.coding_settled

    def _fail(self, error: Exception, stage: str) -> None:
        typed = typed_error(error, stage)
        self._error = self._error or typed
        if not (stage == "capture" and isinstance(typed, SourceError)):
            self._aborting = True
        if not self._stopping:
            self._stopping, self._stop_since = True, time.monotonic()
        self._cv.notify_all()


def _record_of(slot: Slot) -> FrameRecord:
    assert slot.record is not None, "a slot past the encoder has a record"
    return slot.record


__all__ = ["STAGES", "Pipeline"]
