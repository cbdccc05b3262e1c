"""percodec's stream or a video codec? Both at the same kbit/s, on the half of a drive that no table of ours was learned from.

    python benchmarks/bench_codecs.py --video PATH [--bundle DIR ...] [--rates 25,10,5,1]

Rivals are set for a live camera: no frame waits for a later one, one thread, a key frame every 25 frames as ours. Pictures are those that
the bundle's networks get, at its frame size; PSNR and MS-SSIM are of RGB. `labels` is the share of pixels whose class, predicted from what
arrives, is the one the vehicle's own network said; ours is 1 because the latent that arrives is the one it read. `same_ms_ssim_kbit_s` is
the rate at which the rival's picture is as good as ours. A bundle without a head has no such network: there `labels` is what the built-in
bundle's says of the original picture and of what arrives, ours decoded too. Of two decoders PSNR is that of one, MS-SSIM that of the other.
CPU time is the encoder's alone, all in turn in one process, medians of rounds; ours is given with its encoder network, which perception has
run anyway, and without. `tiers` are our own streams at 25 frames/s beside each other, every eighth picture decoded.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from numpy.typing import NDArray
from video_pictures import fitted_pictures

from percodec.export.metrics.similarity import ms_ssim, psnr
from percodec.runtime import Session, default_bundle
from percodec.sdk.bundle import Bundle
from percodec.sdk.machine import machine_info, versions

KEY_EVERY, ROUNDS, EVERY = 25, 3, 8
BUNDLES = Path(__file__).parent / "bundles"
RIVALLED = [BUNDLES / "road-edge", BUNDLES / "refined-0.33"]
TIERS = [BUNDLES / name for name in ("balanced-0.330", "balanced-0.635", "block-0.28", "block-0.62", "refined-0.33", "refined-0.63")]
Pictures = list[NDArray[np.uint8]]
os.environ.setdefault("SVT_LOG", "1")  # errors alone
QUIET = "log-level=none:pools=none"
# Encoder, decoder, options beside the rate factor, its range and its step.
RIVALS: dict[str, tuple[str, str, dict[str, str], tuple[float, float], float]] = {
    "x264 veryfast": ("libx264", "h264", {"preset": "veryfast", "tune": "zerolatency"}, (8, 51), 0.5),
    "x265 veryfast": ("libx265", "hevc", {"preset": "veryfast", "tune": "zerolatency", "x265-params": QUIET}, (8, 51), 0.5),
    "SVT-AV1 preset 8": ("libsvtav1", "libdav1d", {"preset": "8", "svtav1-params": "pred-struct=1:lp=1:rc=0"}, (8, 63), 1),
}  # fmt: skip


def yuv_of(pictures: Pictures) -> list[Any]:
    import av

    return [av.VideoFrame.from_ndarray(one, format="rgb24").reformat(format="yuv420p") for one in pictures]


def coded(name: str, factor: float, fps: int, frames: list[Any]) -> tuple[list[Any], float]:
    """A rival's packets of `frames`, and its CPU seconds."""
    import av

    encoder, _, options, _, step = RIVALS[name]
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, fps), Fraction(fps)
    context.gop_size, context.thread_count = KEY_EVERY, 1
    context.options = {**options, "crf": f"{factor:.0f}" if step == 1 else f"{factor:.2f}"}
    with as_nobody():
        context.open()
    begin, packets = time.process_time(), []
    for k, frame in enumerate(frames):
        frame.pts, frame.time_base = k, Fraction(1, fps)
        packets += context.encode(frame)
    packets += context.encode(None)
    return packets, time.process_time() - begin


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights: SVT-AV1 gives its threads real-time priority where it may, and starves a machine of two cores."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def pictures_of(name: str, packets: list[Any]) -> Pictures:
    import av

    context: Any = av.CodecContext.create(RIVALS[name][1], "r")
    context.thread_count = 1
    found = [frame for packet in packets for frame in context.decode(packet)]
    return [frame.to_ndarray(format="rgb24") for frame in [*found, *context.decode(None)]]


def factor_for(name: str, enough: Callable[[float], bool]) -> float:
    """The largest rate factor, that is the fewest bytes, at which it is `enough`; the smallest of all where none is."""
    *_, (least, most), step = RIVALS[name]
    low, high = 0, round((most - least) / step) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if enough(least + middle * step) else (low, middle)
    return least + low * step


def quality(originals: Pictures, others: Pictures) -> dict[str, float]:
    """Means over pictures."""
    assert len(originals) == len(others)
    pairs = [
        [torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)))[None].float() for one in pair]
        for pair in zip(originals, others, strict=True)
    ]
    with torch.inference_mode():
        return {
            "psnr_db": round(statistics.fmean(psnr(a, b) for a, b in pairs), 2),
            "ms_ssim": round(statistics.fmean(float(ms_ssim(a, b)) for a, b in pairs), 4),
        }


def kbit_s(packets: list[Any], fps: int, frames: int) -> float:
    return sum(len(bytes(one)) for one in packets) * 8 * fps / frames / 1000


def ours(session: Session, pictures: Pictures, fps: int, every: int = 1) -> tuple[dict[str, Any], Pictures]:
    """Rate and quality of the stream, quality of every so many pictures, and those pictures as decoded."""
    stream, other = session.stream(KEY_EVERY), session.stream(KEY_EVERY)
    names, packets, arrived = session.bundle.decoders, [], []
    for k, picture in enumerate(pictures):
        latent = session.encode(picture, frame_id=k, timestamp_ns=k)
        packets.append(stream.pack(latent))
        arrived.append(other.unpack(packets[-1]))
        assert np.array_equal(arrived[-1].symbols, latent.symbols)
    decoded = [session.decode(latent) for latent in arrived[::every]]
    found = {"kbit_s": round(kbit_s(packets, fps, len(pictures)), 1), **quality(pictures[::every], decoded)}
    if "ms_ssim" in names:
        found["ms_ssim"] = quality(pictures[::every], [session.decode(latent, prefer="ms-ssim") for latent in arrived[::every]])["ms_ssim"]
    return found, decoded


