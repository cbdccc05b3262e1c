"""What do pairs and contexts save on latents of trained codecs, and what do they cost?

    python benchmarks/bench_contexts.py --camvid PATH --imagenet PATH --kodak PATH [--bundle DIR ...] [--rounds 201]

Per bundle: latents of CamVid train and of photographs make three entropy models, one table per channel, one of pairs, and contexts; all
code the latents of CamVid val and of Kodak, which none has seen, as whole packets. Speed is that of `PacketCodec` from Python, packet, CRCs
included, the three in turn within each round of one process, on one CamVid val latent; process CPU time, medians.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray

from percodec.export.bundles.context_tables import learn_contexts
from percodec.export.bundles.from_checkpoint import latents_of
from percodec.export.data.sets import load
from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.any_size import BundleAtAnySize, crop8
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import EntropyModel, PacketCodec, StepsModel, _rans, count_pairs

HERE = Path(__file__).parent
DEFAULT = tuple(HERE / "bundles" / f"lab-{point}" for point in ("0.0983", "0.330", "0.635"))
Latent = NDArray[np.uint8]


def bytes_of(model: EntropyModel | StepsModel, latents: list[Latent]) -> int:
    return sum(len(PacketCodec(model, *z.shape[1:]).encode(z, frame_id=0, timestamp_ns=0)) for z in latents)


def microseconds(call: Callable[[], Any]) -> float:
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1000


def speed(models: dict[str, EntropyModel], latent: Latent, rounds: int) -> dict[str, Any]:
    """Medians per model, and medians over rounds of the ratio order-0 / another."""
    codecs = {name: PacketCodec(model, *latent.shape[1:]) for name, model in models.items()}
    packets = {name: codec.encode(latent, frame_id=0, timestamp_ns=0) for name, codec in codecs.items()}
    out, found = np.empty_like(latent), {f"{name}_{way}": [] for name in codecs for way in ("encode", "decode")}
    for _ in range(rounds):
        for name, codec in codecs.items():
            found[f"{name}_encode"].append(microseconds(lambda c=codec: c.encode(latent, frame_id=0, timestamp_ns=0)))
            found[f"{name}_decode"].append(microseconds(lambda c=codec, p=packets[name]: c.decode(p, out)))
        assert np.array_equal(out, latent)
    ratios = {
        name: {
            way: statistics.median(a / b for a, b in zip(found[f"order0_{way}"], found[f"{name}_{way}"], strict=True))
            for way in ("encode", "decode")
        }
        for name in ("pairs", "contexts")
    }
    lanes = {name: codec.decode(packets[name])[0].lanes for name, codec in codecs.items()}
    return {"microseconds": {name: statistics.median(v) for name, v in found.items()}, "speed_of_order0": ratios, "lanes": lanes}


def measure(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(path)
    training = [load(f"camvid:{args.camvid}:train"), load(f"folder:{args.imagenet}")]
    encoder = graph_function(bundle.graph("encoder"), threads=2)
    seen = latents_of(encoder, training, bundle.frame_height, bundle.frame_width)
    counts = np.stack([np.bincount(seen[:, c].ravel(), minlength=bundle.levels) for c in range(seen.shape[1])])
    began = time.process_time()
    pairs = sum(count_pairs(z, bundle.levels) for z in seen)
    models = {"order0": EntropyModel.from_counts(counts), "pairs": EntropyModel.from_counts(pairs)}
    models["contexts"] = learn_contexts(seen, bundle.levels)
    learned_s = time.process_time() - began
    any_size, sets = BundleAtAnySize(bundle), {}
    for name, spec in (("camvid/val", f"camvid:{args.camvid}:val"), ("kodak", f"folder:{args.kodak}")):
        pictures = [crop8(p) for p in load(spec).images]
        latents = [np.ascontiguousarray(any_size.symbols(p)[1]) for p in pictures]
        pixels = sum(64 * z.shape[1] * z.shape[2] for z in latents)
        size = {k: bytes_of(m, latents) for k, m in models.items()}
        bpp = {k: 8 * v / pixels for k, v in size.items()}
        sets[name] = {"pictures": len(latents), "bpp": bpp, "saved": {k: 1 - size[k] / size["order0"] for k in ("pairs", "contexts")}}
        sets[name]["bpp_as_exported"] = 8 * bytes_of(bundle.entropy_model, latents) / pixels
        if name == "camvid/val":
            timed = speed(models, latents[0], args.rounds)
    tables = {name: len(model.to_bytes()) for name, model in models.items()}
    return {"bundle": bundle.name, "latent": list(seen.shape[1:]), "sets": sets, **timed, "table_bytes": tables, "learned_s": learned_s}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--imagenet", required=True, help="any folder of photographs")
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=201)
    record.add_arguments(parser)
    args = parser.parse_args()
    cases = []
    for path in args.bundle or DEFAULT:
        case = measure(path, args)
        cases.append(case)
        for kind, way in case["speed_of_order0"].items():
            saved = ", ".join(f"{name} {100 * s['saved'][kind]:.1f} %" for name, s in case["sets"].items())
            print(
                f"{case['bundle']}, {kind}: saved {saved}; encode {way['encode']:.2f}, decode {way['decode']:.2f} of order 0's speed",
                flush=True,
            )
    result = {
        "benchmark": "bench_contexts",
        "command": "python benchmarks/bench_contexts.py --camvid PATH --imagenet PATH --kodak PATH",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": {"cpu": record.cpu_name(), "kernels": [k.name.lower() for k in _rans.Kernel if _rans.kernel_supported(k)][1:]},
        "rounds": args.rounds,
        "cases": cases,
    }
    record.write_result(args, "bench_contexts", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
