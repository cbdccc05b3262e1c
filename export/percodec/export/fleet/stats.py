"""`Stats`: what a shard holds, without decoding a payload."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from percodec.export.fleet.losses import Losses
from percodec.export.fleet.shards import Shard, ShardReader
from percodec.export.fleet.store import Store
from percodec.export.fleet.units import Call, Settings
from percodec.sdk.codec import parse_header


@dataclass(frozen=True)
class Stats:
    """Packets, bytes and key packets, by bundle; streams, first and last time of each shard in its file."""

    ending: str = ".stats"

    def settings(self) -> Settings:
        return {"made_by": "stats"}

    def open(self) -> Call:
        def call(store: Store, shard: Shard, path: Path) -> tuple[dict[str, int], Losses]:
            packets = keys = size = 0
            streams: set[int] = set()
            times: list[int] = []
            with ShardReader(store, shard) as reader:
                for record in reader:
                    header = parse_header(record.packet)
                    packets, keys, size = packets + 1, keys + header.key, size + len(record.packet)
                    streams.add(header.stream_id)
                    times = [min([*times[:1], record.timestamp_ns]), max([*times[1:], record.timestamp_ns])]
                log, losses, source = reader.log, reader.losses, reader.source
            about = {**source._asdict(), "bundle_name": log.bundle_name, "bundle_digest": log.bundle_digest, "streams": sorted(streams)}
            counts = {"packets": packets, "key_packets": keys, "packet_bytes": size}
            path.write_text(json.dumps({**about, "timestamps_ns": times, **counts}, indent=1))
            counts[f"packets of {log.bundle_name or 'no bundle'}"] = packets
            return counts, losses

        return call


__all__ = ["Stats"]
