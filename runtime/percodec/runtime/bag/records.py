"""What a bag is made of, whatever file it came from: channels, messages, attachments and metadata, as MCAP has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from percodec.runtime.messages.cdr import CameraInfo, CompressedImage, Image
from percodec.sdk.errors import BackendError

CDR = "cdr"
QOS, TYPE_HASH = "offered_qos_profiles", "topic_type_hash"  # keys of a channel's metadata that rosbag2 reads

Progress = Callable[[int, int], None]  # done, of: bytes or messages


@dataclass(frozen=True)
class Channel:
    """A topic with its type. `metadata`: keys and values as the file has them, QoS above all, which is never rewritten."""

    topic: str
    encoding: str
    schema: str  # the type's name: sensor_msgs/msg/Image
    schema_encoding: str
    definition: bytes
    metadata: tuple[tuple[str, str], ...] = ()

    def carrying(self, topic: str, kind: type[Image] | type[CompressedImage] | type[CameraInfo]) -> Channel:
        """Another topic of another type, offered as this one is."""
        metadata = {QOS: "", **dict(self.metadata), TYPE_HASH: kind.TYPE_HASH}
        return Channel(topic, CDR, kind.NAME, "ros2msg", kind.DEFINITION.encode(), tuple(metadata.items()))


@dataclass(frozen=True, eq=False)
class Message:
    """Times are in ns since 1970: when it was recorded, and when it was published."""

    channel: Channel
    log_time: int
    publish_time: int
    sequence: int
    data: bytes

    def carrying(self, channel: Channel, data: bytes) -> Message:
        """Another message of the same moment."""
        return dataclasses.replace(self, channel=channel, data=data)


@dataclass(frozen=True, eq=False)
class Attachment:
    """A file inside the bag."""

    name: str
    media_type: str
    create_time: int
    log_time: int
    data: bytes


@dataclass(frozen=True)
class Metadata:
    """A named record of texts."""

    name: str
    values: tuple[tuple[str, str], ...]


Record = Message | Attachment | Metadata


def library(name: str) -> ModuleType:
    """`mcap` or `rosbags` or a module of theirs. Raises `BackendError` that says how to get it."""
    import importlib

    try:
        found: Any = importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"bags need {name.partition('.')[0]} ({error}); install with: pip install 'percodec[bag]'") from error
    return found  # type: ignore[no-any-return]


__all__ = ["CDR", "QOS", "TYPE_HASH", "Attachment", "Channel", "Message", "Metadata", "Progress", "Record", "library"]
