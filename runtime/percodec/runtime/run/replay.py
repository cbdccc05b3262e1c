"""`percodec replay`: predictions again from logged packets, compared with what the live run wrote down.

For every packet: its own checksums, then the latent's and every head's CRC-32 against the frame's JSON line. A frame acknowledged as
logged must be in the log. What else is compared: `contradictions`.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from percodec.runtime.run.contradictions import contradictions
from percodec.runtime.run.logged import LoggedLatents
from percodec.runtime.run.sinks import read_json_lines
from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import LogError
from percodec.sdk.log import read_log, verify_log
from percodec.sdk.log.segments import begun_paths
from percodec.sdk.types import Latent, Prediction


@dataclass
class ReplayResult:
    """Frame ids, in log order. `compared` counts frames with a JSON line; `truncated`: the log was never closed or is cut off.

    `incomplete`: what the log's reader missed, in words; `contradictions`: those of `run.contradictions`, in words. `lost`: packets that
    need one which is missing. `heads_differ`: head that the lines tell of -> frames with another output. `labels_differ`: of any head.
    `proved`: records that the log's key proves, None without one.
    """

    frames: int = 0
    compared: int = 0
    truncated: bool = False
    damaged: int = 0
    incomplete: str = ""
    contradictions: list[str] = field(default_factory=list)
    latents_differ: list[int] = field(default_factory=list)
    labels_differ: list[int] = field(default_factory=list)
    heads_differ: dict[str, list[int]] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    class_shares: dict[str, float] = field(default_factory=dict)
    proved: int | None = None

    @property
    def equal(self) -> bool:
        """No difference found."""
        return not (self.latents_differ or self.labels_differ or self.missing or self.contradictions or self.incomplete)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "equal": self.equal}


def replay_log(
    path: Path,
    bundle: Bundle,
    *,
    against: Path | None = None,
    backend: str = "ort",
    threads: int = 1,
    heads: tuple[str, ...] | None = None,
    log_key: bytes | None = None,
) -> ReplayResult:
    """Decode and predict every complete record of `path`; compare with the JSON lines in `against` when given.

    `heads` None: those that the lines tell of, else the bundle's default one. Raises BundleError for a log of another bundle,
    PacketError for a damaged packet, LogError for something that is not a log, or that `log_key` does not prove.
    """
    proved = None if log_key is None else _proved(path, log_key)
    latents = LoggedLatents(path, bundle)
    written = read_json_lines(against) if against else []
    lines = {int(line["frame_id"]): line for line in written}
    wanted = heads if heads is not None else _heads_of(lines)
    session = Session.open(bundle, backend=backend, heads=wanted, threads=threads, selftest=False)
    result = ReplayResult(contradictions=contradictions(latents.log, written), proved=proved)
    drawn = next((name for name, info in session.heads.items() if info.task == "segmentation"), None)
    labels = session.heads[drawn].labels if drawn is not None else ()
    pixels = np.zeros(len(labels), np.int64)
    seen: set[int] = set()
    for record, symbols in latents:
        latent = Latent(symbols, record.frame_id, record.timestamp_ns)
        found = {name: session.predict(latent, name) for name in session.heads}
        result.frames += 1
        seen.add(record.frame_id)
        if drawn is not None:
            pixels += np.bincount(found[drawn].labels.reshape(-1), minlength=256)[: len(pixels)]
        line = lines.get(record.frame_id)
        if line is None:
            continue
        result.compared += 1
        if line.get("latent_crc") != f"{zlib.crc32(symbols.data):08x}":
            result.latents_differ.append(record.frame_id)
        said = {name: _logged_crcs(line, name, drawn) for name in found}
        differ = [name for name, crcs in said.items() if crcs - {_crc(found[name])}]
        for name, crcs in said.items():
            if crcs:
                result.heads_differ.setdefault(name, []).extend([record.frame_id] if name in differ else [])
        if differ:
            result.labels_differ.append(record.frame_id)
    result.truncated, result.damaged, result.lost = latents.log.truncated, latents.log.damaged, latents.lost
    result.incomplete = latents.complaint()
    result.missing = [frame_id for frame_id, line in lines.items() if line.get("logged") and frame_id not in seen]
    total = max(1, int(pixels.sum()))
    result.class_shares = {label.name: round(int(n) / total, 4) for label, n in zip(labels, pixels, strict=True) if n}
    return result


def _proved(path: Path, log_key: bytes) -> int:
    """Records that are proved; a log that somebody changed is not replayed. Segments that are gone from the beginning are no change."""
    numbers = [read_log(file).metadata.get("segment", "0") for file in begun_paths(path)[:1]] if path.is_dir() else []
    proof = verify_log(path, log_key, int(numbers[0]) if numbers and re.fullmatch(r"\d{1,9}", numbers[0]) else 0)
    if proof.findings:
        raise LogError(f"{path}: is not as it was written: {proof.findings[0]}; percodec verify-log says all of it")
    return proof.records


def _heads_of(lines: dict[int, dict[str, Any]]) -> tuple[str, ...] | None:
    """The heads that a live run wrote of; None where it wrote of the default one only."""
    heads = next((line["heads"] for line in lines.values() if isinstance(line.get("heads"), dict) and line["heads"]), None)
    return tuple(heads) if heads else None


def _logged_crcs(line: dict[str, Any], head: str, drawn: str | None) -> set[str]:
    """What the line says of a head, in each place that does."""
    said = {str(line["labels_crc"])} if head == drawn and "labels_crc" in line else set()
    heads = line.get("heads")
    if isinstance(heads, dict) and isinstance(heads.get(head), dict):
        said.add(str(heads[head].get("crc")))
    return said


def _crc(prediction: Prediction) -> str:
    crc = 0
    for array in prediction.outputs.values():
        crc = zlib.crc32(array.data, crc)
    return f"{crc:08x}"


__all__ = ["ReplayResult", "replay_log"]
