"""How many frames per second does encode + code + segment reach on this machine, and what does each stage cost?

    python benchmarks/bench_pipeline.py [--bundle FOLDER] [--source SPEC] [--frames 300] [--workers N] [--threads N]

Frames are read and fitted to the bundle's size before the clock starts, so that neither a video decoder nor a renderer is measured; the
pipeline then runs as in `percodec run` under the `block` policy: preprocess, encode, predict, code, log to disk, JSON lines, no overlay.
Rounds alternate over the settings given (`--workers 1,2`), so that they share the machine's moods. One JSON file per machine under
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray

from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.pipeline.options import Outputs, PipelineOptions
from percodec.runtime.pipeline.timing import peak_rss_bytes
from percodec.runtime.run.report import rate_figures
from percodec.runtime.run.sinks import JsonLines
from percodec.runtime.session import DEFAULT_BUNDLE, Session, open_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.log import LogWriter
from percodec.sdk.machine import machine_info, versions
from percodec.sdk.types import Frame


class MemorySource:
    """Frames from memory, `count` of them, going round."""

    def __init__(self, spec: str, images: NDArray[np.uint8], count: int) -> None:
        _, height, width, _ = images.shape
        self.info = SourceInfo(spec, "memory", False, width, height, 25.0, count)
        self._images, self._count, self._next = images, count, 0

    def read(self) -> Frame | None:
        if self._next >= self._count:
            return None
        index, self._next = self._next, self._next + 1
        return Frame(self._images[index % len(self._images)], index, index * 40_000_000)

    def close(self) -> None:
        self._next = self._count


def load_frames(spec: str, bundle: Bundle, most: int) -> NDArray[np.uint8]:
    """Up to `most` frames of a source at the bundle's size, uint8 [N,H,W,3]."""
    source = open_source(spec, height=bundle.frame_height, width=bundle.frame_width)
    fit = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
    images = []
    while len(images) < most and (frame := source.read()) is not None:
        image = np.empty((bundle.frame_height, bundle.frame_width, 3), np.uint8)
        fit(frame, image)
        images.append(image)
    source.close()
    return np.stack(images)


def measure(session: Session, images: NDArray[np.uint8], spec: str, frames: int, workers: int) -> dict[str, Any]:
    """One run."""
    bundle = session.bundle
    with tempfile.TemporaryDirectory() as folder:
        log, lines = LogWriter(Path(folder) / "packets.mcap", bundle), JsonLines(Path(folder) / "frames.jsonl", bundle, session.heads)
        pipeline = session.pipeline(
            MemorySource(spec, images, frames),
            options=PipelineOptions("block", workers=workers),
            outputs=Outputs(on_packet=log.append, on_record=lines.write),
        )
        cpu, begin = time.process_time(), time.monotonic()
        counts = pipeline.run()
        seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
        log.close()
        lines.close()
    return {
        "fps": round(counts.predicted / seconds, 2),
        "cpu_ms_per_frame": round(1000 * cpu / counts.predicted, 2),
        "cores_used": round(cpu / seconds, 2),
        "frames": {"captured": counts.captured, "predicted": counts.predicted, "logged": counts.logged, "balanced": counts.balanced},
        "stages_ms": {name: timing.as_dict() for name, timing in pipeline.profiler.timings().items()},
        "rate": rate_figures(counts.packet_bytes, counts.coded, bundle, 25.0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--source", default="synthetic://road?frames=64&seed=1")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2", help="settings to alternate over (default 1,2)")
    parser.add_argument("--threads", type=int, default=1)
    record.add_arguments(parser)
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    images = load_frames(args.source, bundle, 64)
    settings = [int(text) for text in args.workers.split(",")]
    session = Session.open(bundle, threads=args.threads, selftest=False)
    measure(session, images, args.source, min(20, args.frames), settings[0])  # warm-up
    runs: dict[int, list[dict[str, Any]]] = {workers: [] for workers in settings}
    for _ in range(args.rounds):
        for workers in settings:
            runs[workers].append(measure(session, images, args.source, args.frames, workers))
    result = {
        "benchmark": "bench_pipeline",
        "machine": machine_info(),
        "versions": versions(),
        "bundle": {"name": bundle.name, "digest": bundle.digest, "frame": [bundle.frame_height, bundle.frame_width]},
        "source": args.source,
        "threads": args.threads,
        "peak_rss_mb": round(peak_rss_bytes() / 1e6, 1),
        "workers": {
            str(workers): {
                "fps_median": statistics.median(run["fps"] for run in group),
                "fps_all": [run["fps"] for run in group],
                "last": group[-1],
            }
            for workers, group in runs.items()
        },
    }
    for workers, group in runs.items():
        last = group[-1]
        stages = "  ".join(f"{name} {last['stages_ms'][name]['p50']:.2f}" for name in ("encode", "predict", "code"))
        fps = statistics.median(run["fps"] for run in group)
        print(
            f"workers {workers}: {fps:6.1f} fps   {last['cpu_ms_per_frame']:6.1f} CPU ms/frame   {stages} ms   "
            f"{last['rate']['bpp']:.3f} bpp"
        )
    record.write_result(args, "bench_pipeline", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
