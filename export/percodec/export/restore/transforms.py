"""What `mirror` does to pictures: compress them as a fleet's logs are, or restore what such compression left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.codecs import Picture
from percodec.export.restore.lossy import AtQuality, Lossy, OfBundle, open_lossy
from percodec.export.restore.mirror import PACKET, Settings, decode_picture, encode_picture, rates_of
from percodec.export.restore.restorer import Restorer
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import DataError, UsageError

Call = Callable[[str, bytes], tuple[str, bytes, float | None]]


@dataclass(frozen=True)
class Compress:
    """Pictures as they come back from a codec, or, with `packets`, the packets of a bundle's codec (NAME.pcpk).

    `spec` names no rate that a worker would have to aim at: see `fixed_spec`.
    """

    spec: str
    packets: bool = False

    def settings(self) -> Settings:
        kind, _, place = self.spec.partition(":")
        codec: dict[str, Any] = {"name": kind}
        if kind == "percodec":
            bundle = Bundle.open(Path(place))
            codec |= {"bundle": bundle.name, "digest": bundle.digest}
        elif kind == "hyperprior":
            codec["sha256"] = hashlib.sha256(Path(place).read_bytes()).hexdigest()
        else:
            codec["quality"] = float(place.removeprefix("q"))
        return {"made_by": "compress", "codec": codec, "packets": self.packets}

    def open(self) -> Call:
        codec = open_lossy(self.spec)
        if self.packets and not isinstance(codec, OfBundle):
            raise UsageError(f"--packets stores packets of a bundle's codec, percodec:BUNDLE; {self.spec} has none")

        def call(file: str, data: bytes) -> tuple[str, bytes, float | None]:
            picture, _ = decode_picture(file, data)
            coded, restored = codec.round_trip(picture)
            bpp = len(coded) * 8 / (picture.shape[0] * picture.shape[1])
            return (file + PACKET, coded, bpp) if self.packets else (file, encode_picture(restored), bpp)

        return call


def fixed_spec(spec: str, codec: Lossy) -> str:
    """The spec by which every worker gets this codec: a rate becomes the quality that was found for it."""
    return f"{codec.codec.name}:q{codec.quality:g}" if isinstance(codec, AtQuality) else spec


@dataclass(frozen=True)
class Restore:
    """Pictures, or packets of `bundle`, through a restorer. The rate is the compressed set's record, the lossy file's own, or `bpp`."""

    restorer: Path
    source: Path
    bundle: Path | None = None
    bpp: float | None = None

    @cached_property
    def facts(self) -> tuple[dict[str, Any], str]:
        restorer = Restorer(self.restorer)
        return restorer.facts, restorer.digest

    def settings(self) -> Settings:
        facts, digest = self.facts
        bundle = None if self.bundle is None else Bundle.open(self.bundle).digest
        return {"made_by": "restore", "restorer": {**facts, "sha256": digest}, "bundle": bundle, "assumed_bpp": self.bpp}

    def open(self) -> Call:
        restorer = Restorer(self.restorer)
        packets = None if self.bundle is None else Packets(Bundle.open(self.bundle))
        rates = rates_of(self.source)
        if restorer.latent and packets is None:
            raise UsageError(f"{self.restorer} reads latents: give --bundle, whose packets the source holds")
        if restorer.latent and packets is not None and packets.digest != restorer.facts.get("bundle"):
            raise UsageError(f"{self.restorer} was trained for another bundle than --bundle {self.bundle}")

        def call(file: str, data: bytes) -> tuple[str, bytes, float | None]:
            if file.endswith(PACKET):
                if packets is None:
                    raise DataError("is a packet: give --bundle, the bundle it was coded with")
                symbols = packets.symbols(data)
                bpp = len(data) * 8 / (64 * symbols.shape[1] * symbols.shape[2])
                restored = restorer.restore_latent(symbols) if restorer.latent else restorer.restore(packets.picture(symbols), bpp)
                return file.removesuffix(PACKET), encode_picture(restored), bpp
            if restorer.latent:
                raise DataError("is a picture: this restorer reads packets (`percodec restore compress --packets` writes them)")
            picture, own = decode_picture(file, data)
            rate = next((r for r in (self.bpp, rates.get(file), own) if r is not None), None)
            if rate is None:
                raise DataError("says nothing of the rate it was compressed at; give --bpp")
            return file, encode_picture(restorer.restore(picture, rate)), rate

        return call


class Packets:
    """Packets of a bundle at its own frame size."""

    def __init__(self, bundle: Bundle) -> None:
        self.digest = bundle.digest
        self._coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
        self._decoder = graph_function(bundle.graph("decoder"))

    def symbols(self, packet: bytes) -> NDArray[np.uint8]:
        """uint8 [C,h,w]. Raises `PacketError`."""
        return self._coder.decode(packet)[1]

    def picture(self, symbols: NDArray[np.uint8]) -> Picture:
        return np.asarray(self._decoder(symbols[None])[0])


__all__ = ["Compress", "Packets", "Restore", "fixed_spec"]
