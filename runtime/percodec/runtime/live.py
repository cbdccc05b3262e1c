"""One live run: a source, a bundle, a folder of results. `percodec run`, `percodec demo` and the pipeline benchmark are this.

<out>/packets.mcap  frames.jsonl  overlay.mp4  contact_sheet.png  report.json   (report.json last: its presence means "ended")
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.accounting import Counts, FrameRecord
from percodec.runtime.capture import FrameSource, open_source
from percodec.runtime.engine import open_engine
from percodec.runtime.images import write_image
from percodec.runtime.options import Outputs, PipelineOptions
from percodec.runtime.pipeline import Pipeline
from percodec.runtime.preprocess import Preprocessor
from percodec.runtime.report import build_report
from percodec.runtime.selftest import run_selftest
from percodec.runtime.sinks import ContactSheet, JsonLines, Overlay
from percodec.runtime.slots import Slot
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import BundleError, LogError, PercodecError, UsageError
from percodec.sdk.log import LogWriter

DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "road-edge"
FILES = ("packets.mcap", "frames.jsonl", "overlay.mp4", "overlay.avi", "contact_sheet.png", "report.json")
LIVE_MAX_AGE_MS = 500.0


@dataclass(frozen=True)
class RunSettings:
    """What `percodec run` was asked for. `policy` None: `latest` for live or real-time sources, `block` otherwise."""

    source: str
    out: Path
    bundle: Path = DEFAULT_BUNDLE
    backend: str = "ort"
    policy: str | None = None
    realtime: bool = False
    threads: int = 1
    workers: int = 1
    max_frames: int | None = None
    max_age_ms: float | None = None
    timeout_s: float = 3.0
    overlay: bool = True
    sheet: bool = True
    log: bool = True
    selftest: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class RunResult:
    """`report` is what report.json holds; `error` the run's first error, already part of it."""

    report: dict[str, Any]
    error: PercodecError | None


def prepare_folder(out: Path, overwrite: bool) -> None:
    """Make `out` ready for a run. Raises UsageError when it is not a folder or holds an earlier run that must not be lost."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out must name a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be created ({error.strerror}); choose another --out") from error
    there = [name for name in FILES if (out / name).exists() or (out / name).is_symlink()]
    if there and not overwrite:
        raise UsageError(f"{out}: already holds a run ({', '.join(there)}); choose another --out or add --overwrite")
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"{out}: not writable; choose another --out")
    for name in there:
        (out / name).unlink()


def run_live(settings: RunSettings, on_progress: Callable[[Counts, float, int | None], None] | None = None) -> RunResult:
    """Run to the end of the source, a signal, or an error.

    Raises PercodecError for anything wrong before the first frame; later errors are in the result, beside the report.
    """
    bundle = open_bundle(settings.bundle)
    encoder = open_engine(bundle, "encoder", backend=settings.backend, threads=settings.threads)
    head = open_engine(bundle, "head_segmentation", backend=settings.backend, threads=settings.threads)
    selftest = asdict(run_selftest(bundle, encoder, head)) if settings.selftest else None
    source = open_source(
        settings.source, realtime=settings.realtime, height=bundle.frame_height, width=bundle.frame_width, timeout_s=settings.timeout_s
    )
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
        preprocess = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
        prepare_folder(settings.out, settings.overwrite)  # last: a start that fails leaves nothing behind
        lifelike = source.info.live or settings.realtime
        age_limit = settings.max_age_ms if settings.max_age_ms is not None else LIVE_MAX_AGE_MS if lifelike else math.inf
        options = PipelineOptions(
            policy=settings.policy or ("latest" if lifelike else "block"),
            workers=settings.workers,
            max_frames=settings.max_frames,
            max_age_ms=age_limit,
        )
        sinks = _Sinks(settings, bundle, source)
        stack.callback(sinks.abandon)
        pipeline = Pipeline(
            source,
            preprocess,
            encoder,
            head,
            coder,
            levels=bundle.levels,
            classes=len(bundle.labels),
            options=options,
            outputs=sinks.outputs(),
        )
        sinks.follow(pipeline)
        stopped_by = _drive(pipeline, source, on_progress)
        counts = pipeline.settle()
        error = pipeline.error
        faults = sinks.close()
        error = error or (faults[0] if faults else None)
        files = sinks.files()
        if settings.sheet:
            try:
                sheet = sinks.draw_sheet(settings)
                files |= {"contact_sheet": sheet} if sheet else {}
            except (OSError, PercodecError) as fault:
                error = error or LogError(f"contact_sheet.png: {getattr(fault, 'strerror', None) or fault}")
        outcome = f"error: {error}" if error else f"stopped by {stopped_by}" if stopped_by else "complete"
        asked = {
            "policy": options.policy,
            "backend": encoder.backend,
            "precision": {"encoder": encoder.precision, "head": head.precision},
            "threads": settings.threads,
            "workers": settings.workers,
            "realtime": settings.realtime,
            "max_frames": settings.max_frames,
            "max_age_ms": None if math.isinf(age_limit) else age_limit,
        }
        report = build_report(pipeline, counts, bundle, source.info, outcome=outcome, options=asked, files=files, selftest=selftest)
        try:
            write_json(settings.out / "report.json", report)
        except OSError as fault:
            error = error or LogError(f"{settings.out / 'report.json'}: cannot be written ({fault.strerror})")
    return RunResult(report, error)


def open_bundle(path: Path) -> Bundle:
    """`Bundle.open` with a friendlier word when the default one is not installed."""
    if path == DEFAULT_BUNDLE and not path.is_dir():
        raise BundleError("the demo bundle road-edge is not part of this installation; name a bundle with --bundle FOLDER")
    return Bundle.open(path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write beside and rename, so that a reader sees all of it or none. Raises OSError."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(beside, path)


class _Sinks:
    """The open outputs of one run."""

    def __init__(self, settings: RunSettings, bundle: Bundle, source: FrameSource) -> None:
        out = settings.out
        self._bundle, self._out = bundle, out
        self._pixels = bundle.frame_height * bundle.frame_width
        self._pipeline: Pipeline | None = None
        self._log = LogWriter(out / "packets.mcap", bundle) if settings.log else None
        self._lines = JsonLines(out / "frames.jsonl", bundle)
        self._sheet = ContactSheet(bundle) if settings.sheet else None
        self._overlay = Overlay(out / "overlay.mp4", bundle, source.info.fps or 25.0, self._figures) if settings.overlay else None

    def follow(self, pipeline: Pipeline) -> None:
        """Take the figures in the overlay's text line from `pipeline`."""
        self._pipeline = pipeline

    def outputs(self) -> Outputs:
        views = [self._sheet.offer] if self._sheet else []
        views += [self._overlay.write] if self._overlay else []

        def view(slot: Slot, record: FrameRecord) -> None:
            for one in views:
                one(slot, record)

        return Outputs(on_packet=self._log.append if self._log else None, on_record=self._lines.write, on_view=view if views else None)

    def close(self) -> list[PercodecError]:
        """Finish every output; the errors met, in order of importance."""
        faults: list[PercodecError] = []
        for name, close in (
            ("packets.mcap", self._log.close if self._log else None),
            ("frames.jsonl", self._lines.close),
            ("overlay", self._overlay.close if self._overlay else None),
        ):
            if close is None:
                continue
            try:
                close()
            except PercodecError as error:
                faults.append(error)
            except OSError as error:
                faults.append(LogError(f"{self._out / name}: cannot be finished ({error.strerror})"))
        return faults

    def abandon(self) -> None:
        """Close what an unexpected end left open; errors were or will be reported elsewhere."""
        with contextlib.suppress(Exception):
            self.close()

    def files(self) -> dict[str, Any]:
        """Names and sizes of what was written."""
        paths = {"log": self._out / "packets.mcap", "lines": self._out / "frames.jsonl"}
        if self._overlay is not None:
            paths["overlay"] = self._overlay.video.path
        return {name: {"file": path.name, "bytes": path.stat().st_size} for name, path in paths.items() if path.exists()}

    def draw_sheet(self, settings: RunSettings) -> dict[str, Any] | None:
        """Write contact_sheet.png; None when there was no frame."""
        assert self._sheet is not None
        decode = decoder(self._bundle, settings.backend, settings.threads) if "decoder" in self._bundle.manifest["graphs"] else None
        picture = self._sheet.draw(f"percodec   {settings.source}   {self._bundle.name}", decode)
        if picture is None:
            return None
        path = self._out / "contact_sheet.png"
        write_image(path, np.ascontiguousarray(picture[..., ::-1]))
        return {"file": path.name, "bytes": path.stat().st_size}

    def _figures(self, record: FrameRecord) -> str:
        text = f"{self._bundle.name}   frame {record.frame_id}"
        if self._pipeline is not None:
            counts = self._pipeline.counts
            seconds = (self._pipeline.last_prediction_ns - self._pipeline.first_capture_ns) / 1e9
            if counts.coded:
                each = counts.packet_bytes / counts.coded
                text += f"   {8 * each / self._pixels:.3f} bpp   {each / 1000:.1f} kB/frame"
            if counts.predicted > 1 and seconds > 0:
                text += f"   {counts.predicted / seconds:.1f} fps"
        return text + f"   age {record.age_ms:.0f} ms" + ("" if record.valid else "   NOT VALID")


