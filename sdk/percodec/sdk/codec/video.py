"""`VideoCodec`: packets of a stream, most of them by what changed since the latent before.

    key packet         latent alone, as `PacketCodec` writes it
    predicted packet   entropy tables by neighbours in this latent and in the one before (profile 2)

Which one should I use? `PacketCodec` where any packet may be wanted alone (a log that is searched). `VideoCodec` where a stream is
kept or sent whole: about half of the bytes, and a lost packet costs what follows up to the next key packet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.entropy_model import PROFILE_TEMPORAL, EntropyModel
from percodec.sdk.codec.header import BytesLike, PacketHeader
from percodec.sdk.codec.packet import PacketCodec, parse_header
from percodec.sdk.errors import CodecError, PacketError

_WRAP = 1 << 32


class VideoCodec:
    """One direction of one stream: an encoder, or a decoder. Not for sharing between threads.

    `key`: tables of profile 0, 1 or 3, `predicted`: of profile 2, both of the same latent uint8 [C,h,w]. A key packet comes first, after
    every `key_every` - 1 predicted ones, and when asked for. Raises `CodecError` when an argument does not fit.
    """

    def __init__(
        self, key: EntropyModel, predicted: EntropyModel, height: int, width: int, *, stream_id: int = 0, key_every: int = 25
    ) -> None:
        if predicted.profile != PROFILE_TEMPORAL or key.profile == PROFILE_TEMPORAL:
            raise CodecError(
                f"a stream needs tables of profile 0, 1 or 3 for keys and 2 in between, got {key.profile} and {predicted.profile}"
            )
        if (key.channels, key.levels) != (predicted.channels, predicted.levels):
            raise CodecError("the two entropy models are not of the same latent")
        if key_every < 1:
            raise CodecError(f"key_every must be at least 1, got {key_every}")
        self._codecs = {False: PacketCodec(key, height, width, stream_id=stream_id)}
        self._codecs[True] = PacketCodec(predicted, height, width, stream_id=stream_id)
        self._key_every, self._channels = key_every, key.channels
        self._latents = np.zeros((2 * key.channels, height, width), np.uint8)  # the one before, and this one
        self._since_key = 0
        self._counter: int | None = None  # of the packet whose latent is the one before; None where there is none
        self._stream = stream_id  # and its stream

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int, *, key: bool = False) -> bytes:
        """A packet of `symbols` uint8 [C,h,w]. `key`: to be decodable alone. Raises as `PacketCodec.encode` does."""
        if symbols.dtype != np.uint8 or symbols.shape != self._codecs[False].latent_shape:
            shape = list(self._codecs[False].latent_shape)
            raise CodecError(f"symbols must be uint8 {shape}, got {symbols.dtype} {list(symbols.shape)}")
        counter = 0 if self._counter is None else (self._counter + 1) % _WRAP
        predicted = not key and self._counter is not None and self._since_key < self._key_every
        now = self._latents[self._channels :]
        now[:] = symbols
        packet = self._codecs[predicted].encode(self._latents if predicted else now, frame_id, timestamp_ns, counter=counter)
        self._keep(counter, predicted)
        return packet

    def decode(self, packet: BytesLike) -> tuple[PacketHeader, NDArray[np.uint8]]:
        """Header and symbols [C,h,w], yours to keep.

        Raises `PacketError` as `PacketCodec.decode`, and for a predicted packet whose predecessor was not decoded: then none is until
        the next key packet.
        """
        header = parse_header(packet)
        predicted = header.profile == PROFILE_TEMPORAL
        follows = self._counter is not None and (header.stream_id, header.counter) == (self._stream, (self._counter + 1) % _WRAP)
        if predicted and not follows:
            last = "none" if self._counter is None else f"{self._counter} of stream {self._stream}"
            self._counter = None
            raise PacketError(
                f"packet {header.counter} of stream {header.stream_id} needs the latent of packet {(header.counter - 1) % _WRAP}, the last "
                f"one decoded is {last}: packets were lost, wait for the next key packet"
            )
        now = self._latents[self._channels :]
        self._counter = None  # until this one is decoded: an altered packet breaks the chain too
        header, _ = self._codecs[predicted].decode(packet, self._latents if predicted else now)
        self._keep(header.counter, predicted)
        self._stream = header.stream_id
        return header, now.copy()

    def _keep(self, counter: int, predicted: bool) -> None:
        self._latents[: self._channels] = self._latents[self._channels :]
        self._counter, self._since_key = counter, self._since_key + 1 if predicted else 1


__all__ = ["VideoCodec"]
