"""`Predict`: what a head says of every packet, in Parquet; of a segmentation or a classification head they are labels to train on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.fleet.labels import LABELS, TARGET, png_of
from percodec.export.fleet.losses import Losses
from percodec.export.fleet.rows import Rows, latents_of
from percodec.export.fleet.shards import Shard
from percodec.export.fleet.store import Store
from percodec.export.fleet.units import Call, Settings
from percodec.runtime.session import Session, open_bundle


@dataclass(frozen=True)
class Predict:
    """By `head` of `bundle`, None: its default one.

    | head           | columns                                              |
    |----------------|------------------------------------------------------|
    | segmentation   | `labels`, PNG of class ids                           |
    | classification | `target`, the likeliest class, and `probs`, float32  |
    | array          | its outputs, each as the bytes of a .npy file        |
    """

    bundle: Path
    head: str | None = None
    backend: str = "ort"
    threads: int = 1
    ending: str = ".parquet"

    def settings(self) -> Settings:
        bundle = open_bundle(self.bundle)
        made_by = {"bundle": bundle.name, "digest": bundle.digest, "head": bundle.head(self.head).name, "backend": self.backend}
        return {"made_by": "predict", **made_by}

    def open(self) -> Call:
        opened = open_bundle(self.bundle)
        name = opened.head(self.head).name
        info = opened.head(name)
        session = Session.open(opened, backend=self.backend, heads=[name], threads=self.threads)
        columns = {LABELS: "binary"}
        if info.task == "classification":
            columns = {TARGET: "int32", "probs": "list:float32"}
        elif info.task == "array":
            columns = {spec.name: "binary" for spec in session.made.heads[info.name.removeprefix("head_")].outputs}

        def call(store: Store, shard: Shard, path: Path) -> tuple[dict[str, int], Losses]:
            losses, size = Losses(), 0
            with Rows(path, columns) as rows:
                for row, latent, packet in latents_of(store, shard, opened, losses):
                    found = session.predict(latent)
                    if info.task == "segmentation":
                        row[LABELS] = png_of(found.labels)
                    elif info.task == "classification":
                        row |= {TARGET: int(found.probs.argmax()), "probs": found.probs.tolist()}
                    else:
                        row |= {output: _npy(array) for output, array in found.outputs.items()}
                    rows.add(row)
                    size += len(packet)
            return {"packets": rows.count, "packet_bytes": size}, losses

        return call


def _npy(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


__all__ = ["Predict"]
