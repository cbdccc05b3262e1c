"""`VideoCodec`: packets of a stream, most of them by what changed since the latent before.

    key packet         latent alone, as `PacketCodec` writes it
    predicted packet   entropy tables by neighbours in this latent and in the one before (profile 2, of uniform steps 5)

Which one should I use? `PacketCodec` where any packet may be wanted alone (a log that is searched). `VideoCodec` where a stream is
kept or sent whole: about half of the bytes, and a lost packet costs what follows up to the next key packet. `PacketHeader.key` tells
the two kinds apart without decoding. What a reader does with each packet: BITSTREAM.md, "Streams".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.entropy_model import PREDICTED, EntropyModel
from percodec.sdk.codec.header import WRAP, BytesLike, PacketHeader
from percodec.sdk.codec.packet import PacketCodec, check_array, parse_header
from percodec.sdk.codec.steps import StepsModel
from percodec.sdk.errors import CodecError, PacketError


class VideoCodec:
    """One direction of one stream: an encoder, or a decoder, whichever is called first.

    `key`: tables of profile 0, 1 or 3 and `predicted` of profile 2, or of profiles 4 and 5, both of the same latent uint8 [C,h,w]. A key
    packet comes first, after every `key_every` - 1 predicted ones, and when asked for. `stream_id`: what `encode` writes; `decode` keeps
    to the stream of the first packet it decodes. Raises `CodecError` when an argument does not fit.

    Packets follow one another, so calls do: a call while another thread is in one is a `CodecError`, and so is the other direction. A
    call that raises changes nothing.
    """

    def __init__(
        self,
        key: EntropyModel | StepsModel,
        predicted: EntropyModel | StepsModel,
        height: int,
        width: int,
        *,
        stream_id: int = 0,
        key_every: int = 25,
    ) -> None:
        alike = isinstance(key, StepsModel) == isinstance(predicted, StepsModel)
        if predicted.profile not in PREDICTED or key.profile in PREDICTED or not alike:
            raise CodecError(
                "a stream needs tables of profile 0, 1 or 3 for keys and 2 in between, or 4 and 5, "
                f"got {key.profile} and {predicted.profile}"
            )
        if _latent(key) != _latent(predicted):
            raise CodecError("the two entropy models are not of the same latent")
        if key_every < 1:
            raise CodecError(f"key_every must be at least 1, got {key_every}")
        self._key = PacketCodec(key, height, width, stream_id=stream_id)
        self._predicted = PacketCodec(predicted, height, width, stream_id=stream_id)
        self._key_every, self._channels = key_every, key.channels
        self._latents = np.zeros((2 * key.channels, height, width), np.uint8)  # the one before, and this one
        self._counter = -1  # of the packet whose latent is the one before
        self._since_key = key_every  # packets since the last key packet, it included: as many as there may be ask for one
        self._last: PacketHeader | None = None  # a decoder's
        self._way = ""
        self._used = threading.Lock()

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int, *, key: bool = False) -> bytes:
        """A packet of `symbols` uint8 [C,h,w]. `key`: to be decodable alone. Raises as `PacketCodec.encode` does."""
        check_array(symbols, "symbols", self._key.latent_shape)
        with self._only("encode"):
            counter = (self._counter + 1) % WRAP
            key = key or self._since_key >= self._key_every
            now = self._latents[self._channels :]
            now[:] = symbols
            codec, latents = (self._key, now) if key else (self._predicted, self._latents)
            packet = codec.encode(latents, frame_id, timestamp_ns, counter=counter)
            self._latents[: self._channels] = now
            self._counter, self._since_key = counter, 1 if key else self._since_key + 1
        return packet

    def decode(self, packet: BytesLike) -> tuple[PacketHeader, NDArray[np.uint8]]:
        """Header and symbols [C,h,w], yours to keep.

        Raises `PacketError` as `PacketCodec.decode`, and for a packet of another stream, one that was decoded before or comes too late,
        and a predicted one whose predecessor was not the last one decoded: it says to wait for the next key packet, which decodes.
        """
        header = parse_header(packet)
        with self._only("decode"):
            self._check_follows(header)
            now = self._latents[self._channels :]
            if header.key:
                header, _ = self._key.decode(packet, now)
            else:
                try:
                    header, _ = self._predicted.decode(packet, self._latents)
                except PacketError as error:
                    raise PacketError(f"{error}; or its encoder started again: wait for the next key packet") from None
            self._latents[: self._channels] = now
            self._last = header
            return header, now.copy()

    def _check_follows(self, header: PacketHeader) -> None:
        last, name = self._last, f"packet {header.counter} of stream {header.stream_id}"
        if last is not None and header.stream_id != last.stream_id:
            raise PacketError(f"{name} is not of stream {last.stream_id}, which this decoder reads: use a VideoCodec for each stream")
        if last is not None and header.repeats(last):
            raise PacketError(f"{name} came twice or too late, the last one decoded is {last.counter}: drop it, the stream goes on")
        if not header.follows(last):
            raise PacketError(
                f"{name} needs the latent of packet {(header.counter - 1) % WRAP}, the last one decoded is "
                f"{'none' if last is None else last.counter}: packets were lost, wait for the next key packet"
            )

    @contextmanager
    def _only(self, way: str) -> Iterator[None]:
        if not self._used.acquire(blocking=False):
            raise CodecError("this VideoCodec is in use by another thread: packets of a stream follow one another, take turns")
        try:
            if self._way not in ("", way):
                raise CodecError(f"this VideoCodec was made to {self._way}: make another one to {way}")
            yield
            self._way = way
        finally:
            self._used.release()


def _latent(model: EntropyModel | StepsModel) -> tuple[object, ...]:
    """What two sets of tables must have in common."""
    each = (model.offsets, model.levels_per_channel) if isinstance(model, StepsModel) else (model.levels,)
    return (model.channels, *each)


__all__ = ["VideoCodec"]
