"""What does a 1080p frame cost whose head reads the latent four times smaller, and are its labels those of the small frame?

    python benchmarks/bench_large.py --bundle bundles/road-1080 --video PATH [--frames 40] [--record]

    ours        1080p picture -> letterbox -> encoder -> head -> packet
    rgb small   JPEG of it, quality 80 -> decoded -> 480x360 -> RGB network, nothing logged but the JPEG
    rgb whole   the same, the network on the whole picture

All networks in INT8, two threads, the ways in turn within each frame: medians of wall and CPU time. The video is enlarged to 1920x1080.
Labels: against those of the built-in bundle on the same picture at 480x272, its way of fitting.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import record
from numpy.typing import NDArray
from video_pictures import fitted_pictures

from percodec.export.engines.calibrate import measure
from percodec.export.engines.free_shapes import freed
from percodec.export.engines.graph_function import graph_function
from percodec.export.engines.onnx_graph import plain
from percodec.export.engines.precision import Plan, make_explicit
from percodec.runtime import Session, default_bundle
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.run.drawing import OverlayPainter
from percodec.sdk.machine import machine_info
from percodec.sdk.types import Frame

Picture = NDArray[np.uint8]
HERE = Path(__file__).resolve().parent
THREADS, QUALITY, CALIBRATION = 2, 80, 16
SMALL = (480, 360)


def rgb(path: Path, pictures: list[Picture]) -> Callable[[Picture], Any]:
    """The network in INT8, on pictures of any size."""
    given = [np.ascontiguousarray(cv2.resize(p, SMALL, interpolation=cv2.INTER_AREA)[None]) for p in pictures[:CALIBRATION]]
    network = freed(path.read_bytes())
    return graph_function(make_explicit(network, Plan("int8", activations="uint8"), measure(plain(network), given)).data, threads=THREADS)


def timed(ways: dict[str, Callable[[int], object]], frames: int) -> dict[str, dict[str, float]]:
    spent: dict[str, list[tuple[int, int]]] = {name: [] for name in ways}
    for k in range(frames + 3):
        for name, way in ways.items():
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            way(k % frames)
            spent[name].append((time.perf_counter_ns() - wall, time.process_time_ns() - cpu))
    medians = {name: np.median(np.array(found[3:]) / 1e6, axis=0) for name, found in spent.items()}
    return {name: {"wall_ms": round(float(w), 1), "cpu_ms": round(float(c), 1)} for name, (w, c) in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rgb", type=Path, default=HERE / "bundles" / "rgb-resnet50.onnx")
    parser.add_argument("--overlay", type=Path, help="write an overlay of the middle frame here")
    record.add_arguments(parser)
    args = parser.parse_args()
    pictures = list(fitted_pictures(args.video, 1080, 1920, "stretch"))
    pictures = pictures[:: max(1, len(pictures) // args.frames)][: args.frames]
    jpegs = [cv2.imencode(".jpg", p[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1] for p in pictures]
    with Session.open(args.bundle, threads=THREADS) as large, Session.open(default_bundle(), threads=THREADS) as small:
        fit = Preprocessor(large.bundle.frame_height, large.bundle.frame_width, large.bundle.fit)
        frame = np.empty((large.bundle.frame_height, large.bundle.frame_width, 3), np.uint8)
        sizes: list[int] = []

        def ours(k: int) -> None:
            fit(Frame(pictures[k], k, 0), frame)
            latent = large.encode(frame)
            large.predict(latent)
            sizes.append(len(large.pack(latent)))

        whole = (large.bundle.frame_width, large.bundle.frame_height)
        network = rgb(args.rgb, pictures)

        def theirs(size: tuple[int, int]) -> Callable[[int], object]:
            def way(k: int) -> object:
                decoded = cv2.imdecode(jpegs[k], cv2.IMREAD_COLOR)[..., ::-1]
                return network(np.ascontiguousarray(cv2.resize(decoded, size, interpolation=cv2.INTER_AREA))[None])

            return way

        times = timed({"ours": ours, "rgb small": theirs(SMALL), "rgb whole": theirs(whole)}, len(pictures))
        agreed = []
        for k, picture in enumerate(pictures):
            fit(Frame(picture, k, 0), frame)
            labels = large.predict(large.encode(frame)).labels
            shrunk = cv2.resize(frame, (480, 272), interpolation=cv2.INTER_AREA)
            with_bars = np.zeros((360, 480, 3), np.uint8)
            with_bars[44:316] = shrunk
            wanted = small.predict(small.encode(with_bars)).labels[44:316]
            agreed.append(float((labels[::4, ::4] == wanted).mean()))
            if args.overlay and k == len(pictures) // 2:
                painter = OverlayPainter(large.bundle, large.bundle.labels)
                cv2.imwrite(str(args.overlay), painter.blend(frame, labels))
        about = f"{large.bundle.name}@{large.bundle.digest[:12]}"
    result = {"benchmark": "bench_large", "date": datetime.date.today().isoformat(), "machine": machine_info(), "bundle": about}
    result |= {
        "command": "python benchmarks/bench_large.py --bundle bundles/road-1080 --video PATH",
        "times": times,
        "frames": len(pictures),
        "packet_bytes": float(np.mean(sizes)),
        "jpeg_bytes": float(np.mean([len(j) for j in jpegs])),
        "agreement": float(np.mean(agreed)),
    }
    for key, value in result.items():
        print(key, value)
    record.write_result(args, "bench_large", result)


if __name__ == "__main__":
    main()
