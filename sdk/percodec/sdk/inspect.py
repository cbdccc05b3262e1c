"""`percodec inspect`: what a bundle, a packet or a log says about itself, without running anything in it."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from percodec.sdk import mcap
from percodec.sdk.bundle import Bundle, GraphInfo
from percodec.sdk.bundle.engines import engines_in
from percodec.sdk.codec import PacketHeader, parse_header
from percodec.sdk.codec.header import WRAP
from percodec.sdk.errors import DataError, LogError, PacketError
from percodec.sdk.files import read_file
from percodec.sdk.log import LogReader, read_log
from percodec.sdk.log.names import MAX_RECORD_BYTES
from percodec.sdk.log.segments import begun_paths
from percodec.sdk.text import printable


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec inspect`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "examples:\n  percodec inspect bundles/road\n  percodec inspect percodec-demo/packets.mcap --json"
    parser.add_argument("file", type=Path, help="bundle folder, packet (.pcpk), log (.mcap) or folder of its segments")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--allow-damaged", action="store_true", help="end with 0 also for a log that is cut off or holds damaged records")


def inspect(args: argparse.Namespace) -> int:
    """Print what `args.file` is. Raises `DataError` where it is nothing of ours."""
    path: Path = args.file
    if not path.exists():
        raise DataError(f"{path} does not exist; give a bundle folder, a packet or a log")
    missed = ""
    segmented = path.is_dir() and not (path / "manifest.json").exists() and bool(begun_paths(path))
    if path.is_dir() and not segmented:
        facts = about_bundle(Bundle.open(path))
    elif not (segmented or path.is_file()):  # a device or pipe may never end
        raise DataError(f"{path} is not a regular file; give a bundle folder, a packet or a log")
    else:
        if segmented or _begins_as_log(path):
            log = read_log(path, allow_damaged=True)
            facts = about_log(log)
            nothing = "the log holds no packets" + ("; it is cut off before the first" if log.truncated else "")
            missed = log.complaint() or (nothing if facts["records"] == 0 else "")
            missed = missed or ("" if facts["complete"] else "the log is cut off or was never closed; its complete records are whole")
        else:
            facts = about_packet(path)
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts)
    if missed and not args.allow_damaged:
        sys.stdout.flush()
        raise LogError(f"{path}: {missed}; --allow-damaged takes it as it is")
    return 0


def _begins_as_log(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(mcap.MAGIC)) == mcap.MAGIC


def about_bundle(bundle: Bundle) -> dict[str, Any]:
    """Facts from a manifest that was checked."""
    manifest = bundle.manifest
    channels, height, width = bundle.latent_shape
    sizes, stream = manifest["files"], bundle.stream_model
    return {
        "kind": "bundle",
        "name": bundle.name,
        "digest": bundle.digest,
        "format": ".".join(map(str, manifest["version"])),
        "frame": f"{bundle.frame_width}x{bundle.frame_height} rgb8, fit {bundle.fit}",
        "latent": f"{channels} channels of {height}x{width}, {bundle.levels} levels",
        **({"steps": [f"{s.step:.4g}, {s.levels} levels, {s.offset} for 0" for s in bundle.steps]} if bundle.steps else {}),
        **({"centers": [round(float(c), 4) for c in bundle.centers]} if not bundle.steps else {}),
        "entropy_tables": f"{bundle.entropy_model.table_hash:016x}, profile {bundle.entropy_model.profile}",
        **({"stream_tables": f"{stream.table_hash:016x}, profile {stream.profile}"} if stream else {}),
        "graphs": {k: f"{sizes[manifest['graphs'][k]['file']]['bytes'] / 1e6:.2f} MB, {_about_graph(g)}" for k, g in bundle.graphs.items()},
        "engines": [f"{folder}/{graph}" for folder, graph in engines_in(bundle.path)],
        "labels": [label.name for label in bundle.labels],
        **({"supersedes": manifest["supersedes"]} if manifest.get("supersedes") else {}),
        **({"notes": list(bundle.notes)} if bundle.notes else {}),
        "selftest_vectors": len(bundle.selftest().frames),
        "metrics": manifest["metrics"],
        "provenance": {k: v for k, v in manifest["provenance"].items() if k != "config"},
    }


def _about_graph(graph: GraphInfo) -> str:
    gives = ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in graph.outputs)
    return f"{graph.precision}, {graph.task} -> {gives}" if graph.name.startswith("head_") else graph.precision


def about_packet(path: Path) -> dict[str, Any]:
    """A packet's header; its checksum was verified. Raises `PacketError`."""
    size = path.stat().st_size
    if size > MAX_RECORD_BYTES:
        raise PacketError(f"{path} has {size} bytes, more than any packet; give a packet, a log or a bundle folder")
    try:
        header = parse_header(read_file(path, MAX_RECORD_BYTES))
    except PacketError as e:
        raise PacketError(f"{path}: {e}") from e
    facts: dict[str, Any] = {"key": header.key, **asdict(header)}
    facts["version"] = f"{header.version >> 4}.{header.version & 15}"
    facts["table_hash"] = f"{header.table_hash:016x}"
    facts["latent_crc"] = f"{header.latent_crc:08x}"
    return {"kind": "packet", "bytes": size, **facts}


