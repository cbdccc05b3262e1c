"""`RestoreShards`: the packets of shards, as the pictures a restorer makes of them, in Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from percodec.export.engines.graph_function import graph_function
from percodec.export.fleet.losses import Losses
from percodec.export.fleet.rows import Rows, latents_of
from percodec.export.fleet.shards import Shard
from percodec.export.fleet.store import Store
from percodec.export.fleet.units import Call, Settings
from percodec.export.restore.mirror import encode_picture
from percodec.export.restore.restorer import Restorer
from percodec.runtime.session import open_bundle
from percodec.sdk.errors import UsageError

IMAGE = "image"


@dataclass(frozen=True)
class RestoreShards:
    """By the restorer in file `restorer`, of packets of `bundle`. Column `image`: PNG. The rate is the packet's own."""

    restorer: Path
    bundle: Path
    ending: str = ".parquet"

    @cached_property
    def facts(self) -> tuple[str, str]:
        """Digests of restorer and bundle. Raises `UsageError` where one is not for the other."""
        restorer, bundle = Restorer(self.restorer), open_bundle(self.bundle)
        if restorer.latent and restorer.facts.get("bundle") != bundle.digest:
            raise UsageError(f"{self.restorer} was trained for another bundle than --bundle {self.bundle}")
        return restorer.digest, bundle.digest

    def settings(self) -> Settings:
        restorer, digest = self.facts
        return {"made_by": "restore", "restorer": restorer, "digest": digest}

    def open(self) -> Call:
        restorer, bundle = Restorer(self.restorer), open_bundle(self.bundle)
        decoder = None if restorer.latent else graph_function(bundle.graph("decoder"))
        pixels = 64 * bundle.latent_shape[1] * bundle.latent_shape[2]

        def call(store: Store, shard: Shard, path: Path) -> tuple[dict[str, int], Losses]:
            losses, size = Losses(), 0
            with Rows(path, {IMAGE: "binary"}) as rows:
                for row, latent, packet in latents_of(store, shard, bundle, losses):
                    if decoder is None:
                        picture = restorer.restore_latent(latent.symbols)
                    else:
                        picture = restorer.restore(decoder(latent.symbols[None])[0], len(packet) * 8 / pixels)
                    rows.add({**row, IMAGE: encode_picture(picture)})
                    size += len(packet)
            return {"packets": rows.count, "packet_bytes": size}, losses

        return call


__all__ = ["IMAGE", "RestoreShards"]
