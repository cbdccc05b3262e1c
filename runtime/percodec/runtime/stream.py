"""A bundle's latents as a stream of packets: most of them predicted from the one before. `Session.stream` gives one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketHeader, VideoCodec
from percodec.sdk.codec.header import BytesLike
from percodec.sdk.errors import BundleError
from percodec.sdk.types import Latent


class Stream:
    """Packets of one camera in order, most of them predicted from the one before. One thread at a time, and one direction."""

    def __init__(self, codec: VideoCodec) -> None:
        self._codec = codec

    def pack(self, latent: Latent, *, key: bool = False) -> bytes:
        """The next packet. `key`: one that stands alone. Raises `CodecError`."""
        return self._codec.encode(latent.symbols, latent.frame_id, latent.timestamp_ns, key=key)

    def unpack(self, packet: BytesLike) -> Latent:
        """The latent of the next packet. Raises `PacketError`; after a lost packet for each one up to the next key packet."""
        return latent_of(*self._codec.decode(packet))


def stream_codec(bundle: Bundle, stream_id: int = 0, key_every: int = 25, cells: tuple[int, ...] | None = None) -> VideoCodec:
    """Codes the bundle's latents as a stream. `cells`: other h, w than the bundle's. Raises `BundleError` where it has no tables for it."""
    if bundle.stream_model is None:
        raise BundleError(
            f"bundle {bundle.name} has no tables of predicted packets; add them: percodec export {bundle.path} --stream --out NEW"
        )
    h, w = cells or bundle.latent_shape[1:]
    return VideoCodec(bundle.entropy_model, bundle.stream_model, h, w, stream_id=stream_id, key_every=key_every)


def latent_of(header: PacketHeader, symbols: NDArray[np.uint8]) -> Latent:
    """What a packet says."""
    return Latent(symbols, header.frame_id, header.timestamp_ns)


__all__ = ["Stream", "latent_of", "stream_codec"]
