"""`percodec profile`: the same pipeline as `percodec run`, measured from four sides per backend.

    warm-up      apart, never part of a figure
    fixed        pictures from memory at a camera's rate, policy `latest`: end to end, deadlines, jitter, drops, memory, power
    throughput   as fast as they are taken, policy `block`: frames per second, the slowest stage, how well stages overlap
    peak         the highest rate with less than 1 % drops, by bisection
    overload     twice that rate: what is dropped, and how old results get

A packet log is written as in a run, into a temporary folder. A live camera keeps its own clock: only `fixed` is measured, at its rate.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.source import FrameSource
from percodec.runtime.engines.selftest import run_selftest
from percodec.runtime.measure.compare import REFERENCES, compare_paths, rgb_network
from percodec.runtime.measure.load_generator import FixedRate, Meter, Pictures
from percodec.runtime.measure.sensors import Sensors
from percodec.runtime.measure.statistics import distribution, end_to_end, slowest_stage, trtexec
from percodec.runtime.pipeline.options import Outputs, PipelineOptions
from percodec.runtime.pipeline.pipeline import STAGES
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.pipeline.timing import Profiler, Spans, rss_bytes
from percodec.runtime.session import Session, open_bundle, pipeline_of
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import SourceError, UsageError
from percodec.sdk.log import LogWriter
from percodec.sdk.machine import machine_info, versions

FORMAT, VERSION = "percodec-profile", [1, 0]
PARTS = ("fixed", "throughput", "peak", "overload")
PEAK_DROPS = 0.01
PICTURES = 64
SLOTS = 11


@dataclass(frozen=True)
class ProfileSettings:
    """`fps` None: the source's own rate. `deadline_ms` None: one period.

    `heads`: None for the default one. `rgb`: ONNX of a network that reads pictures.
    """

    bundle: Path
    source: str
    backends: tuple[str, ...] = ("ort",)
    frames: int = 300
    warm_up: int = 30
    fps: float | None = None
    deadline_ms: float | None = None
    parts: tuple[str, ...] = PARTS
    heads: tuple[str, ...] | None = None
    threads: int = 1
    workers: int = 1
    provider: str | None = None
    transfer: str = "auto"
    rgb: Path | None = None
    nvtx: bool = False
    timeout_s: float = 3.0


@dataclass
class Profiled:
    """`report` is profile.json; `spans` per backend and part, for the trace and the plots."""

    report: dict[str, Any]
    spans: dict[str, dict[str, dict[str, Spans]]]


def run_profile(settings: ProfileSettings, on_step: Callable[[str], None] = lambda text: None) -> Profiled:
    """Measure. Raises PercodecError for anything that cannot run as asked: there is no silent substitute for a backend."""
    unknown = [part for part in settings.parts if part not in PARTS]
    if unknown:
        raise UsageError(f"--parts {unknown[0]}: unknown; use some of {','.join(PARTS)}")
    bundle = open_bundle(settings.bundle)
    backends = [b for b in settings.backends if b not in REFERENCES]
    references = [b for b in settings.backends if b in REFERENCES]
    if not backends:
        raise UsageError(f"--backends {','.join(settings.backends)}: name at least one that runs the latent path, for example ort")
    network = rgb_network(bundle, settings.rgb, settings.threads) if references else None
    source = open_source(settings.source, height=bundle.frame_height, width=bundle.frame_width, timeout_s=settings.timeout_s)
    info = source.info
    sensors = Sensors()
    rate = settings.fps or info.fps or 30.0
    deadline = settings.deadline_ms or 1000 / rate
    report: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine_info(),
        "versions": versions(),
        "bundle": {"name": bundle.name, "digest": bundle.digest, "frame": [bundle.frame_height, bundle.frame_width]},
        "source": {"spec": info.spec, "kind": info.kind, "width": info.width, "height": info.height, "fps": info.fps},
        "settings": {**asdict(settings), "bundle": settings.bundle.name, "rgb": settings.rgb.name if settings.rgb else None},
        "rate_fps": round(rate, 3),
        "deadline_ms": round(deadline, 3),
        "backends": {},
        "paths": None,
    }
    spans: dict[str, dict[str, dict[str, Spans]]] = {}
    try:
        pictures = None if info.live else Pictures(source, PICTURES)
        for backend in backends:
            one = _Backend(settings, bundle, backend, source, pictures, sensors, rate, deadline, on_step)
            try:
                report["backends"][backend] = one.measure()
                spans[backend] = one.spans
            finally:
                one.made.close()
        if network is not None:
            if pictures is None:
                raise SourceError(f"{settings.source}: reference paths are compared on recorded pictures, not on a live camera")
            on_step("paths side by side")
            report["paths"] = compare_paths(
                bundle, pictures, backends, references, network, frames=settings.frames, threads=settings.threads
            )
            report["paths"]["rgb"] = settings.rgb.name if settings.rgb else None
    finally:
        source.close()
        sensors.close()
    return Profiled(report, spans)


class _Backend:
    """One backend, loaded, and its measurements."""

    def __init__(
        self,
        settings: ProfileSettings,
        bundle: Bundle,
        backend: str,
        source: FrameSource,
        pictures: Pictures | None,
        sensors: Sensors,
        rate: float,
        deadline: float,
        on_step: Callable[[str], None],
    ) -> None:
        self._settings, self._bundle, self._backend = settings, bundle, backend
        self._source, self._pictures, self._sensors = source, pictures, sensors
        self._rate, self._deadline, self._on_step = rate, deadline, on_step
        self.spans: dict[str, dict[str, Spans]] = {}
        self._steps: list[tuple[str, int]] = [("start", rss_bytes())]
        on_step(f"{backend}: load")
        begin = time.monotonic()
        self._session = Session.open(
            bundle, backend=backend, heads=settings.heads, threads=settings.threads, provider=settings.provider,
            transfer=settings.transfer, selftest=False,
        )  # fmt: skip
        self.made = self._session.made
        self._load_ms = 1000 * (time.monotonic() - begin)
        self._steps.append(("engines", rss_bytes()))
        self._selftest = asdict(run_selftest(bundle, self.made.encoder, self.made.heads.get("segmentation")))
        self._steps.append(("self-test", rss_bytes()))
        self._slots: list[Slot] | None = None
        self._device_figures: dict[str, Any] | None = None

    def measure(self) -> dict[str, Any]:
        """All parts that were asked for."""
        out: dict[str, Any] = {"load_ms": round(self._load_ms, 2), "selftest": self._selftest}
        if self._settings.warm_up and self._pictures is not None:
            self._on_step(f"{self._backend}: warm-up")
            warm = self._run("warm_up", 0.0, self._settings.warm_up, keep=False)
            first = warm["stages_ms"]["age"]["max"]
            out["warm_up"] = {"frames": self._settings.warm_up, "slowest_ms": first}
        self._steps.append(("warm-up", rss_bytes()))
        self._device_figures = self._device()
        out |= {"about": dict(self.made.about), "device_ms": self._device_figures}
        parts = self._settings.parts if self._pictures is not None else ("fixed",)
        if "fixed" in parts:
            self._on_step(f"{self._backend}: {self._rate:g} frames/s")
            out["fixed"] = self._run("fixed", self._rate, self._settings.frames)
        if "throughput" in parts or "peak" in parts or "overload" in parts:
            self._on_step(f"{self._backend}: throughput")
            out["throughput"] = self._run("throughput", 0.0, self._settings.frames)
        if "peak" in parts or "overload" in parts:
            out["peak"] = self._peak(out["throughput"]["fps"])
        if "overload" in parts:
            rate = 2 * out["peak"]["fps"]
            self._on_step(f"{self._backend}: overload, {rate:.0f} frames/s")
            out["overload"] = self._run("overload", rate, max(60, min(self._settings.frames, int(3 * rate))))
        if self.made.gpu:
            out["device_memory_bytes"] = self.made.gpu[0].own_bytes
        out["memory_steps_mb"] = [[name, round(value / 1e6, 2)] for name, value in self._steps]
        return out

    def _device(self) -> dict[str, Any] | None:
        """Milliseconds on the GPU per part of a frame, one frame at a time."""
        if not self.made.gpu:
            return None
        times = self.made.gpu[0].device_ms()
        compute = [sum(v) for v in zip(*(times[k] for k in ("camera", "encode", "predict") if k in times), strict=True)]
        return {name: distribution(values) for name, values in {**times, "compute": compute}.items()}

    def _peak(self, throughput: float) -> dict[str, Any]:
        low, high, trials = 0.0, 1.2 * throughput, []
        rate = 0.95 * throughput
        for _ in range(6):
            self._on_step(f"{self._backend}: peak, {rate:.1f} frames/s")
            run = self._run("peak", rate, max(50, min(400, int(2 * rate))), keep=False)
            share = sum(run["frames"]["dropped"].values()) / run["frames"]["captured"]
            trials.append({"fps": round(rate, 2), "drop_share": round(share, 4), "p99_ms": run["end_to_end_ms"].get("p99")})
            low, high = (rate, high) if share < PEAK_DROPS else (low, rate)
            rate = (low + high) / 2
        return {"fps": round(low or min(t["fps"] for t in trials), 2), "below_1_percent": low > 0, "trials": trials}

    def _run(self, part: str, rate: float, frames: int, *, keep: bool = True) -> dict[str, Any]:
        """One pipeline over slots that all parts share."""
        settings, bundle = self._settings, self._bundle
        source: FrameSource = self._source if self._pictures is None else FixedRate(self._pictures, frames, rate)
        options = PipelineOptions(
            policy="latest" if rate or self._pictures is None else "block",
            workers=settings.workers,
            slots=SLOTS + 2 * settings.workers,  # the same for all parts: they share them
            max_frames=frames,
        )
        profiler = Profiler(STAGES, keep_spans=True, nvtx=settings.nvtx)
        with tempfile.TemporaryDirectory() as folder:
            log = LogWriter(Path(folder) / "packets.mcap", bundle)
            pipeline = pipeline_of(
                bundle, tuple(self._session.heads), source, self._make, PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]),
                options=options, outputs=Outputs(on_packet=log.append), profiler=profiler,
            )  # fmt: skip
            device = self.made.gpu[0].used_bytes if self.made.gpu else None
            try:
                with Meter(self._sensors, lambda: pipeline.counts.predicted, device) as meter:
                    counts = pipeline.run()
            finally:
                log.close()
        found = profiler.spans()
        stages = {name: distribution(s.ms) for name, s in found.items()}
        if "encode" in found and "predict" in found and len(found["encode"].ms) == len(found["predict"].ms):
            stages["compute"] = distribution(found["encode"].ms + found["predict"].ms)
        seconds = (pipeline.last_prediction_ns - pipeline.first_capture_ns) / 1e9
        out: dict[str, Any] = {
            "rate_fps": round(rate, 3) or None,
            "policy": options.policy,
            "seconds": round(seconds, 4),
            "fps": round(counts.predicted / seconds, 3) if seconds > 0 else 0.0,
            "frames": {
                "captured": counts.captured, "predicted": counts.predicted, "dropped": counts.dropped, "invalid": counts.invalid,
                "unfamiliar": counts.unfamiliar, "coded": counts.coded, "coding_dropped": counts.coding_dropped,
                "balanced": counts.balanced,
            },
            "packet_bytes_per_frame": round(counts.packet_bytes / counts.coded, 1) if counts.coded else None,
            "stages_ms": {name: figures for name, figures in stages.items() if name != "compute"},
            "end_to_end_ms": end_to_end(found["age"].ms if "age" in found else (), self._deadline if rate else None, counts.captured),
            "memory": meter.memory_figures(),
            "cpu": {
                "ms_per_frame": round(1000 * meter.cpu_s / max(1, counts.predicted), 3), "cores": round(meter.cpu_s / meter.seconds, 3),
            },
            "machine": meter.machine_figures(counts.predicted),
            "nvtx": {"asked": settings.nvtx, "missing": profiler.nvtx_missing},
        }  # fmt: skip
        if counts.predicted:
            device_ms = self._device_figures["latency"]["mean"] if self._device_figures else None
            name, slowest = slowest_stage(stages, settings.workers, device_ms)
            efficiency = round(out["fps"] * slowest / 1000, 4)
            out["overlap"] = {"slowest_stage": name, "slowest_ms": round(slowest, 4), "efficiency": efficiency}
            out["trtexec"] = trtexec(stages, out, self._device_figures)
        if keep:
            self.spans[part] = found
        return out

    def _make(self, count: int) -> list[Slot]:
        if self._slots is None:
            self._slots = self.made.make(count)
            self._steps.append((f"{count} slots", rss_bytes()))
        return self._slots


__all__ = ["FORMAT", "PARTS", "VERSION", "ProfileSettings", "Profiled", "run_profile"]
