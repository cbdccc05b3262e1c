"""`percodec replay`: predictions again from logged packets, compared with what the live run wrote down.

For every packet: its own checksums, then the latent's and the labels' CRC-32 against the frame's JSON line. A frame acknowledged as
logged must be in the log.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from percodec.runtime.engines.open import open_engine
from percodec.runtime.run.coding import check_log_bundle
from percodec.runtime.run.sinks import read_json_lines
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.log import read_log


@dataclass
class ReplayResult:
    """Frame ids, in log order. `compared` counts frames with a JSON line; `truncated`: the log was never closed or is cut off."""

    frames: int = 0
    compared: int = 0
    truncated: bool = False
    latents_differ: list[int] = field(default_factory=list)
    labels_differ: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    class_shares: dict[str, float] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """No difference found."""
        return not (self.latents_differ or self.labels_differ or self.missing)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "equal": self.equal}


def replay_log(path: Path, bundle: Bundle, *, against: Path | None = None, backend: str = "ort", threads: int = 1) -> ReplayResult:
    """Decode and predict every complete record of `path`; compare with the JSON lines in `against` when given.

    Raises BundleError for a log of another bundle, PacketError for a damaged packet, LogError for something that is not a log.
    """
    log = read_log(path)
    check_log_bundle(path, log.bundle_digest, log.bundle_name, bundle)
    head = open_engine(bundle, "head_segmentation", backend=backend, threads=threads)
    lines = {int(line["frame_id"]): line for line in read_json_lines(against)} if against else {}
    codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    symbols = np.zeros(head.source.shape, np.uint8)
    labels = np.zeros(head.destination.shape, np.uint8)
    predict = head.bind(symbols, labels)
    result = ReplayResult()
    pixels = np.zeros(len(bundle.labels), np.int64)
    seen: set[int] = set()
    for record in log:
        codec.decode(record.packet, out=symbols[0])
        predict()
        result.frames += 1
        seen.add(record.frame_id)
        pixels += np.array([np.count_nonzero(labels == k) for k in range(len(pixels))])
        line = lines.get(record.frame_id)
        if line is None:
            continue
        result.compared += 1
        if line.get("latent_crc") != f"{zlib.crc32(symbols.data):08x}":
            result.latents_differ.append(record.frame_id)
        if line.get("labels_crc") != f"{zlib.crc32(labels.data):08x}":
            result.labels_differ.append(record.frame_id)
    result.truncated = log.truncated
    result.missing = [frame_id for frame_id, line in lines.items() if line.get("logged") and frame_id not in seen]
    total = max(1, int(pixels.sum()))
    result.class_shares = {label.name: round(int(n) / total, 4) for label, n in zip(bundle.labels, pixels, strict=True) if n}
    return result


__all__ = ["ReplayResult", "replay_log"]