def decoder(bundle: Bundle, backend: str, threads: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """symbols uint8 [C,h,w] -> RGB uint8 [H,W,3], valid until the next call."""
    engine = open_engine(bundle, "decoder", backend=backend, threads=threads)
    symbols = np.zeros(engine.source.shape, np.uint8)
    image = np.zeros(engine.destination.shape, np.uint8)
    run = engine.bind(symbols, image)

    def decode(latent: NDArray[np.uint8]) -> NDArray[np.uint8]:
        np.copyto(symbols[0], latent)
        run()
        picture: NDArray[np.uint8] = image[0]
        return picture

    return decode


def _drive(pipeline: Pipeline, source: FrameSource, on_progress: Callable[[Counts, float, int | None], None] | None) -> str | None:
    """Run the pipeline from this thread. Returns the name of the signal that stopped it, None otherwise."""
    with signals_counted() as received:
        pipeline.start()
        while not pipeline.wait(0.2):
            if received:
                pipeline.stop()
            elif on_progress is not None:
                seconds = (time.monotonic_ns() - (pipeline.first_capture_ns or time.monotonic_ns())) / 1e9
                on_progress(pipeline.counts, seconds, source.info.frames)
    return received[0] if received else None


@contextlib.contextmanager
def signals_counted() -> Iterator[list[str]]:
    """Yields a list that gets the name of the first SIGINT or SIGTERM; a second one ends the process at once.

    The handler takes no lock: the thread it interrupts may hold any.
    """
    received: list[str] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received.append(signal.Signals(number).name)

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
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
        sys.stderr.write("\r" + text[: columns - 1].ljust(min(60, columns - 1)))
        sys.stderr.flush()

    return show


__all__ = [
    "DEFAULT_BUNDLE",
    "FILES",
    "RunResult",
    "RunSettings",
    "decoder",
    "open_bundle",
    "prepare_folder",
    "run_live",
    "signals_counted",
    "terminal_progress",
    "write_json",
]
