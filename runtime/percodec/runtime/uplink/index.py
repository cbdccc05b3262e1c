"""The index of a shard: one row a packet, as Parquet."""

from __future__ import annotations

from collections.abc import Mapping

from percodec.runtime.uplink.wire import Record, SegmentId
from percodec.sdk.clock import ClockAnchor
from percodec.sdk.codec import parse_header

COLUMNS = {
    "vehicle": "string", "boot_id": "string", "recording": "string", "segment": "uint32", "sequence": "uint32", "stream_id": "uint16",
    "counter": "uint32", "frame_id": "uint32", "timestamp_ns": "uint64", "utc_ns": "uint64", "key": "bool", "packet_bytes": "uint32",
    "bundle_digest": "string", "shard": "string", "offset": "uint64",
}  # fmt: skip


def packed_index(
    vehicle: str, segment: SegmentId, metadata: Mapping[str, str], records: Mapping[int, Record], shard: str, places: Mapping[int, int]
) -> bytes:
    """`records` and `places`, the offset of each packet in the shard, by sequence. `utc_ns` is null for media time."""
    import pyarrow
    import pyarrow.parquet

    anchor = ClockAnchor.from_texts(metadata) if metadata.get("clock") == "monotonic" else None
    count = len(records)
    headers = [parse_header(record.packet) for record in records.values()]
    same = {
        "vehicle": vehicle, "boot_id": metadata.get("boot_id", ""), "recording": segment.recording, "segment": segment.number,
        "bundle_digest": metadata.get("bundle_digest", ""), "shard": shard,
    }  # fmt: skip
    columns = {
        **{name: [value] * count for name, value in same.items()},
        "sequence": list(records),
        "stream_id": [header.stream_id for header in headers],
        "counter": [header.counter for header in headers],
        "frame_id": [header.frame_id for header in headers],
        "timestamp_ns": [record.timestamp_ns for record in records.values()],
        "utc_ns": [_utc_ns(record.timestamp_ns, anchor) for record in records.values()],
        "key": [header.key for header in headers],
        "packet_bytes": [len(record.packet) for record in records.values()],
        "offset": [places[number] for number in records],
    }
    types = {"string": pyarrow.string(), "bool": pyarrow.bool_()}
    schema = pyarrow.schema([(name, types.get(kind) or getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue())


def _utc_ns(timestamp_ns: int, anchor: ClockAnchor | None) -> int | None:
    if anchor is None:
        return None
    utc_ns = timestamp_ns - anchor.monotonic_ns + anchor.utc_ns
    return utc_ns if 0 <= utc_ns < 1 << 64 else None


__all__ = ["COLUMNS", "packed_index"]
