"""What does an encoder cost on a 1080p picture, and what does it give for that?

    python benchmarks/bench_encoders.py --camvid PATH --kodak PATH [--bundle DIR ...] [--rounds 15]

Each bundle's encoder in INT8 as `percodec build --target host --precision int8` makes it, calibrated on CamVid's training frames.
Cost: from the uint8 picture to the packet at 1920x1080 (CamVid val frames enlarged; 1088 rows, whole cells), one thread, next to
libjpeg-turbo at quality 80 (OpenCV) and AVIF at speed 6 and quality 60 (Pillow; 0.31 bpp on these pictures), in turn within each round
of one process; process CPU time, medians, ratios of paired rounds.
Gain: bits of whole packets, PSNR and MS-SSIM of CamVid val and Kodak through that same INT8 encoder; the other codecs' curves are those of
lab_rd_*.json, interpolated at the bundle's rate. mIoU: of the bundle's cResNet-39-d, where it has one, as exported.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import record
import torch
from PIL import Image

from percodec.export.data.sets import load
from percodec.export.engines.build import Calibration, explicit_graph, plan_for
from percodec.export.engines.free_shapes import freed
from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.any_size import crop8
from percodec.export.evaluate.codecs import Picture
from percodec.export.evaluate.compute import count_macs
from percodec.export.evaluate.perception import rows_of_metrics
from percodec.export.evaluate.rd import at_rate, bundle_point
from percodec.export.models import AUTOENCODERS
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.targets import target

HERE = Path(__file__).parent
DEFAULT = ("fast-0.330", "fast-0.635", "balanced-0.330", "balanced-0.635", "lab-0.330", "lab-0.635")
ROAD = HERE / "bundles" / "road-edge"
OTHERS = ("jpeg", "webp", "avif")
SETS = {"camvid_val": "lab_rd_camvid_val", "kodak": "lab_rd_kodak"}
SIZE = (1088, 1920)
HEAD = "cresnet39-d"


def kmac_per_pixel(name: str, channels: int) -> float:
    """Of the encoder."""
    return count_macs(AUTOENCODERS[name](channels, 6, 1.0).eval().g_a, torch.zeros(1, 3, 224, 224)) / 224**2 / 1000


def in_turn(ways: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """CPU ms of each way in each round, all of them one after the other; two rounds before that do not count. A way is given the round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(-2, rounds):
        for name, way in ways.items():
            start = time.process_time_ns()
            way(k)
            if k >= 0:
                times[name].append((time.process_time_ns() - start) / 1e6)
    return times


def paired(times: list[float], base: list[float]) -> float:
    """The median of the ratios of one round each."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def avif(picture: Picture) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "AVIF", quality=60, speed=6, subsampling="4:2:0", max_threads=1)
    return out.getvalue()


def cost(encoders: dict[str, tuple[Bundle, bytes]], pictures: list[Picture], rounds: int) -> dict[str, dict[str, float]]:
    cv2.setNumThreads(1)
    sizes = [cv2.resize(p, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for p in pictures]
    runs: dict[str, Callable[[Picture], object]] = {"jpeg": lambda p: cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 80]), "avif": avif}
    for name, (bundle, graph) in encoders.items():
        encode, coder = graph_function(freed(graph)), PacketCodec(bundle.entropy_model, SIZE[0] // 8, SIZE[1] // 8)
        runs[name] = lambda p, e=encode, c=coder: c.encode(e(p[None])[0], 0, 0)  # type: ignore[misc]
    times = in_turn({name: lambda k, run=run: run(sizes[k % len(sizes)]) for name, run in runs.items()}, rounds)  # type: ignore[misc]
    return {
        name: {"cpu_ms": statistics.median(values), **{f"times_{k}": paired(values, times[k]) for k in ("jpeg", "avif")}}
        for name, values in times.items()
    }


def rival_points(name: str) -> dict[str, list[dict[str, Any]]]:
    (path,) = record.RECORDED.glob(f"{SETS[name]}-*.json")
    rows = json.loads(path.read_text())["rows"]
    return {codec: [r for r in rows if r["codec"] == codec] for codec in OTHERS}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """MS-SSIM at the cost, one panel per set, JPEG, WebP and AVIF at the same rates open above and below; the last panel mIoU."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    judged = [r for r in rows if r["miou"] is not None]
    figure, axes = plt.subplots(1, len(SETS) + bool(judged), figsize=(5.2 * (len(SETS) + bool(judged)), 4.6))
    for axis, name in zip(axes, SETS, strict=False):
        for k, row in enumerate(rows):
            found, colour = row["sets"][name], f"C{k}"
            axis.plot(row["times_jpeg"], found["ms_ssim"], "o", color=colour, label=f"{row['bundle']}, {found['bpp']:.2f} bpp")
            for mark, other in zip("vs^", OTHERS, strict=True):
                at = found["others"][other]["ms_ssim"]
                if at is not None:
                    axis.plot(row["times_jpeg"], at, mark, color=colour, markerfacecolor="none", markersize=5)
        front(axis, [(r["times_jpeg"], r["sets"][name]["ms_ssim"]) for r in rows])
        axis.set(title=f"{name.replace('_', ' ')}, MS-SSIM", ylim=(min(r["sets"][name]["ms_ssim"] for r in rows) - 0.05, 0.99))
        axis.legend(fontsize=7, title="filled: ours; open: JPEG v, WebP s, AVIF ^ at that rate", title_fontsize=7, loc="lower right")
    if judged:
        for row in judged:
            axes[-1].plot(row["times_jpeg"], 100 * row["miou"], "o", color=f"C{rows.index(row)}", label=row["bundle"])
        front(axes[-1], [(r["times_jpeg"], 100 * r["miou"]) for r in judged])
        axes[-1].set(title=f"camvid val, mIoU of {HEAD}")
        axes[-1].legend(fontsize=7, loc="lower right")
    for axis in axes:
        axis.set(xscale="log", xlabel="CPU time of 1080p picture -> packet, times libjpeg-turbo q80")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def front(axis: Any, points: list[tuple[float, float]]) -> None:
    """The Pareto front: what nothing cheaper is as good as."""
    kept: list[tuple[float, float]] = []
    for cost, gain in sorted(points):
        if not kept or gain > kept[-1][1]:
            kept.append((cost, gain))
    axis.step(*zip(*kept, strict=True), where="post", color="grey", linewidth=1, zorder=0)


