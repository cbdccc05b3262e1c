"""How many images a second does one core read to train on: packets, as `PacketDataset` reads them, and JPEGs, as simplejpeg does?

    python benchmarks/bench_fleet.py [--rounds 7] [--packets 2000] [--record]

Real frames of CamVid `val` where $PERCODEC_DATA has it, else the synthetic road, at the bundle's frame size, in logs and in memory as JPEG
of quality 80. Both sides in turn within one process, CPU time, medians; single JPEGs from memory, so that the comparison favours them.
Then what a shard costs, step by step, and what that makes of a billion frames.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record

FRAMES = 10**9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--packets", type=int, default=2000)
    record.add_arguments(parser)
    args = parser.parse_args()

    import simplejpeg
    import torch

    from percodec.export.fleet.dataset import PacketDataset
    from percodec.export.fleet.shards import ShardReader, find_shards
    from percodec.export.fleet.store import Store
    from percodec.runtime.session import Session
    from percodec.sdk import LogWriter, PacketCodec
    from percodec.sdk.machine import machine_info, versions

    torch.set_num_threads(1)
    session = Session.open(selftest=False)
    bundle = session.bundle
    images, source = _images(bundle.frame_height, bundle.frame_width)
    latents = [session.encode(image) for image in images]
    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=80) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        coder, size = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), 0
        for shard in range(max(1, args.packets // 1000)):
            with LogWriter(Path(folder) / f"{shard:03d}.mcap", bundle) as log:
                for k in range(min(1000, args.packets)):
                    packet = coder.encode(latents[k % len(latents)].symbols, k, 1000 * k)
                    log.append(packet, k, 1000 * k)
                    size += len(packet)
        store = Store(folder)
        shards = find_shards(store)
        count = sum(1 for shard in shards for _ in ShardReader(store, shard))

        def packets() -> int:
            return sum(len(batch) for batch in PacketDataset(folder, bundle, batch=32).loader())

        def pictures() -> int:
            for data in itertools.islice(itertools.cycle(jpegs), 500):
                simplejpeg.decode_jpeg(data)
            return 500

        def read() -> int:
            return sum(1 for shard in shards for _ in ShardReader(store, shard))

        held = [r.packet for shard in shards for r in ShardReader(store, shard)]

        def decode() -> int:
            for k in range(0, len(held), 32):
                coder.decode_batch(held[k : k + 32], threads=1)
            return len(held)

        def predict() -> int:
            for latent in latents[:10]:
                session.predict(latent)
            return 10

        def encode() -> int:
            for image in images[:10]:
                session.encode(image)
            return 10

        sides = {"packets": packets, "jpeg": pictures, "read": read, "decode": decode, "predict": predict, "encode": encode}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():
                seconds[name].append(_cpu(side))
    per = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = [jpeg / packet for jpeg, packet in zip(seconds["jpeg"], seconds["packets"], strict=True)]
    bytes_a_frame, jpeg_bytes = size / count, statistics.mean(map(len, jpegs))
    result: dict[str, Any] = {
        "bench": "fleet",
        "bundle": {"name": bundle.name, "digest": bundle.digest, "frame": [bundle.frame_width, bundle.frame_height]},
        "machine": machine_info(),
        "versions": {**versions(), "simplejpeg": simplejpeg.__version__},
        "command": f"python benchmarks/bench_fleet.py --rounds {args.rounds} --packets {args.packets}",
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
        "note": "other work ran on the machine; CPU time, both sides in turn, medians",
        "pictures": source,
        "packets": count,
        "images_per_cpu_second": {name: round(1 / value) for name, value in per.items()},
        "packets_over_jpeg": {"median": round(statistics.median(ratios), 2), "least": round(min(ratios), 2)},
        "bytes_per_frame": {"packet": round(bytes_a_frame), "jpeg_q80": round(jpeg_bytes)},
        "billion": _billion(per, bytes_a_frame, jpeg_bytes),
    }
    print(result["images_per_cpu_second"], result["packets_over_jpeg"], result["billion"])
    record.write_result(args, "bench_fleet", result)
    return 0


def _billion(per: dict[str, float], packet: float, jpeg: float) -> dict[str, Any]:
    """Core-hours and bytes of 10^9 frames, from seconds a frame. A paper figure: no network, no start of workers, no GPU."""
    hours = {
        "read the packets": per["read"],
        "read, shuffle and decode to latents": per["packets"],
        "predict, one head on a CPU": per["packets"] + per["predict"],
        "encode from pictures, without reading them": per["encode"],
        "decode as many JPEGs": per["jpeg"],
    }
    return {
        "frames": FRAMES,
        "shards": FRAMES // 1000,
        "core_hours": {name: round(FRAMES * value / 3600, 1) for name, value in hours.items()},
        "terabytes": {"packets": round(FRAMES * packet / 1e12, 2), "jpeg_q80": round(FRAMES * jpeg / 1e12, 2)},
    }


def _images(height: int, width: int) -> tuple[list[np.ndarray[Any, Any]], str]:
    """Up to 64 pictures uint8 [H,W,3], and where they are from."""
    from percodec.export.data import fitted, load_camvid
    from percodec.sdk.synthetic.road import RoadScene

    place = Path(os.environ.get("PERCODEC_DATA", "/none")) / "camvid"
    if place.is_dir():
        return [fitted(image, height, width) for image in load_camvid(place, "val").images[:64]], "CamVid val, 64 frames in turn"
    return [RoadScene(seed=k, height=height, width=width).render(0)[0] for k in range(64)], "synthetic road, 64 frames in turn"


def _cpu(side: Callable[[], int]) -> float:
    """CPU seconds an image."""
    begin = time.process_time()
    count = side()
    return (time.process_time() - begin) / count


if __name__ == "__main__":
    raise SystemExit(main())
