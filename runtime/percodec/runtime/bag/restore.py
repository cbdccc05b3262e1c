"""`percodec bag restore`: packets become pictures again, of the size, stamp, frame id and encoding that came in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.bag.compress import SUFFIX, Target, refuse_taken
from percodec.runtime.bag.open import Bag
from percodec.runtime.bag.packets import PacketReader
from percodec.runtime.bag.records import CDR, Message
from percodec.runtime.bag.sessions import Sessions
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.runtime.messages.format import PacketFormat, is_packet_format
from percodec.runtime.messages.pictures import ENCODINGS, image_from_rgb
from percodec.sdk.errors import UsageError
from percodec.sdk.fit import PAD
from percodec.sdk.types import Latent


def packet_targets(bag: Bag, topics: Sequence[str], everything: bool, firsts: dict[str, str], new: Callable[[str], str]) -> list[Target]:
    """Topics of packets. `topics`: TOPIC or TOPIC=NEW; `new`: a name for those without. Raises `UsageError` naming the topic."""
    by_topic = {channel.topic: channel for channel in bag.channels if channel.schema == CompressedImage.NAME and channel.encoding == CDR}
    packets = sorted(name for name in by_topic if is_packet_format(firsts.get(name, "")))
    listed = ", ".join(packets) or "none"
    if everything:
        topics = packets
        if not topics:
            raise UsageError("no topic of the bag has packets")
    found = []
    for text in topics:
        name, _, chosen = text.partition("=")
        if name not in packets:
            raise UsageError(f"--topic {name}: is no topic of packets; the bag has {listed}")
        found.append(Target(by_topic[name], chosen or new(name)))
    refuse_taken([channel.topic for channel in bag.channels], [target.topic for target in found])
    return found


def image_topic(topic: str) -> str:
    """`/cam/image_raw/percodec` was `/cam/image_raw`."""
    return topic.removesuffix(SUFFIX) if topic.endswith(SUFFIX) else f"{topic}/restored"


class _Coded(NamedTuple):
    header: Header
    form: PacketFormat
    symbols: NDArray[np.uint8]


class Restore:
    """The step. A picture that was fitted to the bundle's frame comes back at the frame's size: what was cut off is gone."""

    def __init__(self, sessions: Sessions, target: Target, *, keep: bool) -> None:
        self._sessions, self._keep = sessions, keep
        self._packets = PacketReader(sessions.bundle)
        self.channel = target.source.carrying(target.topic, Image)

    def begin(self, message: Message) -> Callable[[], Any]:
        coded = CompressedImage.from_cdr(message.data)
        form, symbols = self._packets.symbols(coded)
        return lambda: self._picture(_Coded(coded.header, form, symbols))

    def end(self, message: Message, result: bytes) -> list[Message]:
        made = message.carrying(self.channel, result)
        return [message, made] if self._keep else [made]

    def _picture(self, coded: _Coded) -> bytes:
        form = coded.form
        with self._sessions.borrow((form.width, form.height) if form.fit == PAD else None) as session:
            rgb = session.decode(Latent(coded.symbols, 0, 0))
        encoding = form.encoding if form.encoding in ENCODINGS else "rgb8"
        return image_from_rgb(rgb, encoding, coded.header).to_cdr()


__all__ = ["Restore", "image_topic", "packet_targets"]
