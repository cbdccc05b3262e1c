"""What do codecs with a step for each channel cost and give, next to JPEG, WebP, AVIF and JPEG XL at the same rate?

    python benchmarks/bench_blocks.py --camvid PATH --kodak PATH [--bundle DIR ...] [--rounds 31]

Cost: from the uint8 picture to the packet at 1920x1080, the encoder in INT8 where the bundle has it, one thread, in turn with libjpeg-turbo
at quality 80 within each round; CPU time, medians, ratios of paired rounds. Gain: bits of whole packets, PSNR and MS-SSIM by each of the
bundle's decoders, through the same encoder. `coder`: its speed on a latent of 1920x1080 put together from Kodak, as in `bench_steps.py`.
`coarsened`: the same bundle with symbols near 0 dropped, as `run --target-kbps` does it. The curves of JPEG, WebP and AVIF are those of
lab_rd_*.json, interpolated at the bundle's rate. That of JPEG XL (libjxl, effort 7) is measured where `pillow-jxl-plugin` is installed
(from PyPI, no dependency of percodec's), and kept in `--work`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import io
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import record
from bench_encoders import OTHERS, SIZE, in_turn, kmac_per_pixel, paired, rival_points
from bench_steps import montage, speed
from PIL import Image

from percodec.export.data.sets import load
from percodec.export.engines.free_shapes import freed
from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.any_size import BundleAtAnySize, crop8
from percodec.export.evaluate.codecs import Codec, Picture
from percodec.export.evaluate.rd import Point, at_rate, curve, measure
from percodec.runtime.pipeline.rate import RateControl
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec

HERE = Path(__file__).parent
DEFAULT = ("block-0.28", "block-0.62", "block-0.33", "block-0.63", "refined-0.33", "refined-0.63")
INTEGER = Path("engines", "host-int8", "encoder.onnx")  # as `percodec build --precision int8 --graph encoder` makes it
METRICS = ("psnr_db", "ms_ssim")
JXL_QUALITIES = (5.0, 12.0, 25.0, 40.0, 55.0, 65.0)


def encoder_of(bundle: Bundle) -> bytes:
    """The encoder in INT8, or, where the bundle has none, in FP32."""
    file = Path(bundle.path) / INTEGER
    return file.read_bytes() if file.exists() else bundle.graph("encoder")


def cost(encoders: dict[str, tuple[Bundle, bytes]], pictures: list[Picture], rounds: int) -> dict[str, dict[str, float]]:
    """Next to JPEG alone: what takes a hundred times as long would leave cold caches to whoever comes after it."""
    cv2.setNumThreads(1)
    sizes = [cv2.resize(p, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for p in pictures]
    ways: dict[str, Callable[[int], object]] = {
        "jpeg": lambda k: cv2.imencode(".jpg", sizes[k % len(sizes)], [cv2.IMWRITE_JPEG_QUALITY, 80])
    }
    for name, (bundle, graph) in encoders.items():
        encode, coder = graph_function(freed(graph)), PacketCodec(bundle.entropy_model, SIZE[0] // 8, SIZE[1] // 8)
        ways[name] = lambda k, e=encode, c=coder: c.encode(e(sizes[k % len(sizes)][None])[0], 0, 0)  # type: ignore[misc]
    times = in_turn(ways, rounds)
    return {
        name: {"cpu_ms": statistics.median(t), "quickest_ms": min(t), "times_jpeg": paired(t, times["jpeg"])} for name, t in times.items()
    }


def jxl(data: bytes, height: int, width: int) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def as_jxl(picture: Picture, quality: float) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JXL", quality=quality, effort=7, num_threads=1)
    return out.getvalue()


def curves(name: str, pictures: list[Picture], work: Path) -> dict[str, list[Point]]:
    """Of each other codec; that of JPEG XL where the plug-in is, measured once."""
    found, kept = rival_points(name), work / f"jxl-{name}.json"
    try:
        importlib.import_module("pillow_jxl")
    except ImportError:
        return found
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(curve(Codec("jxl", JXL_QUALITIES, as_jxl, jxl), pictures)))
    return {**found, "jxl": json.loads(kept.read_text())}


def points(bundle: Bundle, encoder: bytes, pictures: list[Picture]) -> dict[str, Any]:
    """Mean bits a pixel, ideal bits a pixel, and by decoder PSNR and MS-SSIM."""
    ours, bits, ideal = BundleAtAnySize(bundle, encoder), [], []
    decoders: dict[str, list[dict[str, float]]] = {f"decoder_{name}".rstrip("_"): [] for name in bundle.decoders}
    decode = {name: graph_function(freed(bundle.graph(name))) for name in decoders}
    for picture in pictures:
        packet, symbols = ours.symbols(picture)
        pixels = picture.shape[0] * picture.shape[1]
        bits.append(8 * len(packet) / pixels)
        ideal.append(bundle.entropy_model.cost_bits(symbols) / pixels)
        for name, found in decoders.items():
            found.append(measure(picture, decode[name](symbols[None])[0]))
    means = {name: {m: float(np.mean([f[m] for f in found])) for m in METRICS} for name, found in decoders.items()}
    return {"bpp": float(np.mean(bits)), "bpp_ideal": float(np.mean(ideal)), "decoders": means}


def coarsened(bundle: Bundle, bpp: float, pictures: list[Picture]) -> dict[str, float]:
    """A bundle whose frames are the pictures, held to `bpp` by dropping symbols near 0: each packet has at most that."""
    codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    encode, decode = graph_function(bundle.graph("encoder")), graph_function(bundle.graph("decoder"))
    bits, found = [], []
    for picture in pictures:
        pixels = picture.shape[0] * picture.shape[1]
        rate = RateControl(bundle, codec, max_bytes=round(bpp * pixels / 8))
        symbols = encode(picture[None])[0].copy()
        rate.coarsen(symbols)
        bits.append(8 * len(codec.encode(symbols, 0, 0)) / pixels)
        found.append(measure(picture, decode(symbols[None])[0]))
    return {"bpp": float(np.mean(bits)), **{m: float(np.mean([f[m] for f in found])) for m in METRICS}}


def integers() -> str:
    """What multiplies bytes here, which decides what INT8 costs."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    known = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI", "asimddp": "SDOT", "avx2": "AVX2 without VNNI"}
    return next((said for flag, said in known.items() if flag in flags), "unknown")


