"""What in a log contradicts itself, the way `percodec run` writes logs, or the JSON lines of the live run.

| compared | rule |
|---|---|
| frame ids | rise from packet to packet: no frame twice, none out of order |
| packet times | never go back |
| message times | are their packet's |
| sequence numbers | rise; all 0 where a tool did not keep them |
| streams | are the one that the log's metadata name |
| topic, schema, encoding | are those of packets |
| JSON lines | one a frame, in order; time and packet size are the logged ones; only the newest frames may have none (a kill between) |
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from percodec.sdk.codec import parse_header
from percodec.sdk.log import LogReader
from percodec.sdk.log.names import ENCODING, SCHEMA, TOPIC

_FIRST = 5  # frame ids that are named


def contradictions(log: LogReader, lines: Sequence[dict[str, Any]] = ()) -> list[str]:
    """One text for each kind of contradiction, with how many frames and the first of them; [] where there is none.

    Reads the whole log; it must have been opened to allow damage. `lines`: what the live run wrote, in order.
    """
    found: dict[str, list[int]] = {}
    said = {int(line["frame_id"]): line for line in lines}
    ids = [int(line["frame_id"]) for line in lines]
    for before, frame_id in itertools.pairwise(ids):
        if frame_id <= before:
            found.setdefault("JSON lines twice or out of order", []).append(frame_id)
    newest = max(ids, default=-1)
    last: tuple[int, int, int] | None = None  # frame id, packet time, sequence
    for record in log:
        header = parse_header(record.packet)
        frame_id, time_ns = header.frame_id, header.timestamp_ns
        wrong = []
        if last is not None:
            wrong += ["frames twice"] if frame_id == last[0] else ["frames out of order"] if frame_id < last[0] else []
            wrong += ["times that go back"] if time_ns < last[1] else []
            wrong += ["sequence numbers that do not rise"] if record.sequence <= last[2] and record.sequence else []
        wrong += ["message times that are not their packet's"] if {record.timestamp_ns, record.log_time_ns} != {time_ns} else []
        if str(header.stream_id) != log.metadata.get("stream_id", str(header.stream_id)):
            wrong.append(f"packets of another stream than {log.metadata['stream_id']}")
        if lines:
            line = said.get(frame_id)
            if line is None:
                wrong += ["frames without a JSON line"] if frame_id < newest else []
            else:
                wrong += ["times that are not those of the JSON lines"] if line.get("timestamp_ns", time_ns) != time_ns else []
                size = line.get("packet_bytes")
                wrong += ["packets of another size than the JSON lines say"] if size not in (None, len(record.packet)) else []
        for kind in wrong:
            found.setdefault(kind, []).append(frame_id)
        last = frame_id, time_ns, record.sequence
    texts = [
        f"{len(frames)} {kind} (frame {', '.join(map(str, frames[:_FIRST]))}{', ...' * (len(frames) > _FIRST)})"
        for kind, frames in found.items()
    ]
    for channel in log.channels.values():
        for what, is_, should in (
            ("topic", channel.topic, TOPIC),
            ("schema", channel.schema, SCHEMA),
            ("encoding", channel.encoding, ENCODING),
        ):
            texts += [f"the {what} is {is_!r}, not {should!r}"] if is_ != should else []
    return texts


__all__ = ["contradictions"]
