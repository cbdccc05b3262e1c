"""One live run: a source, a bundle, a folder of results. `percodec run`, `percodec demo` and the pipeline benchmark are this.

With `isolate` the engines live in a process of their own (`supervisor`): a GPU that is lost costs some frames, not the run.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from percodec.runtime.capture.camera import Reconnecting
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.source import FrameSource
from percodec.runtime.pipeline.options import Coder, PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.rate import RateControl
from percodec.runtime.pipeline.records import Counts
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.run.engines import open_engines
from percodec.runtime.run.labels import LabelMaps
from percodec.runtime.run.outputs import RunOutputs, write_json
from percodec.runtime.run.report import build_report
from percodec.runtime.run.settings import RunSettings, prepare_folder
from percodec.runtime.session import DEFAULT_BUNDLE, chosen_heads, open_bundle, pipeline_of, stream_codec
from percodec.runtime.supervise.health import Health, Status
from percodec.runtime.supervise.watch import Watch
from percodec.sdk.bundle import Bundle
from percodec.sdk.clock import ClockAnchor
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import LogError, PercodecError, UsageError

LIVE_MAX_AGE_MS = 500.0


@dataclass(frozen=True)
class RunResult:
    """`report` is what report.json holds; `error` the run's first error, already part of it."""

    report: dict[str, Any]
    error: PercodecError | None


def run_live(
    settings: RunSettings,
    on_progress: Callable[[Counts, float, int | None], None] | None = None,
    on_health: Callable[[Status], None] | None = None,
) -> RunResult:
    """Run to the end of the source, a signal, or an error.

    Raises PercodecError for anything wrong before the first frame; later errors are in the result, beside the report.
    """
    bundle = open_bundle(settings.bundle, settings.demand)
    if settings.isolate is None:
        coarsened = settings.target_kbps is not None or settings.max_packet is not None  # which is done in this process
        settings = replace(settings, isolate=not bundle.vouched and not coarsened)
    heads = chosen_heads(bundle, settings.heads) or (bundle.head(None).name,)  # raises where there is none
    alone = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:], stream_id=settings.stream_id)
    coder: Coder = stream_codec(bundle, settings.stream_id, settings.key_every) if settings.stream else alone
    history = _History(on_health)
    health = Health(history)
    with contextlib.ExitStack() as stack:
        engines = open_engines(settings, bundle, heads, health)
        stack.callback(engines.close)
        source = _open_source(settings, bundle)
        stack.callback(source.close)
        make: Callable[[int], list[Slot]] = engines.make
        control = _rate_control(settings, bundle, coder, source)
        if control is not None:
            coder, make = control, control.over(make)
        on_device = settings.camera is not None and not settings.isolate and settings.backend.partition(":")[0] != "ort"
        lifelike = source.info.live or settings.realtime
        age_limit = settings.max_age_ms if settings.max_age_ms is not None else LIVE_MAX_AGE_MS if lifelike else math.inf
        options = PipelineOptions(
            policy=settings.policy or ("latest" if lifelike else "block"),
            workers=settings.workers,
            max_frames=settings.max_frames,
            max_age_ms=age_limit,
            max_lost=math.inf if settings.isolate else PipelineOptions.max_lost,
            allow_unfamiliar=settings.allow_unfamiliar,
        )
        engines.prepare(options.policy)
        segmentations = [name for name in heads if bundle.head(name).task == "segmentation"]
        maps, in_out = settings.save_labels, False
        labels = None
        if maps is not None:
            in_out = maps.resolve() == settings.out.resolve()  # one lock does for both
            if not in_out:
                labels = LabelMaps(maps, segmentations, overwrite=settings.overwrite)
                stack.callback(labels.close)
        lock = prepare_folder(settings.out, settings.overwrite)  # last: a start that fails leaves nothing behind
        stack.callback(lock.close)
        if maps is not None and in_out:
            labels = LabelMaps(maps, segmentations, overwrite=settings.overwrite, shared=True)
        begun = ClockAnchor.now()
        sinks = RunOutputs(settings, bundle, heads, source.info, labels)
        stack.callback(sinks.abandon)
        pipeline = pipeline_of(
            bundle, heads, source, make, coder,
            camera=settings.camera if on_device else None, options=options, outputs=sinks.outputs(),
        )  # fmt: skip
        sinks.follow(pipeline)
        watch = Watch(pipeline, health, live=lifelike, fps=source.info.fps)
        stack.callback(watch.stop)
        stopped_by = _drive(pipeline, source, watch, on_progress)
        counts = pipeline.settle()
        error = pipeline.error
        faults = sinks.close()
        error = error or (faults[0] if faults else None)
        files = sinks.files()
        try:
            sheet = sinks.draw_sheet(engines.decode if settings.sheet and "decoder" in bundle.graphs else None)
            files |= {"contact_sheet": sheet} if sheet else {}
        except (OSError, PercodecError) as fault:
            error = error or LogError(f"contact_sheet.png: {getattr(fault, 'strerror', None) or fault}")
        outcome = f"error: {error}" if error else f"stopped by {stopped_by}" if stopped_by else "complete"
        asked = {
            "policy": options.policy,
            **engines.about,
            "heads": list(heads),
            "stream": {"key_every": settings.key_every} if settings.stream else None,
            "rate": control.report() if control is not None else None,
            "threads": settings.threads,
            "workers": settings.workers,
            "realtime": settings.realtime,
            "max_frames": settings.max_frames,
            "allow_unfamiliar": settings.allow_unfamiliar,
            "max_age_ms": None if math.isinf(age_limit) else age_limit,
        }
        report = build_report(
            pipeline, counts, bundle, source.info, outcome=outcome, options=asked, files=files, selftest=engines.selftest,
            health={"state": health.status.state, "changes": history.changes, "restarts": engines.restarts},
            anchors=(begun, ClockAnchor.now()),
        )  # fmt: skip
        try:
            write_json(settings.out / "report.json", report)
        except OSError as fault:
            error = error or LogError(f"{settings.out / 'report.json'}: cannot be written ({fault.strerror})")
    return RunResult(report, error)


