"""What does `percodec bag compress` make of a recorded drive? A bag of two raw cameras, with camera info and a latched /tf_static.

size against the raw bag, against JPEG at quality 80, and against JPEG and AVIF at the MS-SSIM of the restored pictures; time; and whether a
second run gives the same bytes. The second camera sees the video mirrored and half of it later. Pictures are brought to 1280x720.

python benchmarks/bench_bag.py --video PATH [--bundles road-edge,...] [--frames N] [--record]
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import record
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from percodec.export.evaluate.codecs import codec_of
from percodec.export.metrics.similarity import ms_ssim
from percodec.runtime.bag.open import open_bag
from percodec.runtime.bag.records import Message
from percodec.runtime.bag.write import BagWriter
from percodec.runtime.messages.cdr import Image
from percodec.runtime.messages.pictures import rgb_from_image
from percodec.sdk.machine import machine_info

HERE = Path(__file__).parent
PERCODEC = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]
SIZE = (1280, 720)
CAMERAS = ("/front/image_raw", "/rear/image_raw")
EVERY = 40  # of a camera's pictures, one is judged
Picture = NDArray[np.uint8]


def percodec(*words: object) -> Any:
    done = subprocess.run([*PERCODEC, *map(str, words), "--json"], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"percodec {words[0]} {words[1]} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def drive(video: Path, frames: int) -> list[Picture]:
    """BGR, the first `frames` of a video at `SIZE`."""
    capture, found = cv2.VideoCapture(str(video)), []
    while len(found) < frames:
        there, picture = capture.read()
        if not there:
            raise SystemExit(f"{video} has {len(found)} frames, asked for {frames}")
        found.append(cv2.resize(picture, SIZE, interpolation=cv2.INTER_CUBIC))
    return found


def write_raw(path: Path, pictures: list[Picture]) -> int:
    """As a recorder on the vehicle would; its bytes."""
    store, forever = get_typestore(Stores.ROS2_JAZZY), QosTime(9223372036, 854775807)
    types, automatic = store.types, QosLiveliness.AUTOMATIC

    def qos(reliability: QosReliability, durability: QosDurability) -> Qos:
        return Qos(QosHistory.KEEP_LAST, 5, reliability, durability, forever, forever, automatic, forever, False)

    def header(k: int, frame: str) -> Any:
        time = types["builtin_interfaces/msg/Time"](1_700_000_000 + k // 25, k % 25 * 40_000_000)
        return types["std_msgs/msg/Header"](stamp=time, frame_id=frame)

    sensor = qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE)
    latched = qos(QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL)
    names = {"/tf_static": "tf2_msgs/msg/TFMessage"}
    for camera in CAMERAS:
        names |= {camera: "sensor_msgs/msg/Image", camera.replace("image_raw", "camera_info"): "sensor_msgs/msg/CameraInfo"}
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            topic: writer.add_connection(topic, name, typestore=store, offered_qos_profiles=[latched if topic == "/tf_static" else sensor])
            for topic, name in names.items()
        }

        def write(topic: str, k: int, message: Any) -> None:
            writer.write(topics[topic], 1_700_000_000_000_000_000 + k * 40_000_000, store.serialize_cdr(message, names[topic]))

        write("/tf_static", 0, types["tf2_msgs/msg/TFMessage"]([]))
        roi, (width, height) = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False), SIZE
        k9, r9, p12 = np.diag([1000.0, 1000.0, 1.0]).reshape(-1), np.eye(3).reshape(-1), np.eye(3, 4).reshape(-1)
        for k in range(len(pictures)):
            views = (pictures[k], pictures[(k + len(pictures) // 2) % len(pictures)][:, ::-1])
            for camera, view in zip(CAMERAS, views, strict=True):
                flat = np.ascontiguousarray(view).reshape(-1)
                write(camera, k, types["sensor_msgs/msg/Image"](header(k, camera), height, width, "bgr8", 0, width * 3, flat))
                info = types["sensor_msgs/msg/CameraInfo"]
                made = info(header(k, camera), height, width, "plumb_bob", np.zeros(5), k9, r9, p12, 0, 0, roi)
                write(camera.replace("image_raw", "camera_info"), k, made)
    return sum(file.stat().st_size for file in path.iterdir())


def judged(path: Path, every: int = EVERY, suffix: str = "") -> list[Message]:
    """Every `EVERY`th message of each camera."""
    seen, found = {camera + suffix: 0 for camera in CAMERAS}, []
    for message in open_bag(path).records():
        if isinstance(message, Message) and message.channel.topic in seen:
            if seen[message.channel.topic] % every == 0:
                found.append(message)
            seen[message.channel.topic] += 1
    return found


def shown(messages: list[Message]) -> list[Picture]:
    """RGB."""
    return [rgb_from_image(Image.from_cdr(message.data)).copy() for message in messages]


def restored(bag: Path, bundle: Path, place: Path) -> list[Picture]:
    """The judged pictures of a bag of packets that stand alone, by the command."""
    with BagWriter(place / "some.mcap", overwrite=True) as some:
        for message in judged(bag, suffix="/percodec"):
            some.add(message)
        some.finish()
    percodec("bag", "restore", place / "some.mcap", place / "back.mcap", "--all", "--bundle", bundle, "--overwrite")
    return shown(judged(place / "back.mcap", every=1))


def likeness(a: list[Picture], b: list[Picture]) -> float:
    """Mean MS-SSIM."""
    tensors = [[torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() for p in side] for side in (a, b)]
    return float(np.mean([float(ms_ssim(x, y)) for x, y in zip(*tensors, strict=True)]))


def curve(name: str, pictures: list[Picture], upto: float) -> list[tuple[float, float]]:
    """(MS-SSIM, bytes a picture) along a codec's ladder, to the first past `upto`."""
    codec, found = codec_of(name), []
    for quality in codec.qualities:
        files = [codec.encode(picture, quality) for picture in pictures]
        back = [codec.decode(file, *picture.shape[:2]) for file, picture in zip(files, pictures, strict=True)]
        found.append((likeness(pictures, back), float(np.mean([len(file) for file in files]))))
        if found[-1][0] > upto:
            break
    return found


