"""`percodec inspect`: what a bundle, a packet or a log says about itself, without running anything in it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from percodec.sdk import mcap
from percodec.sdk.bundle import Bundle, GraphInfo
from percodec.sdk.bundle.engines import engines_in
from percodec.sdk.codec import parse_header
from percodec.sdk.errors import DataError, PacketError
from percodec.sdk.log import MAX_RECORD_BYTES, read_log


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec inspect`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "examples:\n  percodec inspect bundles/road-edge\n  percodec inspect percodec-demo/packets.mcap --json"
    parser.add_argument("file", type=Path, help="bundle folder, packet (.pcpk) or log (.mcap)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")


def inspect(args: argparse.Namespace) -> int:
    """Print what `args.file` is. Raises `DataError` where it is nothing of ours."""
    path: Path = args.file
    if not path.exists():
        raise DataError(f"{path} does not exist; give a bundle folder, a packet or a log")
    if path.is_dir():
        facts = about_bundle(Bundle.open(path))
    elif not path.is_file():  # a device or pipe may never end
        raise DataError(f"{path} is not a regular file; give a bundle folder, a packet or a log")
    else:
        with path.open("rb") as f:
            is_log = f.read(len(mcap.MAGIC)) == mcap.MAGIC
        facts = about_log(path) if is_log else about_packet(path)
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        _print(facts)
    return 0


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
        "centers": [round(float(c), 4) for c in bundle.centers],
        "entropy_tables": f"{bundle.entropy_model.table_hash:016x}, profile {bundle.entropy_model.profile}",
        **({"stream_tables": f"{stream.table_hash:016x}, profile {stream.profile}"} if stream else {}),
        "graphs": {k: f"{sizes[manifest['graphs'][k]['file']]['bytes'] / 1e6:.2f} MB, {_about_graph(g)}" for k, g in bundle.graphs.items()},
        "engines": [f"{folder}/{graph}" for folder, graph in engines_in(bundle.path)],
        "labels": [label.name for label in bundle.labels],
        **({"supersedes": manifest["supersedes"]} if manifest.get("supersedes") else {}),
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
        header = parse_header(path.read_bytes())
    except PacketError as e:
        raise PacketError(f"{path}: {e}") from e
    facts = asdict(header)
    facts["version"] = f"{header.version >> 4}.{header.version & 15}"
    facts["table_hash"] = f"{header.table_hash:016x}"
    facts["latent_crc"] = f"{header.latent_crc:08x}"
    return {"kind": "packet", "bytes": size, **facts}


def about_log(path: Path) -> dict[str, Any]:
    """A log's metadata and totals, from reading every record."""
    log = read_log(path)
    records = total = largest = 0
    first = last = None
    for record in log:
        records += 1
        total += len(record.packet)
        largest = max(largest, len(record.packet))
        first, last = first or record, record
    seconds = (last.timestamp_ns - first.timestamp_ns) / 1e9 if first and last else 0.0
    return {
        "kind": "log",
        "bytes": path.stat().st_size,
        "records": records,
        "frames": f"{first.frame_id}..{last.frame_id}" if first and last else "none",
        "seconds": round(seconds, 3),
        "packet_bytes_mean": round(total / records, 1) if records else 0,
        "packet_bytes_max": largest,
        "complete": not log.truncated,
        "damaged_records": log.damaged,
        "metadata": log.metadata,
    }


def _print(facts: dict[str, Any], indent: str = "") -> None:
    width = max(len(k) for k in facts) if facts else 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{key}")
            _print(value, indent + "  ")
        elif isinstance(value, list):
            print(f"{indent}{key:<{width}}  {', '.join(v if isinstance(v, str) else json.dumps(v) for v in value)}")
        else:
            print(f"{indent}{key:<{width}}  {value:.5g}" if isinstance(value, float) else f"{indent}{key:<{width}}  {value}")


__all__ = ["about_bundle", "about_log", "about_packet", "configure_inspect", "inspect"]
