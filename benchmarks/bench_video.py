"""What do predicted packets save on a real stream, which frames should their tables be learned from, and what do they cost?

    python benchmarks/bench_video.py --video PATH --camvid PATH [--bundle DIR ...] [--key-every 25]

Per bundle: the second half of a clip, coded as `run --stream` does at the bundle's frame size. `intra` are its key tables alone; `stream`
its own tables of predicted packets in between; beside them tables learned from one source alone: CamVid val, the synthetic road, the
clip's first half. Bytes are those of whole packets. Speed is from Python, CRCs and copies included, one predicted packet and one intra
packet in turn within each round of one process; process CPU time, medians.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record
from bench_contexts import DEFAULT, HERE, Latent, bytes_of, microseconds

from percodec.export.bundles.stream_tables import learned_from, stream_pairs
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import EntropyModel, PacketCodec, StepsModel, VideoCodec

TIERS = [HERE / "bundles" / f"{tier}-{point}" for tier in ("fast", "balanced") for point in ("0.330", "0.635")]
ROAD_EDGE = HERE / "bundles" / "road-edge"
Model = EntropyModel | StepsModel
ROAD = "synthetic://road?frames=300&seed=1"


def speed(intra: Model, predicted: Model, latents: list[Latent], rounds: int) -> dict[str, Any]:
    shape = latents[0].shape[1:]
    alone, sender = PacketCodec(intra, *shape), VideoCodec(intra, predicted, *shape, key_every=1 << 30)
    receiver = VideoCodec(intra, predicted, *shape)
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


def stream_bytes(key: Model, predicted: Model, latents: list[Latent], key_every: int) -> int:
    """Of all packets, each decoded again."""
    shape, size = latents[0].shape[1:], 0
    sender, receiver = (VideoCodec(key, predicted, *shape, key_every=key_every) for _ in range(2))
    for k, latent in enumerate(latents):
        packet = sender.encode(latent, frame_id=k, timestamp_ns=k)
        size += len(packet)
        assert np.array_equal(receiver.decode(packet)[1], latent)
    return size


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(path)
    shipped, key, channels = bundle.stream_model, bundle.entropy_model, bundle.latent_shape[0]
    assert shipped is not None, f"{bundle.name} has no tables of predicted packets"
    clip = stream_pairs(bundle, str(args.video), most=1 << 30)
    half = (len(clip) + 1) // 2
    rest = [np.ascontiguousarray(z) for z in (clip[half - 1, channels:], *clip[half:, channels:])]
    sources = {"CamVid val": stream_pairs(bundle, f"{args.camvid}/val"), "synthetic road": stream_pairs(bundle, ROAD)}
    sources["first half"] = clip[: half - 1]
    tables = {name: learned_from(bundle, pairs) for name, pairs in sources.items()}
    sizes = {"intra": bytes_of(key, rest), "stream": stream_bytes(key, shipped, rest, args.key_every)}
    sizes |= {name: stream_bytes(key, model, rest, args.key_every) for name, model in tables.items()}
    case: dict[str, Any] = {"bundle": bundle.name, "frames": len(rest), "latent": list(bundle.latent_shape), "key_profile": key.profile}
    case |= {"learned_from": bundle.manifest["provenance"]["stream"], "table_bytes": len(shipped.to_bytes())}
    case["bytes_per_frame"] = {name: size / len(rest) for name, size in sizes.items()}
    case["saved"] = {name: 1 - size / sizes["intra"] for name, size in sizes.items() if name != "intra"}
    return case | speed(key, shipped, rest, args.rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--key-every", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=200)
    record.add_arguments(parser)
    args = parser.parse_args()
    cases = []
    for path in args.bundle or [ROAD_EDGE, *TIERS, *DEFAULT]:
        case = measure(path, args)
        cases.append(case)
        size, way = case["bytes_per_frame"], case["speed_of_intra"]
        alone = ", ".join(f"{100 * v:.1f} % with {name} alone" for name, v in case["saved"].items() if name != "stream")
        print(
            f"{case['bundle']}: intra {size['intra']:.0f}, stream {size['stream']:.0f} bytes a frame, saved "
            f"{100 * case['saved']['stream']:.1f} % ({alone}); encode {way['encode']:.2f} x, decode {way['decode']:.2f} x",
            flush=True,
        )
    result = {
        "benchmark": "bench_video",
        "command": "python benchmarks/bench_video.py --video PATH --camvid PATH" + "".join(f" --bundle {b.name}" for b in args.bundle),
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
