"""`percodec bag import`: a log of percodec's own becomes a bag. The packets are the same bytes; the header says what ROS needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from percodec.runtime.bag.compress import ABOUT
from percodec.runtime.bag.records import CDR, QOS, TYPE_HASH, Channel, Message, Metadata, Progress
from percodec.runtime.bag.transform import Outcome
from percodec.runtime.bag.write import BagWriter
from percodec.runtime.messages.cdr import CompressedImage, Header
from percodec.runtime.messages.format import PacketFormat
from percodec.sdk import read_log
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import LogError


def import_log(
    path: Path, out: BagWriter, bundle: Bundle, topic: str, frame_id: str, progress: Progress = lambda done, of: None
) -> Outcome:
    """Every packet of the log to `topic`. The stamp is the time of day where the log can tell it, else the log's own time.

    Raises `LogError` for a log of another bundle, or that is none.
    """
    log = read_log(path, allow_damaged=True)
    if not bundle.answers_to(log.bundle_digest):
        raise LogError(
            f"{path} is of the bundle {log.bundle_name}@{log.bundle_digest[:12]}, this is {bundle.name}@{bundle.digest[:12]}; "
            "give it with --bundle"
        )
    form = str(PacketFormat.of(bundle, "rgb8", bundle.frame_width, bundle.frame_height, bundle.fit))
    metadata = ((QOS, ""), (TYPE_HASH, CompressedImage.TYPE_HASH))
    channel = Channel(topic, CDR, CompressedImage.NAME, "ros2msg", CompressedImage.DEFINITION.encode(), metadata)
    outcome, size = Outcome(), path.stat().st_size
    out.declare(channel)
    for record in log:
        utc = log.utc_ns_of(record.timestamp_ns)
        at = record.timestamp_ns if utc is None else utc
        message = CompressedImage(Header.at(at, frame_id), form, np.frombuffer(record.packet, np.uint8))
        data = message.to_cdr()
        out.add(Message(channel, at, at, record.sequence, data))
        outcome.messages, outcome.written = outcome.messages + 1, outcome.written + 1
        outcome.read_bytes += len(record.packet)
        outcome.made_bytes += len(data)
        progress(min(size, outcome.read_bytes), size)
    out.add(Metadata(ABOUT, (("bundle_name", bundle.name), ("bundle_digest", bundle.digest), *log.metadata.items())))
    if log.truncated:
        outcome.damage.append(f"{path}: the log has no proper end; its {outcome.messages} complete packets were taken")
    if log.complaint():
        outcome.damage.append(f"{path}: {log.complaint()}")
    return outcome


__all__ = ["import_log"]