def at_equal(points: list[tuple[float, float]], wanted: float) -> float | None:
    """Bytes at that MS-SSIM, logarithms interpolated; None outside the curve."""
    for (a, small), (b, large) in pairwise(points):
        if a <= wanted <= b:
            return float(np.exp(np.interp(wanted, [a, b], np.log([small, large]))))
    return None


def jpeg80(pictures: list[Picture]) -> dict[str, float]:
    """As `image_transport` compresses at the quality of its default for many cameras."""
    sizes, back = [], []
    for picture in pictures:
        file = io.BytesIO()
        PillowImage.fromarray(picture).save(file, "JPEG", quality=80)
        sizes.append(len(file.getvalue()))
        back.append(np.array(PillowImage.open(file)))
    return {"bytes": float(np.mean(sizes)), "ms_ssim": likeness(pictures, back)}


def measure(name: str, raw: Path, place: Path, pictures: list[Picture], stream: bool) -> dict[str, Any]:
    folder = HERE / "bundles" / name
    out, words = place / "small.mcap", ("--stream",) if stream else ()
    took, sizes = [], []
    for _ in range(2):
        first = out.read_bytes() if out.exists() else None
        done = percodec("bag", "compress", raw, out, "--all", "--bundle", folder, "--overwrite", *words)
        took.append(done["seconds"])
        sizes.append(done["file_bytes"])
    equal = first == out.read_bytes()
    rows = {row["topic"]: row for row in percodec("bag", "info", out)["topics"]}
    packets = [rows[f"{camera}/percodec"] for camera in CAMERAS]
    count = sum(row["packets"] for row in packets)
    return {
        "bundle": name,
        "stream": stream,
        "file_bytes": sizes[0],
        "bytes_per_picture": round(sum(row["packet_bytes"] for row in packets) / count, 1),
        "ms_ssim": None if stream else round(likeness(pictures, restored(out, folder, place)), 5),
        "seconds": took,
        "pictures_per_second": round(count / min(took), 1),
        "twice_equal": equal,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, help="a drive")
    parser.add_argument("--bundles", default="road-edge", help="which bundles (default road-edge)")
    parser.add_argument("--frames", type=int, default=200, help="pictures of each camera (default 200)")
    record.add_arguments(parser)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        raw_bytes = write_raw(place / "raw", drive(args.video, args.frames))
        pictures, rows = shown(judged(place / "raw")), []
        for name in args.bundles.split(","):
            for stream in (False, True):
                row = measure(name, place / "raw", place, pictures, stream)
                row["ms_ssim"] = row["ms_ssim"] or rows[-1]["ms_ssim"]  # a stream's latents are the same
                rows.append(row)
                print(json.dumps(row), flush=True)
    most = max(row["ms_ssim"] for row in rows)
    curves = {name: curve(name, pictures, most) for name in ("jpeg", "avif")}
    for row in rows:
        row["raw_ratio"] = round(raw_bytes / row["file_bytes"], 1)
        row["at_equal_ms_ssim"] = {name: at_equal(points, row["ms_ssim"]) for name, points in curves.items()}
    result = {
        "benchmark": "bench_bag",
        "command": "python benchmarks/bench_bag.py --video PATH",
        "date": datetime.date.today().isoformat(),
        "machine": machine_info(),
        "load_average": load,
        "video": args.video.name,
        "frames": args.frames,
        "size": list(SIZE),
        "raw_bytes": raw_bytes,
        "judged": len(pictures),
        "jpeg80": jpeg80(pictures),
        "curves": curves,
        "rows": rows,
    }
    record.write_result(args, "bench_bag", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