def measure(paths: list[Path], camvid: str, kodak: str, rounds: int) -> dict[str, Any]:
    """Cost and gain of the encoders of these bundles."""
    train, val = load(f"camvid:{camvid}:train"), load(f"camvid:{camvid}:val")
    frames = [train.images[k * len(train) // 64] for k in range(64)]
    pictures = {"camvid_val": [crop8(p) for p in val.images], "kodak": [crop8(p) for p in load(f"folder:{kodak}").images]}

    encoders: dict[str, tuple[Bundle, bytes]] = {}
    for path in paths:
        bundle = Bundle.open(path)
        made = explicit_graph(bundle, "encoder", plan_for(target("host"), "int8"), Calibration(bundle, frames))
        encoders[bundle.name] = (bundle, made.data)
        print(f"{bundle.name}: {made.report['convolutions']}", flush=True)
    spent = cost(encoders, val.images[:8], rounds)
    rows = []
    for name, (bundle, graph) in encoders.items():
        codec = bundle.manifest["provenance"]["config"]["codec"]
        row: dict[str, Any] = {"bundle": name, "digest": bundle.digest, "encoder": codec["name"], "channels": codec["channels"]}
        row |= {"kmac_per_pixel": kmac_per_pixel(codec["name"], codec["channels"]), **spent[name], "sets": {}}
        plain, integer = graph_function(bundle.graph("encoder")), graph_function(graph)
        differ = [(plain(f[None]) != integer(f[None])).mean() for f in val.images[:4]]
        exported = bundle.manifest["metrics"]
        heads = rows_of_metrics(bundle, "segmentation", exported) if "heads" in exported else []
        row["miou"] = next((h["miou"] for h in heads if h["network"] == HEAD), None)
        row["symbols_differ_from_fp32"] = float(np.mean(differ))
        for key, some in pictures.items():
            point = bundle_point(bundle, some, encoder=graph)
            others = {c: {m: at_rate(p, point["bpp"], m) for m in ("ms_ssim", "psnr_db")} for c, p in rival_points(key).items()}
            row["sets"][key] = {k: point[k] for k in ("bpp", "psnr_db", "ms_ssim")} | {"others": others}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": record.cpu_name()},
        "jpeg_q80_cpu_ms": spent["jpeg"]["cpu_ms"],
        "avif_s6_cpu_ms": spent["avif"]["cpu_ms"],
        "rounds": rounds,
        "rows": rows,
    }


def publish(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """JSON and picture, under the name of the benchmark."""
    record.write_result(args, result["benchmark"], result)
    draw(result["rows"], args.out / f"{result['benchmark']}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--bundle", type=Path, action="append", help=f"repeatable (default: road-edge and {', '.join(DEFAULT)})")
    parser.add_argument("--rounds", type=int, default=15)
    record.add_arguments(parser)
    args = parser.parse_args()
    paths = args.bundle or [ROAD, *(HERE / "bundles" / name for name in DEFAULT)]
    result = {"benchmark": "bench_encoders", "command": "python benchmarks/bench_encoders.py --camvid PATH --kodak PATH"}
    result |= measure(paths, args.camvid, args.kodak, args.rounds)
    publish(args, result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
