"""Messages that hold packets: from latents, and back to latents, for each topic on its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.messages.cdr import CompressedImage, Header
from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.session import stream_codec
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec, VideoCodec, parse_header
from percodec.sdk.errors import MessageError
from percodec.sdk.fit import CELL, PAD, padded

_MOST_TIME = (1 << 64) - 1


def cells_of(bundle: Bundle, form: PacketFormat) -> tuple[int, int]:
    """h, w of the latents of a topic in this format."""
    return (padded(form.height) // CELL, padded(form.width) // CELL) if form.fit == PAD else bundle.latent_shape[1:]


class PacketWriter:
    """Packets of one topic, in order. A picture of another size or encoding begins a stream anew; the counter runs on."""

    def __init__(self, bundle: Bundle, stream_id: int, key_every: int | None) -> None:
        """`key_every`: predicted packets, with a key packet at least so often; None: packets that stand alone."""
        self._bundle, self._stream_id, self._key_every = bundle, stream_id, key_every
        self._form: PacketFormat | None = None
        self._stream: VideoCodec | None = None
        self.count = 0

    def message(self, symbols: NDArray[np.uint8], header: Header, form: PacketFormat) -> CompressedImage:
        """Raises `MessageError` for a stamp that a packet cannot hold."""
        if not 0 <= header.stamp_ns <= _MOST_TIME:
            raise MessageError(f"the stamp {header.sec}.{header.nanosec:09d} is before 1970; packets count from there")
        if form != self._form:
            self._form, cells = form, cells_of(self._bundle, form)
            self._alone = PacketCodec(self._bundle.entropy_model, *cells, stream_id=self._stream_id)
            if self._key_every is not None:
                self._stream = stream_codec(self._bundle, self._stream_id, self._key_every, cells)
        number = self.count & 0xFFFFFFFF
        if self._stream is not None:
            packet = self._stream.encode(symbols, number, header.stamp_ns)
        else:
            packet = self._alone.encode(symbols, number, header.stamp_ns, counter=number)
        self.count += 1
        return CompressedImage(header, str(form), np.frombuffer(packet, np.uint8))


class PacketReader:
    """Latents of one topic's packets, in order. A predicted packet needs those before it, from a key packet on."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._form: PacketFormat | None = None
        self._key: bytes | None = None  # the last one, for whose followers no stream was begun yet
        self._stream: VideoCodec | None = None

    def symbols(self, message: CompressedImage) -> tuple[PacketFormat, NDArray[np.uint8]]:
        """The format, and uint8 [C,h,w]. Raises `MessageError`, `PacketError`."""
        form, packet = PacketFormat.from_text(message.format), message.data.tobytes()
        digests = (self._bundle.digest, *self._bundle.manifest.get("supersedes", ()))
        if not any(digest.startswith(form.digest) for digest in digests):
            raise MessageError(
                f"the packets are of the bundle {form.bundle}@{form.digest}, this is {self._bundle.name}@{self._bundle.digest[:12]}; "
                "give it with --bundle"
            )
        if form != self._form:
            self._form, self._key, self._stream = form, None, None
            self._alone = PacketCodec(self._bundle.entropy_model, *cells_of(self._bundle, form))
        if parse_header(packet).key:
            self._key, self._stream = packet, None
            return form, self._alone.decode(packet)[1]
        if self._stream is None:
            if self._key is None:
                raise MessageError("a predicted packet without the key packet before it; from the next key packet on it goes on")
            self._stream = stream_codec(self._bundle, cells=cells_of(self._bundle, form))
            self._stream.decode(self._key)
        return form, self._stream.decode(packet)[1]


__all__ = ["PacketReader", "PacketWriter", "cells_of"]