def about_log(log: LogReader) -> dict[str, Any]:
    """A log's metadata and totals, from reading every record; nothing is decoded. Raises `LogError` unless `log` allows damage.

    `lost_packets`: counters that are missing, in `counter_gaps` places. `repeated_packets` came twice or too late, and are in no frame.
    `frames_without_predecessor`: predicted packets that no tables can decode, because what they are predicted from is missing.
    """
    records = total = largest = 0
    first = last = None
    streams: dict[int, _StreamTally] = {}
    for record in log:
        records += 1
        total += len(record.packet)
        largest = max(largest, len(record.packet))
        first, last = first or record, record
        header = parse_header(record.packet)
        streams.setdefault(header.stream_id, _StreamTally()).add(header)
    seconds = (last.timestamp_ns - first.timestamp_ns) / 1e9 if first and last else 0.0
    begin_ns = log.utc_ns_of(first.timestamp_ns) if first else None
    sums = {key: sum(tally.counts[key] for tally in streams.values()) for key in _StreamTally().counts}
    return {
        "kind": "log",
        "bytes": log.size,
        "records": records,
        "frames": f"{first.frame_id}..{last.frame_id}" if first and last else "none",
        "seconds": round(seconds, 3),
        "first_frame_utc": None if begin_ns is None else _text_from_utc_ns(begin_ns),
        "packet_bytes_mean": round(total / records, 1) if records else 0,
        "packet_bytes_max": largest,
        "streams": sorted(streams),
        **sums,
        "complete": not log.truncated,
        "damaged_records": log.damaged,
        "missing_records": log.missing,
        **({"other_topics": log.foreign} if log.foreign else {}),
        "anchors": [anchor.as_dict() for anchor in log.anchors],
        "metadata": log.metadata,
    }


class _StreamTally:
    """What a reader of one stream meets, by headers alone; the rules are those of BITSTREAM.md, "Streams"."""

    def __init__(self) -> None:
        names = ("key_packets", "predicted_packets", "counter_gaps", "lost_packets", "repeated_packets", "frames_without_predecessor")
        self.counts = dict.fromkeys(names, 0)
        self._decoded: PacketHeader | None = None
        self._newest: PacketHeader | None = None  # decodable or not

    def add(self, header: PacketHeader) -> None:
        self.counts["key_packets" if header.key else "predicted_packets"] += 1
        if self._decoded is not None and header.repeats(self._decoded):
            self.counts["repeated_packets"] += 1
            return
        missing = 0 if self._newest is None else (header.counter - self._newest.counter - 1) % WRAP
        if 0 < missing < WRAP // 2:  # more: its encoder started again
            self.counts["counter_gaps"] += 1
            self.counts["lost_packets"] += missing
        self._newest = header
        if header.follows(self._decoded):
            self._decoded = header
        else:
            self.counts["frames_without_predecessor"] += 1


def _text_from_utc_ns(utc_ns: int) -> str:
    """ISO 8601 with all nine digits, for years that a clock shows; else the number."""
    try:
        whole = datetime.datetime.fromtimestamp(utc_ns // 10**9, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return str(utc_ns)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{utc_ns % 10**9:09d}Z"


def _print(facts: dict[str, Any], indent: str = "") -> None:
    width = max(len(k) for k in facts) if facts else 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(printable(f"{indent}{key}"))
            _print(value, indent + "  ")
        elif isinstance(value, list):
            print(printable(f"{indent}{key:<{width}}  {', '.join(v if isinstance(v, str) else json.dumps(v) for v in value)}"))
        else:
            print(printable(f"{indent}{key:<{width}}  {value:.5g}" if isinstance(value, float) else f"{indent}{key:<{width}}  {value}"))


__all__ = ["about_bundle", "about_log", "about_packet", "configure_inspect", "inspect"]
