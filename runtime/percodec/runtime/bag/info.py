"""`percodec bag info`: topics, and of packets the bundle, size, rate and what was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from percodec.runtime.bag.open import Bag
from percodec.runtime.bag.records import CDR, Message, Progress
from percodec.runtime.messages.cdr import CompressedImage, Image
from percodec.runtime.messages.format import PacketFormat, is_packet_format
from percodec.sdk.codec import parse_header
from percodec.sdk.codec.header import WRAP
from percodec.sdk.errors import MessageError, PacketError


@dataclass
class Topic:
    """One topic's messages. `lost`: packets that the counters say are missing; `broken`: messages that are not what they say."""

    topic: str
    type: str
    messages: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0
    format: str = ""
    packets: int = 0
    keys: int = 0
    lost: int = 0
    broken: int = 0
    packet_bytes: int = 0
    pixels: int = 0
    counters: dict[int, int] = field(default_factory=dict, repr=False)  # stream id -> the last one

    def see(self, message: Message) -> None:
        """Count a message."""
        self.first = min(self.first, message.log_time) if self.messages else message.log_time
        self.last = max(self.last, message.log_time)
        self.messages += 1
        self.bytes += len(message.data)
        if message.channel.encoding != CDR or self.type not in (Image.NAME, CompressedImage.NAME):
            return
        try:
            if self.type == Image.NAME:
                image = Image.from_cdr(message.data)
                self.format = self.format or f"{image.encoding} {image.width}x{image.height}"
            else:
                self._see_coded(CompressedImage.from_cdr(message.data))
        except (MessageError, PacketError):
            self.broken += 1

    def _see_coded(self, coded: CompressedImage) -> None:
        self.format = self.format or coded.format
        if not is_packet_format(coded.format):
            return
        form, header = PacketFormat.from_text(coded.format), parse_header(coded.data.tobytes())
        last = self.counters.get(header.stream_id)
        gap = 0 if last is None else (header.counter - last - 1) % WRAP
        self.lost += gap if gap < WRAP // 2 else 0  # a counter that went back: the encoder was started anew
        self.counters[header.stream_id] = header.counter
        self.packets += 1
        self.keys += header.key
        self.packet_bytes += coded.data.size
        self.pixels += form.width * form.height

    def as_dict(self) -> dict[str, Any]:
        """For JSON. `hz` None of fewer than two messages; `bpp` None without packets."""
        span = self.last - self.first
        found = {key: getattr(self, key) for key in ("topic", "type", "messages", "bytes", "format", "broken")}
        found["hz"] = (self.messages - 1) * 1e9 / span if span > 0 else None
        if self.packets:
            found |= {"packets": self.packets, "keys": self.keys, "lost": self.lost, "packet_bytes": self.packet_bytes}
            found["bpp"] = self.packet_bytes * 8 / self.pixels
        return found


def topics_of(bag: Bag, progress: Progress = lambda done, of: None) -> list[Topic]:
    """By name. `bag.damage` says afterwards what could not be read."""
    found = {channel.topic: Topic(channel.topic, channel.schema) for channel in bag.channels}
    for record in bag.records(progress):
        if isinstance(record, Message):
            topic = found.setdefault(record.channel.topic, Topic(record.channel.topic, record.channel.schema))
            topic.see(record)
    return sorted(found.values(), key=lambda topic: topic.topic)


__all__ = ["Topic", "topics_of"]