def _rate_control(settings: RunSettings, bundle: Bundle, coder: Coder, source: FrameSource) -> RateControl | None:
    if settings.target_kbps is None and settings.max_packet is None:
        return None
    if settings.stream or settings.isolate or settings.backend.partition(":")[0] != "ort":
        raise UsageError("--target-kbps and --max-packet are for packets that stand alone, on ort, in this process")
    rate = None if settings.target_kbps is None else settings.target_kbps * 125
    return RateControl(bundle, coder, bytes_per_second=rate, max_bytes=settings.max_packet, fps=source.info.fps or 25.0)


class _History:
    """Changes of health, for the report, with seconds since the start of the run."""

    def __init__(self, listener: Callable[[Status], None] | None) -> None:
        self.changes: list[dict[str, Any]] = []
        self._begin, self._listener = time.monotonic(), listener

    def __call__(self, status: Status) -> None:
        if len(self.changes) < 1000:
            entry = {"at_s": round(time.monotonic() - self._begin, 3), "state": status.state, "reasons": status.reasons}
            self.changes.append(entry)
        if self._listener is not None:
            self._listener(status)


def _open_source(settings: RunSettings, bundle: Bundle) -> FrameSource:
    def again() -> FrameSource:
        return open_source(
            settings.source, realtime=settings.realtime, height=bundle.frame_height, width=bundle.frame_width, timeout_s=settings.timeout_s,
            camera=settings.camera,
        )  # fmt: skip

    source = again()
    return Reconnecting(source, again, settings.reconnect_s) if source.info.live and settings.reconnect_s > 0 else source


def _drive(
    pipeline: Pipeline, source: FrameSource, watch: Watch, on_progress: Callable[[Counts, float, int | None], None] | None
) -> str | None:
    """Run the pipeline from this thread. Returns the name of the signal that stopped it, None otherwise."""
    with signals_counted() as received:
        pipeline.start()
        watch.start()
        while not pipeline.wait(0.2):
            if received:
                pipeline.stop()
            elif on_progress is not None:
                seconds = (time.monotonic_ns() - (pipeline.first_capture_ns or time.monotonic_ns())) / 1e9
                on_progress(pipeline.counts, seconds, source.info.frames)
    watch.stop()
    return received[0] if received else None


@contextlib.contextmanager
def signals_counted() -> Iterator[list[str]]:
    """Yields a list that gets the name of the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.

    A terminal that closes sends SIGHUP more than once, so that one never counts as the second; where it was ignored (nohup) it stays so.
    The handler takes no lock: the thread it interrupts may hold any.
    """
    received: list[str] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGHUP:
            return
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(signal.Signals(number).name)

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        numbers = [signal.SIGINT, signal.SIGTERM] + [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)
        before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminal_progress() -> Callable[[Counts, float, int | None], None] | None:
    """A progress line on stderr when it is a terminal, else None."""
    if not sys.stderr.isatty():
        return None
    columns = shutil.get_terminal_size().columns

    def show(counts: Counts, seconds: float, total: int | None) -> None:
        of = f"/{total}" if total else ""
        fps = counts.predicted / seconds if seconds > 0 else 0.0
        dropped = sum(counts.dropped.values())
        text = f"  frame {counts.predicted}{of}   {fps:.1f} fps" + (f"   {dropped} dropped" if dropped else "")
        with contextlib.suppress(OSError):  # the terminal was closed
            sys.stderr.write("\r" + text[: columns - 1].ljust(min(60, columns - 1)))
            sys.stderr.flush()

    return show


__all__ = ["DEFAULT_BUNDLE", "LIVE_MAX_AGE_MS", "RunResult", "RunSettings", "run_live", "signals_counted", "terminal_progress"]
