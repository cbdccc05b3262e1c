"""`Encode`: folders of pictures become logs, with their label maps as labels: what `train --data packets=` reads.

    SOURCE/train/*.png         ->  OUT/train/000000.mcap, 000001.mcap, ...    segments of one log, 1,000 packets each
    SOURCE/train_labels/*.png  ->  OUT/labels/train-000000.parquet, ...       of split "train", the folder's name

Pictures are taken by name, `interval_ns` apart, as frames of one camera. There is no boot, and a recording's name is made of vehicle and
folder: where sets of several sources will lie together, name a vehicle.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from percodec.export.data.files import IGNORE, IMAGE_SUFFIXES, LABEL_SUFFIXES
from percodec.export.fleet.labels import LABELS, png_of
from percodec.export.fleet.losses import Losses
from percodec.export.fleet.rows import Rows
from percodec.export.fleet.shards import Shard
from percodec.export.fleet.store import Store
from percodec.export.fleet.units import Call, Settings
from percodec.runtime.images import decode_image
from percodec.runtime.session import Session, open_bundle
from percodec.sdk.errors import DataError, SourceError
from percodec.sdk.fit import placement
from percodec.sdk.log.whole import whole_log

PACKETS = 1000  # of a shard
MAPS = "_labels"


def find_pictures(store: Store, labelled: bool) -> list[Shard]:
    """A shard for up to `PACKETS` pictures of a folder, with `labelled` none of folders of label maps. Raises `DataError` for none."""
    folders: dict[str, list[str]] = {}
    for name in store.names(*IMAGE_SUFFIXES, *(ending.upper() for ending in IMAGE_SUFFIXES)):
        folder = name.rpartition("/")[0]
        if not (labelled and folder.endswith(MAPS)):
            folders.setdefault(folder, []).append(name)
    if not folders:
        raise DataError(f"{store.where} holds no pictures; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}")
    found = []
    for folder, names in sorted(folders.items()):
        for k in range(0, len(names), PACKETS):
            found.append(Shard(f"{folder}/{k // PACKETS:06d}".lstrip("/"), tuple(names[k : k + PACKETS])))
    return found


@dataclass(frozen=True)
class Encode:
    """With the encoder of `bundle`. `labels`: label maps are beside the pictures, and go to `out`."""

    bundle: Path
    out: str
    labels: bool = False
    vehicle: str = ""
    backend: str = "ort"
    threads: int = 1
    interval_ns: int = 40_000_000
    ending: str = ".mcap"

    def settings(self) -> Settings:
        bundle = open_bundle(self.bundle)
        made_by = {"bundle": bundle.name, "digest": bundle.digest, "backend": self.backend}
        return {"made_by": "encode", **made_by, "labelled": self.labels, "vehicle": self.vehicle}

    def open(self) -> Call:
        session = Session.open(open_bundle(self.bundle), backend=self.backend, heads=(), threads=self.threads)
        bundle = session.bundle
        size = (bundle.frame_height, bundle.frame_width)

        def call(store: Store, shard: Shard, path: Path) -> tuple[dict[str, int], Losses]:
            folder, _, number = shard.name.rpartition("/")
            recording = hashlib.sha256(f"{self.vehicle}/{folder}".encode()).hexdigest()[:16]
            metadata = {
                "bundle_name": bundle.name, "bundle_digest": bundle.digest, "latent_shape": "x".join(map(str, bundle.latent_shape)),
                "table_hash": f"{bundle.entropy_model.table_hash:016x}", "stream_id": "0", "clock": "media", "boot_id": "",
                "recording": recording, "segment": str(int(number)), "vehicle": self.vehicle,
            }  # fmt: skip
            records, rows = [], []
            for k, name in enumerate(shard.files):
                counter = int(number) * PACKETS + k
                try:
                    image = decode_image(store.read(name), store.shown(name))
                except SourceError as error:
                    raise DataError(f"{store.shown(name)} cannot be read as an image ({error}); replace or remove it") from error
                latent = session.encode(image, frame_id=counter, timestamp_ns=counter * self.interval_ns)
                records.append((k, latent.timestamp_ns, session.pack(latent)))
                if self.labels:
                    key = {"vehicle": self.vehicle, "boot_id": "", "recording": recording, "stream_id": 0, "counter": counter}
                    label = _label(store, name, image.shape[:2], bundle.fit, size)
                    row = {
                        **key,
                        "frame_id": counter,
                        "timestamp_ns": latent.timestamp_ns,
                        LABELS: label,
                        "split": folder.rpartition("/")[2],
                    }
                    rows.append(row)
            if self.labels:
                _write_labels(Store(self.out), f"labels/{shard.name.replace('/', '-')}.parquet", rows)
            data, _ = whole_log(metadata, records)
            path.write_bytes(data)
            return {"packets": len(records), "packet_bytes": sum(len(packet) for _, _, packet in records), "labels": len(rows)}, Losses()

        return call


def _write_labels(out: Store, name: str, rows: list[dict[str, Any]]) -> None:
    with out.writing(name) as path, Rows(path, {LABELS: "binary", "split": "string"}) as file:
        for row in rows:
            file.add(row)


def _label(maps: Store, picture: str, shape: tuple[int, ...], fit: str, size: tuple[int, int]) -> bytes:
    path = PurePosixPath(picture)
    stem = f"{path.parent}{MAPS}/{path.stem}"
    name = next((stem + ending for ending in LABEL_SUFFIXES if maps.exists(stem + ending)), None)
    if name is None:
        raise DataError(f"{picture} has no label: {maps.where} holds none of {stem}{{{','.join(LABEL_SUFFIXES)}}}")
    try:
        with Image.open(io.BytesIO(maps.read(name))) as image:
            mode, ids = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{maps.shown(name)} cannot be read as a label map ({error})") from error
    if mode not in ("L", "P") or ids.shape != tuple(shape):
        raise DataError(f"{maps.shown(name)} is {mode} {ids.shape}: a label map is of class ids (L or P), as large as its picture {shape}")
    return png_of(_placed(ids, fit, size))


def _placed(ids: NDArray[np.uint8], fit: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A label map as its picture lies in the frame; what the picture does not cover is unknown."""
    cut, into = placement(fit, ids.shape[0], ids.shape[1], *size)
    piece = Image.fromarray(ids[cut.y : cut.y + cut.height, cut.x : cut.x + cut.width])
    out = np.full(size, IGNORE, np.uint8)
    resized = np.asarray(piece.resize((into.width, into.height), Image.Resampling.NEAREST))
    out[into.y : into.y + into.height, into.x : into.x + into.width] = resized
    return out


__all__ = ["PACKETS", "Encode", "find_pictures"]
