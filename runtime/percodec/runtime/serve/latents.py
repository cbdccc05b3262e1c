"""Packets of one request -> latents, in order.

Packets that stand alone are read in any order. Those of a stream are predicted from the one before, so a request has to hold a whole run of
them, from a key packet on; streams of several cameras may take turns.
"""

from __future__ import annotations

from collections.abc import Sequence

from percodec.runtime.session import Session, Stream
from percodec.sdk.codec import PacketHeader, parse_header
from percodec.sdk.errors import PacketError
from percodec.sdk.types import Latent


def latents_of(session: Session, packets: Sequence[bytes]) -> list[Latent]:
    """Raises `PacketError` that names the packet by its place."""
    reader = _Reader(session)
    found = []
    for k, packet in enumerate(packets):
        try:
            found.append(reader.latent(packet))
        except PacketError as error:
            raise PacketError(f"packet {k}: {error}") from None
    return found


class _Reader:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys: dict[int, bytes] = {}  # the key packet that a predicted one may follow, until one does
        self._last: dict[int, PacketHeader] = {}
        self._streams: dict[int, Stream] = {}

    def latent(self, packet: bytes) -> Latent:
        header = parse_header(packet)
        stream = header.stream_id
        if header.key:
            latent = self._session.unpack(packet)
            self._keys[stream] = packet
        else:
            latent = self._predicted(packet, header)
        self._last[stream] = header
        return latent

    def _predicted(self, packet: bytes, header: PacketHeader) -> Latent:
        bundle, stream = self._session.bundle, header.stream_id
        if bundle.stream_model is None:
            raise PacketError(f"is predicted from the one before, of which bundle {bundle.name} has no tables; it is of another bundle")
        last = self._last.get(stream)
        if not header.follows(last):
            before = "none of its stream is before it here" if last is None else f"{last.counter} is the one before it here"
            raise PacketError(
                f"number {header.counter} of stream {stream} is predicted from number {(header.counter - 1) & 0xFFFFFFFF}, and {before}; "
                "send the whole run in one request, from its key packet on"
            )
        if stream in self._keys:
            self._streams[stream] = self._session.stream()
            self._streams[stream].unpack(self._keys.pop(stream))
        return self._streams[stream].unpack(packet)


__all__ = ["latents_of"]
