"""`percodec bag compress`: pictures of chosen topics become packets on `<image>/percodec`; the rest of the bag stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.bag.open import Bag
from percodec.runtime.bag.packets import PacketWriter
from percodec.runtime.bag.records import CDR, Channel, Message, Metadata
from percodec.runtime.bag.sessions import Sessions, Size
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.messages.pictures import ENCODINGS, picture_from_image, rgb_from_compressed
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import MessageError, UsageError
from percodec.sdk.fit import PAD
from percodec.sdk.types import Frame, PixelFormat

SUFFIX = "/percodec"
ABOUT = "percodec.bag"  # name of the metadata record
PICTURES = (Image.NAME, CompressedImage.NAME)


class Target(NamedTuple):
    """A topic, and the name of the one that takes its place."""

    source: Channel
    topic: str


def packet_topic(topic: str) -> str:
    """`/cam/image_raw` and `/cam/image_raw/compressed` become `/cam/image_raw/percodec`."""
    return topic.removesuffix("/compressed") + SUFFIX


def targets(bag: Bag, topics: Sequence[str], everything: bool, firsts: dict[str, str]) -> list[Target]:
    """What is to be compressed. `topics`: TOPIC or TOPIC=NEW; `firsts`: see `first_formats`. Raises `UsageError` naming the topic.

    `everything`: topics of colour, and of JPEG and PNG. Grey pictures have to be named, for they may be class ids.
    """
    by_topic = {channel.topic: channel for channel in bag.channels}
    if everything:
        raw = [name for name, channel in by_topic.items() if channel.schema == Image.NAME and _is_colour(firsts.get(name, ""))]
        coded = [name for name, channel in by_topic.items() if channel.schema == CompressedImage.NAME and _is_picture(firsts.get(name, ""))]
        topics = sorted([*raw, *(name for name in coded if packet_topic(name) not in {packet_topic(other) for other in raw})])
        if not topics:
            raise UsageError(f"no topic of the bag has colour pictures (name others with --topic); it has {_listed(by_topic)}")
    found = []
    for text in topics:
        name, _, new = text.partition("=")
        channel = by_topic.get(name)
        if channel is None:
            raise UsageError(f"--topic {name}: the bag has no such topic; it has {_listed(by_topic)}")
        if channel.schema not in PICTURES or channel.encoding != CDR:
            raise UsageError(f"--topic {name}: is {channel.schema or channel.encoding}; pictures are {' or '.join(PICTURES)} in CDR")
        found.append(Target(channel, new or packet_topic(name)))
    refuse_taken(by_topic, [target.topic for target in found])
    return found


def refuse_taken(there: Iterable[str], new: Sequence[str]) -> None:
    """Raises `UsageError` for a topic that the bag has, or that would come twice: two channels of one name look like one."""
    taken = set(there)
    for topic in new:
        if topic in taken:
            raise UsageError(f"the bag has a topic {topic} already; name another one: --topic TOPIC=NEW")
        taken.add(topic)


def first_formats(bag: Bag) -> dict[str, str]:
    """Topic -> encoding or format of its first message, of topics of pictures. Reads no further than it must."""
    wanted = {channel.topic for channel in bag.channels if channel.schema in PICTURES and channel.encoding == CDR}
    if bag.counts is not None:
        wanted -= {channel.topic for channel, count in bag.counts.items() if not count}
    found: dict[str, str] = {}
    for record in bag.records() if wanted else ():
        if isinstance(record, Message) and record.channel.topic in wanted - found.keys():
            try:
                if record.channel.schema == Image.NAME:
                    found[record.channel.topic] = Image.from_cdr(record.data).encoding
                else:
                    found[record.channel.topic] = CompressedImage.from_cdr(record.data).format
            except MessageError:
                found[record.channel.topic] = ""
            if wanted <= found.keys():
                break
    return found


class Picture(NamedTuple):
    """What a message shows. `image` as `Frame` takes it."""

    header: Header
    image: NDArray[np.uint8]
    pixel_format: PixelFormat
    encoding: str
    size: tuple[int, int]  # width, height


def picture_of(message: Message) -> Picture:
    """Of an `Image`, or of a `CompressedImage` with a JPEG or PNG. Raises `MessageError`."""
    if message.channel.schema == Image.NAME:
        image = Image.from_cdr(message.data)
        array, kind = picture_from_image(image)
        return Picture(image.header, array, kind, image.encoding, (image.width, image.height))
    coded = CompressedImage.from_cdr(message.data)
    rgb = rgb_from_compressed(coded)
    first = coded.format.partition(";")[0].strip()
    encoding = first if first in ENCODINGS else "bgr8"
    return Picture(coded.header, rgb, PixelFormat.RGB8, encoding, (rgb.shape[1], rgb.shape[0]))


class Compress:
    """The step. `whole`: pictures at their own size, else fitted as the bundle says."""

    def __init__(self, sessions: Sessions, target: Target, writer: PacketWriter, *, whole: bool, keep: bool) -> None:
        self._sessions, self._writer, self._whole, self._keep = sessions, writer, whole, keep
        self._fit = PAD if whole else sessions.bundle.fit
        self.channel = target.source.carrying(target.topic, CompressedImage)
        self.formats: dict[str, int] = {}

    def begin(self, message: Message) -> Callable[[], Any]:
        return lambda: self._symbols(message)

    def end(self, message: Message, result: tuple[Picture, NDArray[np.uint8]]) -> list[Message]:
        picture, symbols = result
        form = PacketFormat.of(self._sessions.bundle, picture.encoding, *picture.size, self._fit)
        packet = self._writer.message(symbols, picture.header, form)
        self.formats[packet.format] = self.formats.get(packet.format, 0) + 1
        made = message.carrying(self.channel, packet.to_cdr())
        return [message, made] if self._keep else [made]

    def _symbols(self, message: Message) -> tuple[Picture, NDArray[np.uint8]]:
        picture = picture_of(message)
        size: Size = picture.size if self._whole else None
        with self._sessions.borrow(size) as session:
            latent = session.encode(Frame(picture.image, 0, 0, picture.pixel_format))
        return picture, latent.symbols


def about(bundle: Bundle, steps: Iterable[tuple[Target, Compress]]) -> Metadata:
    """The record `percodec.bag`: the bundle, and what became of which topic. (`percodec` is that of a log.)"""
    values = {"bundle_name": bundle.name, "bundle_digest": bundle.digest}
    for target, step in steps:
        values[target.topic] = json.dumps({"from": target.source.topic, "type": target.source.schema, "formats": step.formats})
    return Metadata(ABOUT, tuple(values.items()))


def _is_colour(encoding: str) -> bool:
    return encoding in ENCODINGS and encoding not in ("mono8", "8UC1")


def _is_picture(text: str) -> bool:
    coded = any(word in text.lower() for word in ("jpeg", "jpg", "png")) and "compressedDepth" not in text
    return coded and not text.startswith(("16UC1", "32FC1", "mono8", "8UC1"))


def _listed(topics: Iterable[str]) -> str:
    names = sorted(topics)
    return (", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")) or "none"


__all__ = [
    "ABOUT",
    "PICTURES",
    "SUFFIX",
    "Compress",
    "Picture",
    "Target",
    "about",
    "first_formats",
    "packet_topic",
    "picture_of",
    "refuse_taken",
    "targets",
]
