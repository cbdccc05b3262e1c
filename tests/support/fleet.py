"""Logs of a small fleet: three vehicles, in files, in segments and in an archive, with labels beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.uplink.archive import Archive
from percodec.runtime.uplink.wire import Record, SegmentId
from percodec.sdk import Bundle, LogWriter, PacketCodec, SegmentedLogWriter, SegmentLimits, parse_header, read_log

RECORDING = "0123456789abcdef"
BOOT = "b" * 32


def latents(bundle: Bundle, count: int, seed: int = 7) -> NDArray[np.uint8]:
    """uint8 [N,C,h,w], each unlike the others."""
    most = [step.levels for step in bundle.steps] or [bundle.levels] * bundle.latent_shape[0]
    return np.random.default_rng(seed).integers(0, np.reshape(most, (-1, 1, 1)), (count, *bundle.latent_shape), dtype=np.uint8)


def packets_of(bundle: Bundle, symbols: NDArray[np.uint8], stream_id: int = 0) -> list[bytes]:
    coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:], stream_id=stream_id)
    return [coder.encode(one, k, 1000 * k) for k, one in enumerate(symbols)]


def write_log(path: Path, bundle: Bundle, packets: Sequence[bytes], stream_id: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with LogWriter(path, bundle, stream_id=stream_id) as log:
        for packet in packets:
            header = parse_header(packet)
            log.append(packet, header.frame_id, header.timestamp_ns)
    return path


def write_segments(folder: Path, bundle: Bundle, packets: Sequence[bytes], size: int) -> Path:
    with SegmentedLogWriter(folder, bundle, SegmentLimits(size), stream_id=1) as log:
        for packet in packets:
            header = parse_header(packet)
            log.append(packet, header.frame_id, header.timestamp_ns)
    return folder


def write_archive(where: str, bundle: Bundle, packets: Sequence[bytes]) -> None:
    """Of one segment, in several files: live packets first, then the holes between them."""
    more = {"recording": RECORDING, "segment": "0", "boot_id": BOOT, "clock": "monotonic"}
    metadata = {"bundle_name": bundle.name, "bundle_digest": bundle.digest, "stream_id": "2", **more}
    archive, half = Archive(where), range(0, len(packets), 2)
    for numbers in (half, sorted(set(range(len(packets))) - set(half))):
        archive.store("v3", SegmentId(RECORDING, 0), metadata, {k: Record(0, k, 1000 * k, packets[k]) for k in numbers})


def write_fleet(root: Path, bundle: Bundle, count: int = 40) -> dict[tuple[int, int], NDArray[np.uint8]]:
    """Latents by (stream, counter): stream 0 in a file, 1 in segments, 2 in an archive; `count` each."""
    found = {}
    for stream in range(3):
        symbols = latents(bundle, count, stream)
        packets = packets_of(bundle, symbols, stream)
        found |= {(stream, k): symbols[k] for k in range(count)}
        if stream == 0:
            write_log(root / "v1" / "packets.mcap", bundle, packets)
        elif stream == 1:
            write_segments(root / "v2", bundle, packets, max(4096, 10 * len(packets[0])))
        else:
            write_archive(str(root), bundle, packets)
    return found


def rows_of(folder: Path) -> list[dict[str, object]]:
    """The names of all packets in logs below a folder, as label rows have them."""
    rows: list[dict[str, object]] = []
    for path in sorted(folder.rglob("*.mcap")):
        log = read_log(path, allow_damaged=True)  # a file of an archive may have holes
        recording = log.metadata.get("recording") or path.relative_to(folder).as_posix()
        named = {"vehicle": log.metadata.get("vehicle", ""), "boot_id": log.metadata["boot_id"], "recording": recording}
        headers = [parse_header(record.packet) for record in log]
        rows += [{**named, "stream_id": h.stream_id, "counter": h.counter} for h in headers]
    return rows


def write_labels(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def png_level_3(labels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(labels).save(out, "PNG", compress_level=3)
    return out.getvalue()


def png(labels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(labels).save(out, "PNG")
    return out.getvalue()