def labels_of(session: Session, pictures: Pictures) -> list[NDArray[np.uint8]]:
    """What a bundle's network says of them."""
    return [session.predict(session.encode(picture, frame_id=k, timestamp_ns=k)).labels for k, picture in enumerate(pictures)]


def alike(one: list[NDArray[np.uint8]], other: list[NDArray[np.uint8]]) -> float:
    return round(statistics.fmean(float((a == b).mean()) for a, b in zip(one, other, strict=True)), 4)


def our_seconds(session: Session, pictures: Pictures) -> tuple[float, float]:
    """CPU of the encoder network, and of the stream's packets."""
    begin = time.process_time()
    latents = [session.encode(picture, frame_id=k, timestamp_ns=k) for k, picture in enumerate(pictures)]
    middle, stream = time.process_time(), session.stream(KEY_EVERY)
    for latent in latents:
        stream.pack(latent)
    return middle - begin, time.process_time() - middle


def measure(session: Session, judge: Session, pictures: Pictures, fps: int) -> dict[str, Any]:
    """`judge` is `session` itself where it has a head: then what arrives is what it read."""
    found, ours_decoded = ours(session, pictures, fps)
    labels = labels_of(judge, pictures)
    found["labels"] = 1.0 if judge is session else alike(labels, labels_of(judge, ours_decoded))
    frames, some = yuv_of(pictures), pictures[:: max(1, len(pictures) // 12)]
    step = max(1, len(pictures) // 12)

    def as_good(name: str, factor: float) -> bool:
        others = pictures_of(name, coded(name, factor, fps, frames)[0])[::step]
        return quality(some, others)["ms_ssim"] >= found["ms_ssim"]

    factors, rivals = {}, {}
    for name in RIVALS:
        *_, (low, _), _ = RIVALS[name]
        sizes: dict[float, float] = {}

        def too_many(factor: float, name: str = name, sizes: dict[float, float] = sizes) -> bool:
            sizes[factor] = kbit_s(coded(name, factor, fps, frames)[0], fps, len(frames))
            return sizes[factor] > found["kbit_s"]

        factor_for(name, too_many)
        factors[name] = factor = min(sizes, key=lambda one: abs(sizes[one] - found["kbit_s"]))
        packets, _ = coded(name, factor, fps, frames)
        decoded = pictures_of(name, packets)
        same = factor_for(name, lambda factor, name=name: as_good(name, factor))
        rivals[name] = {
            "kbit_s": round(kbit_s(packets, fps, len(frames)), 1),
            **quality(pictures, decoded),
            "labels": alike(labels, labels_of(judge, decoded)),
            "crf": round(factor, 1),
            "same_ms_ssim_kbit_s": round(kbit_s(coded(name, same, fps, frames)[0], fps, len(frames)), 1) if same > low else None,
        }
    times: dict[str, list[float]] = {"network": [], "packets": [], **{name: [] for name in RIVALS}}
    for _ in range(ROUNDS):
        for name, spent in zip(("network", "packets"), our_seconds(session, pictures), strict=True):
            times[name].append(spent)
        for name in RIVALS:
            times[name].append(coded(name, factors[name], fps, frames)[1])
    per = {name: round(1e3 * statistics.median(spent) / len(frames), 2) for name, spent in times.items()}
    found |= {"cpu_ms_packet": per["packets"], "cpu_ms": round(per["network"] + per["packets"], 2)}
    for name, one in rivals.items():
        one["cpu_ms"] = per[name]
    return {"fps": fps, "frames": len(frames), "percodec": found, **rivals}


def second_half(bundle: Bundle, video: Path) -> Pictures:
    pictures = list(fitted_pictures(video, bundle.frame_height, bundle.frame_width, bundle.fit))
    return pictures[len(pictures) // 2 :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, help="a drive at 25 frames a second; its second half is used")
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="default: road-edge and refined-0.33")
    parser.add_argument("--rates", default="25,10,5,1", help="frames a second (default 25,10,5,1)")
    record.add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load, cases, tiers = os.getloadavg()[0], [], []
    for path in args.bundle or TIERS:
        bundle = Bundle.open(path)
        with Session.open(bundle, threads=1, heads=()) as session:
            tiers.append({"bundle": bundle.name, **ours(session, second_half(bundle, args.video), 25, EVERY)[0]})
            print(tiers[-1], flush=True)
    for path in args.bundle or RIVALLED:
        bundle = Bundle.open(path)
        pictures = second_half(bundle, args.video)
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(Session.open(bundle, threads=1))
            judge = session if bundle.heads else stack.enter_context(Session.open(default_bundle(), threads=1))
            for fps in map(int, args.rates.split(",")):
                picked = [pictures[round(k * 25 / fps)] for k in range(len(pictures) * fps // 25)]
                cases.append(
                    {"bundle": bundle.name, "size": [bundle.frame_width, bundle.frame_height], **measure(session, judge, picked, fps)}
                )
                print(cases[-1], flush=True)
    result = {
        "benchmark": "bench_codecs", "command": "python benchmarks/bench_codecs.py --video PATH", "date": datetime.date.today().isoformat(),
        "machine": machine_info(), "versions": versions(), "video": args.video.name, "key_every": KEY_EVERY, "rounds": ROUNDS,
        "load_average": round(load, 1), "every": EVERY, "cases": cases, "tiers": tiers,
    }  # fmt: skip
    record.write_result(args, "bench_codecs", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