def draw(rows: list[dict[str, Any]], rivals: dict[str, dict[str, list[Point]]], path: Path) -> None:
    """PSNR and MS-SSIM over the rate, one row of panels per set."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    sets = list(rows[0]["sets"])
    figure, axes = plt.subplots(len(sets), 2, figsize=(10, 4.2 * len(sets)), squeeze=False)
    for line, name in zip(axes, sets, strict=True):
        for axis, metric in zip(line, METRICS, strict=True):
            for codec, found in rivals[name].items():
                axis.plot(*zip(*sorted((p["bpp"], p[metric]) for p in found), strict=True), label=codec)
            for kind, closed, decoder in dict.fromkeys(
                (r["codec"], r["closed_form"], d) for r in rows for d in r["sets"][name]["decoders"]
            ):
                alike = [r["sets"][name] for r in rows if (r["codec"], r["closed_form"]) == (kind, closed)]
                ours = [(found["bpp"], found["decoders"][decoder][metric]) for found in alike]
                axis.plot(*zip(*sorted(ours), strict=True), "o--", label=f"{kind}, {'closed form' if closed else decoder}")
            low = min(r["sets"][name]["others"]["jpeg"][metric] for r in rows)
            axis.set(title=f"{name.replace('_', ' ')}, {metric}", xlabel="bits a pixel", xlim=(0.2, 0.9))
            axis.set_ylim((low - 2, 36) if metric == "psnr_db" else (low - 0.02, 0.995))
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--bundle", type=Path, action="append", help=f"repeatable (default: {', '.join(DEFAULT)})")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--work", type=Path, default=Path("build/bench_blocks"), help="where curves of JPEG XL are kept")
    record.add_arguments(parser)
    args = parser.parse_args()
    val = load(f"camvid:{args.camvid}:val")
    pictures = {"camvid_val": [crop8(p) for p in val.images], "kodak": [crop8(p) for p in load(f"folder:{args.kodak}").images]}
    paths = args.bundle or [HERE / "bundles" / name for name in DEFAULT]
    encoders = {b.name: (b, encoder_of(b)) for b in map(Bundle.open, paths)}
    spent = cost(encoders, val.images[:8], args.rounds)
    rows: list[dict[str, Any]] = []
    for name, (bundle, graph) in encoders.items():
        codec = bundle.manifest["provenance"]["config"]["codec"]
        row: dict[str, Any] = {"bundle": name, "digest": bundle.digest, "kmac_per_pixel": kmac_per_pixel(codec["name"], codec["channels"])}
        row |= {"codec": codec["name"], "integer": graph != bundle.graph("encoder")}
        row["closed_form"] = bundle.manifest["provenance"]["step"] == 1  # a run's one step, of a decoder that stays as it was
        plain, integer = graph_function(bundle.graph("encoder")), graph_function(graph)
        row["symbols_differ_from_fp32"] = float(np.mean([(plain(f[None]) != integer(f[None])).mean() for f in val.images[:4]]))
        row |= {**spent[name], "sets": {}}
        for key, some in pictures.items():
            row["sets"][key] = points(bundle, graph, some)
        row["coder"] = speed(bundle.entropy_model, plain(crop8(montage(pictures["kodak"]))[None])[0], args.rounds)
        if alike := [r for r in rows if r["codec"] == row["codec"]]:
            row["coarsened_camvid_val"] = coarsened(bundle, alike[0]["sets"]["camvid_val"]["bpp"], val.images)
        rows.append(row)
        print(json.dumps(row), flush=True)
    rivals = {name: curves(name, some, args.work) for name, some in pictures.items()}
    for name, theirs in rivals.items():
        for row in rows:
            here = row["sets"][name]
            here["others"] = {c: {m: at_rate(p, here["bpp"], m) for m in METRICS} for c, p in theirs.items()}
    result = {
        "benchmark": "bench_blocks",
        "command": "python benchmarks/bench_blocks.py --camvid PATH --kodak PATH",
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": record.cpu_name(), "integers": integers()},
        "load": os.getloadavg()[0],
        "jpeg_q80_cpu_ms": spent["jpeg"]["cpu_ms"],
        "jpeg_q80_quickest_ms": spent["jpeg"]["quickest_ms"],
        "rounds": args.rounds,
        "others": [*OTHERS, *(c for c in rivals["kodak"] if c not in OTHERS)],
        "rows": rows,
    }
    record.write_result(args, "bench_blocks", result)
    draw(rows, rivals, args.out / "bench_blocks.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
