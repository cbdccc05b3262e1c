"""`Alone`: packets of one shard, in order, turned into packets that stand alone, to be shuffled, kept and decoded in any order.

key packet         as it is
predicted packet   decoded after the packet before it, from the last key packet on, and coded again alone: the same symbols
"""

from __future__ import annotations

from percodec.export.fleet.losses import Losses
from percodec.runtime.session import stream_codec
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec, PacketHeader, VideoCodec, parse_header
from percodec.sdk.errors import BundleError, PacketError


class Alone:
    """One shard's streams. `losses` counts what was left out. Raises `BundleError` where the bundle has no tables of predicted packets."""

    def __init__(self, bundle: Bundle, codec: PacketCodec, losses: Losses, where: str) -> None:
        self._bundle, self._codec, self._losses, self._where = bundle, codec, losses, where
        self._streams: dict[int, VideoCodec] = {}
        self._keys: dict[int, bytes] = {}  # the key packet a predicted one may follow, until it has
        self._last: dict[int, PacketHeader] = {}

    def __call__(self, packet: bytes) -> tuple[PacketHeader, bytes] | None:
        """Header, and a packet with the same symbols that stands alone; None where it is lost, and counted."""
        header = parse_header(packet)
        stream = header.stream_id
        last = self._last.get(stream)
        if last is not None and header.repeats(last):
            self._losses.add("repeated", 1, f"{self._where}: packet {header.counter} of stream {stream} came twice or too late")
            return None
        if header.key:
            self._last[stream], self._keys[stream] = header, packet
            return header, packet
        if self._bundle.stream_model is None:
            raise BundleError(
                f"{self._where}: packet {header.counter} of stream {stream} is a predicted one, of which bundle {self._bundle.name} has no "
                "tables; name the bundle it was logged with"
            )
        if not header.follows(last):
            self._losses.add("lost", 1, f"{self._where}: packet {header.counter} of stream {stream} needs the one before, which is missing")
            return None
        try:
            if stream in self._keys:
                self._streams[stream] = stream_codec(self._bundle)
                self._streams[stream].decode(self._keys.pop(stream))
            _, symbols = self._streams[stream].decode(packet)
        except PacketError as error:
            self._last.pop(stream)  # up to the next key packet
            self._losses.add("refused", 1, f"{self._where}: {error}")
            return None
        self._last[stream] = header
        return header, self._codec.encode(symbols, header.frame_id, header.timestamp_ns, counter=header.counter)


__all__ = ["Alone"]
