"""What do predicted packets save on a real stream, and what do they cost?

    python benchmarks/bench_video.py --video PATH --camvid PATH --imagenet PATH [--bundle DIR ...] [--key-every 25]

Per bundle: the latents of a clip, its first half to learn tables from, its second half to code. Key packets use contexts learned on
CamVid train and photographs, as an exported bundle would; `intra` are all packets so, `intra on the clip` with contexts learned on its
first half as well; `stream` is `VideoCodec` with predicted packets in between. Bytes are those of whole packets. Speed is from Python,
CRCs and copies included, one predicted packet and one intra packet in turn within each round of one process; process CPU time, medians.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import statistics
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import record
from bench_contexts import DEFAULT, HERE, Latent, bytes_of, microseconds
from numpy.typing import NDArray

from percodec.export.bundles.context_tables import learn_contexts
from percodec.export.bundles.from_checkpoint import latents_of
from percodec.export.data.specs import load
from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.any_size import BundleAtAnySize, crop8
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import EntropyModel, PacketCodec, VideoCodec

TIERS = [HERE / "bundles" / f"{name}-0.635" for name in ("fast", "balanced")]


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(crop8(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))


def speed(intra: EntropyModel, key: EntropyModel, predicted: EntropyModel, latents: list[Latent], rounds: int) -> dict[str, Any]:
    shape = latents[0].shape[1:]
    alone, sender, receiver = PacketCodec(intra, *shape), VideoCodec(key, predicted, *shape, key_every=1 << 30), None
    receiver = VideoCodec(key, predicted, *shape)
    receiver.decode(sender.encode(latents[0], 0, 0))
    found: dict[str, list[float]] = {f"{kind}_{way}": [] for kind in ("intra", "predicted") for way in ("encode", "decode")}
    packets: dict[str, bytes] = {}

    def keep(name: str, packet: bytes) -> None:
        packets[name] = packet

    for k in range(1, rounds + 1):
        latent = latents[k % len(latents)]
        found["intra_encode"].append(microseconds(lambda z=latent: keep("intra", alone.encode(z, 0, 0))))
        found["intra_decode"].append(microseconds(lambda: alone.decode(packets["intra"])))
        found["predicted_encode"].append(microseconds(lambda z=latent: keep("predicted", sender.encode(z, 0, 0))))
        found["predicted_decode"].append(microseconds(lambda: receiver.decode(packets["predicted"])))
    ratios = {
        way: statistics.median(a / b for a, b in zip(found[f"intra_{way}"], found[f"predicted_{way}"], strict=True))
        for way in ("encode", "decode")
    }
    return {"microseconds": {name: statistics.median(v) for name, v in found.items()}, "speed_of_intra": ratios}


def measure(path: Path, frames: list[NDArray[np.uint8]], args: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(path)
    encoder = graph_function(bundle.graph("encoder"), threads=2)
    seen = latents_of(
        encoder, [load(f"camvid:{args.camvid}:train"), load(f"folder:{args.imagenet}")], bundle.frame_height, bundle.frame_width
    )
    coder = BundleAtAnySize(bundle)
    latents = [np.ascontiguousarray(coder.symbols(frame)[1]) for frame in frames]
    half = len(latents) // 2
    pairs = np.stack([np.concatenate(pair) for pair in itertools.pairwise(latents[:half])])
    counts = np.stack([np.bincount(seen[:, c].ravel(), minlength=bundle.levels) for c in range(seen.shape[1])])
    order0, intra = EntropyModel.from_counts(counts), learn_contexts(seen, bundle.levels)
    on_clip = learn_contexts(np.stack(latents[:half]), bundle.levels)
    predicted = learn_contexts(pairs, bundle.levels, temporal=True)
    rest = latents[half:]
    video = VideoCodec(intra, predicted, *rest[0].shape[1:], key_every=args.key_every)
    receiver = VideoCodec(intra, predicted, *rest[0].shape[1:])
    stream = 0
    for k, latent in enumerate(rest):
        packet = video.encode(latent, frame_id=k, timestamp_ns=k)
        stream += len(packet)
        assert np.array_equal(receiver.decode(packet)[1], latent)
    sizes = {
        "order 0": bytes_of(order0, rest),
        "intra": bytes_of(intra, rest),
        "intra on the clip": bytes_of(on_clip, rest),
        "stream": stream,
    }
    per_frame = {name: size / len(rest) for name, size in sizes.items()}
    case = {"bundle": bundle.name, "frames": len(rest), "latent": list(rest[0].shape), "bytes_per_frame": per_frame}
    case["saved"] = {name: 1 - stream / size for name, size in sizes.items() if name != "stream"}
    case |= {f"{k}_order0": v for k, v in speed(order0, intra, predicted, rest, args.rounds).items()}
    return case | speed(intra, intra, predicted, rest, args.rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--imagenet", required=True, help="any folder of photographs")
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--key-every", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=200)
    record.add_arguments(parser)
    args = parser.parse_args()
    frames, cases = frames_of(args.video), []
    for path in args.bundle or [*DEFAULT, *TIERS]:
        case = measure(path, frames, args)
        cases.append(case)
        saved, way = case["saved"], case["speed_of_intra"]
        print(
            f"{case['bundle']}: {case['bytes_per_frame']['stream']:.0f} bytes a frame, saved {100 * saved['intra']:.1f} % of intra, "
            f"{100 * saved['intra on the clip']:.1f} % of intra on the clip; encode {way['encode']:.2f} x, decode {way['decode']:.2f} x",
            flush=True,
        )
    result = {
        "benchmark": "bench_video",
        "command": "python benchmarks/bench_video.py --video PATH --camvid PATH --imagenet PATH",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": {"cpu": record.cpu_name()},
        "video": args.video.name,
        "key_every": args.key_every,
        "cases": cases,
    }
    record.write_result(args, "bench_video", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
