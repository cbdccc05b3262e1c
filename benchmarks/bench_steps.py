"""What do contexts save on latents of uniform steps, and how fast is their coder?

    python benchmarks/bench_steps.py --camvid PATH --imagenet PATH --kodak PATH [--rounds 101]

Latents of a transform without training: the 48 first eigenvectors of 8x8x3 blocks, one step for all channels, two steps. Photographs and
CamVid train give the tables; Kodak and CamVid val, which neither transform nor tables have seen, are coded as whole packets. Beside them
stands the ideal length of one table per channel, made from the same training latents, and that of the tables used.

Speed is that of the core, packet and CRCs included, on a latent of 1920x1080 put together from Kodak, each kernel in turn within each
round of one process; process CPU time, medians. Other work on the machine makes it slower, and `load` says how much there was.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray

from percodec.export.bundles.steps_tables import learn_steps
from percodec.export.data.sets import load
from percodec.sdk.codec import PacketCodec, StepsModel, _rans

CHANNELS, ROUNDING = 48, 0.4
STEPS = (100, 72)
KERNELS = [k for k in _rans.Kernel if _rans.kernel_supported(k) and k in (_rans.Kernel.SCALAR, _rans.Kernel.AVX2)]
Latent = NDArray[np.uint8]
Picture = NDArray[np.uint8]


def blocks(picture: Picture) -> NDArray[np.float32]:
    """[h/8, w/8, 192], what does not fill a block left out."""
    h, w = (side // 8 for side in picture.shape[:2])
    cut = picture[: 8 * h, : 8 * w].astype(np.float32) - 128
    return cut.reshape(h, 8, w, 8, 3).transpose(0, 2, 4, 1, 3).reshape(h, w, 192)


def crops(pictures: list[Picture], side: int, seed: int) -> list[Picture]:
    rng, out = np.random.default_rng(seed), []
    for p in pictures:
        h, w = min(side, p.shape[0]), min(side, p.shape[1])
        y, x = int(rng.integers(p.shape[0] - h + 1)), int(rng.integers(p.shape[1] - w + 1))
        out.append(p[y : y + h, x : x + w])
    return out


def values(picture: Picture, basis: NDArray[np.float32], step: float) -> NDArray[np.int64]:
    z = (blocks(picture) @ basis / step).transpose(2, 0, 1)
    found: NDArray[np.int64] = (np.sign(z) * np.floor(np.abs(z) + ROUNDING)).clip(-127, 127).astype(np.int64)
    return found


def montage(pictures: list[Picture]) -> Picture:
    """1088 x 1920 of pictures of 512 x 768 or more."""
    wide = [p for p in pictures if p.shape[1] >= 768][:9]
    rows = [np.concatenate([p[:512, :768] for p in wide[k : k + 3]], 1) for k in (0, 3, 6)]
    return np.concatenate(rows)[:1080, :1920]


def speed(model: StepsModel, latent: Latent, rounds: int) -> dict[str, Any]:
    coder = PacketCodec(model, *latent.shape[1:])._coder
    scratch, out = np.empty(coder.packet_bound, np.uint8), np.empty_like(latent)
    found: dict[str, list[float]] = {f"{k.name.lower()}_{way}": [] for k in KERNELS for way in ("encode", "decode")}
    for _ in range(rounds):
        for kernel in KERNELS:
            began = time.process_time_ns()
            packet = coder.encode(latent, scratch, 0, 0, 0, 0, 0, kernel)
            between = time.process_time_ns()
            assert isinstance(packet, bytes)
            assert coder.decode(packet, out, kernel)[0] == 0
            found[f"{kernel.name.lower()}_decode"].append((time.process_time_ns() - between) / 1e6)
            found[f"{kernel.name.lower()}_encode"].append((between - began) / 1e6)
            assert np.array_equal(out, latent)
    known = model.with_extents(latent)
    coded = sum(int(model.coded_at(known, c)[0].sum()) for c in range(model.channels)) / latent.size
    return {
        "latent": list(latent.shape),
        "bpp": 8 * len(packet) / (64 * latent[0].size),
        "coded": coded,
        "milliseconds": {name: statistics.median(v) for name, v in found.items()},
        "quickest_milliseconds": {name: min(v) for name, v in found.items()},
        "gsymbols_per_s": {name: latent.size / statistics.median(v) / 1e6 for name, v in found.items()},
    }


def measure(sets: dict[str, list[Picture]], basis: NDArray[np.float32], step: float, rounds: int) -> dict[str, Any]:
    found = {name: [values(p, basis, step) for p in pictures] for name, pictures in sets.items()}
    every = [z.reshape(CHANNELS, -1) for latents in found.values() for z in latents]  # steps saturate; here none has to
    low, high = -np.min([z.min(1) for z in every], 0), np.max([z.max(1) for z in every], 0)
    offsets, levels = low, low + high + 1
    symbols = {name: [np.ascontiguousarray(z + offsets[:, None, None], np.uint8) for z in latents] for name, latents in found.items()}
    began = time.process_time()
    model = learn_steps(symbols["train"], offsets.tolist(), levels.tolist())
    learned_s = time.process_time() - began
    counts = np.stack([np.bincount(np.concatenate([z[c].ravel() for z in symbols["train"]]), minlength=256) + 0.5 for c in range(CHANNELS)])
    bits = -np.log2(counts / counts.sum(1, keepdims=True))
    rows = {}
    for name in ("kodak", "camvid/val"):
        pixels = sum(64 * z[0].size for z in symbols[name])
        size = sum(len(PacketCodec(model, *z.shape[1:]).encode(z, frame_id=0, timestamp_ns=0)) for z in symbols[name])
        ideal = sum(model.cost_bits(z) for z in symbols[name]) / 8
        alone = sum(float(bits[c][z[c]].sum()) for z in symbols[name] for c in range(CHANNELS)) / 8
        rows[name] = {"pictures": len(symbols[name]), "bpp": 8 * size / pixels, "order0_bpp": 8 * alone / pixels}
        rows[name] |= {"saved": 1 - size / alone, "over_ideal": size / ideal - 1}
    timed = speed(model, symbols["montage"][0], rounds)
    return {"step": step, "sets": rows, "speed": timed, "table_bytes": len(model.to_bytes()), "learned_s": learned_s}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", required=True)
    parser.add_argument("--imagenet", required=True, help="any folder of photographs")
    parser.add_argument("--kodak", required=True)
    parser.add_argument("--rounds", type=int, default=101)
    record.add_arguments(parser)
    args = parser.parse_args()
    photographs = list(load(f"folder:{args.imagenet}").images)
    train = crops(photographs[:72] + list(load(f"camvid:{args.camvid}:train").images)[::16], 288, 0)
    kodak = list(load(f"folder:{args.kodak}").images)
    sets = {"train": train, "kodak": kodak, "camvid/val": list(load(f"camvid:{args.camvid}:val").images), "montage": [montage(kodak)]}
    flat = np.concatenate([blocks(p).reshape(-1, 192) for p in train]).astype(np.float64)
    basis = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :CHANNELS].astype(np.float32)
    load_before, cases = os.getloadavg()[0], []
    for step in STEPS:
        case = measure(sets, basis, step, args.rounds)
        cases.append(case)
        saved = ", ".join(f"{n} {s['bpp']:.3f} bpp, saved {100 * s['saved']:.1f} %" for n, s in case["sets"].items())
        speeds = ", ".join(f"{n} {v:.2f}" for n, v in case["speed"]["gsymbols_per_s"].items())
        print(f"step {step}: {saved}; Gsymbols/s: {speeds}", flush=True)
    result = {
        "benchmark": "bench_steps",
        "command": "python benchmarks/bench_steps.py --camvid PATH --imagenet PATH --kodak PATH",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": {"cpu": record.cpu_name(), "kernels": [k.name.lower() for k in KERNELS][1:]},
        "rounds": args.rounds,
        "load": [load_before, os.getloadavg()[0]],
        "cases": cases,
    }
    record.write_result(args, "bench_steps", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
