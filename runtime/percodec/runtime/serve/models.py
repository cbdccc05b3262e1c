"""`Model`: what a bundle gives to whoever sends packets of it. Plain data, read from the bundle alone: no network is loaded for it.

One input: `packet` BYTES [n], one packet an element. Outputs, of which those marked * come unasked:

| name | is |
|---|---|
| `frame_id`* UINT32 [n], `timestamp_ns`* UINT64 [n] | as the packets say |
| `classes`* UINT32 [n,K] | pixels of each class, of the first segmentation head |
| `labels` UINT8 [n,H,W] | its class ids; with `encoding` png BYTES [n], grey PNG files |
| `labels_rle` BYTES [n] | the same as COCO has masks, see rle.py |
| `probabilities`* FP32 [n,K] | of the first classification head |
| `unfamiliarity`* FP32 [n] | above 1: the scene is none that the bundle was made for; of bundles that can tell |
| `HEAD.classes`, `HEAD.NAME` | of the other heads, and the arrays of networks of one's own |
| `latent` UINT8 [n,C,h,w] | the symbols |
| `reconstruction` BYTES [n] | the picture rebuilt, PNG files; with `encoding` raw UINT8 [n,H,W,3] RGB |
| `overlay` BYTES [n] | the same with classes drawn over it, PNG files |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from percodec.runtime.session import chosen_heads
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec

INPUT = "packet"
RAW, PNG, RLE = "raw", "png", "rle"
_DATATYPES = {"uint8": "UINT8", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64"}
_DATATYPES |= {"float16": "FP16", "float32": "FP32", "bool": "BOOL"}


@dataclass(frozen=True)
class Output:
    """One output. `shape`: of one frame, raw. `head`: which says it, "" for none. `part`: the head's array, or what is made of it.

    `encodings`: how it can be given, the first is the default. `unasked`: given to whoever names no outputs.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    head: str
    part: str
    encodings: tuple[str, ...] = (RAW,)
    unasked: bool = False


@dataclass(frozen=True)
class Model:
    """A bundle under a name. `version`: the beginning of its digest. `max_packet_bytes`: a longer one is none of this bundle's."""

    name: str
    bundle: str
    digest: str
    latent_shape: tuple[int, ...]
    frame: tuple[int, int]
    max_packet_bytes: int
    outputs: dict[str, Output]
    classes: dict[str, tuple[str, ...]]  # names, of each head that has any
    streams: bool

    @property
    def version(self) -> str:
        return self.digest[:12]

    def properties(self) -> dict[str, str]:
        """What the protocol has no field for."""
        found = {"bundle": self.bundle, "digest": self.digest, "latent_shape": "x".join(map(str, self.latent_shape))}
        found |= {"frame": f"{self.frame[1]}x{self.frame[0]}", "max_packet_bytes": str(self.max_packet_bytes)}
        return found | {f"classes.{head}": ",".join(names) for head, names in self.classes.items()}


def model_of(name: str, bundle: Bundle, heads: Sequence[str] | None) -> Model:
    """`heads` as `Session.open` takes them. Raises `BundleError` for a head that is not there."""
    chosen = chosen_heads(bundle, heads)
    height, width = bundle.frame_height, bundle.frame_width
    found = [
        Output("frame_id", "UINT32", (), "", "frame_id", unasked=True),
        Output("timestamp_ns", "UINT64", (), "", "timestamp_ns", unasked=True),
        Output("latent", "UINT8", tuple(bundle.latent_shape), "", "symbols"),
    ]
    classes, first = {}, {"segmentation": "", "classification": ""}
    for head in chosen:
        info = bundle.head(head)
        if info.labels:
            classes[head] = tuple(label.name for label in info.labels)
        plain = first.get(info.task) == ""
        if plain:
            first[info.task] = head
        prefix = "" if plain else f"{head}."
        for tensor in info.outputs:
            shape, kind = tuple(tensor.shape), _DATATYPES[tensor.dtype]
            if info.task == "segmentation":
                found.append(Output(f"{prefix}classes", "UINT32", (len(info.labels),), head, "classes", unasked=plain))
                found.append(Output(f"{prefix}labels", kind, shape, head, tensor.name, (RAW, PNG)))
                found.append(Output(f"{prefix}labels_rle", "BYTES", (), head, "rle", (RLE,)))
            elif info.task == "classification":
                found.append(Output(f"{prefix}probabilities", kind, shape, head, tensor.name, unasked=plain))
            else:
                found.append(Output(f"{head}.{tensor.name}", kind, shape, head, tensor.name))
    usual = bundle.familiarity
    if usual is not None and usual.head in (None, *chosen):
        found.append(Output("unfamiliarity", "FP32", (), usual.head or "", "unfamiliarity", unasked=True))
    if "decoder" in bundle.graphs:
        found.append(Output("reconstruction", "UINT8", (height, width, 3), "", "picture", (PNG, RAW)))
        if first["segmentation"]:
            found.append(Output("overlay", "UINT8", (0, 0, 3), first["segmentation"], "overlay", (PNG,)))
    codecs = [PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])]
    if bundle.stream_model is not None:
        codecs.append(PacketCodec(bundle.stream_model, *bundle.latent_shape[1:]))
    return Model(
        name, bundle.name, bundle.digest, tuple(bundle.latent_shape), (height, width), max(codec.max_bytes for codec in codecs),
        {output.name: output for output in found}, classes, bundle.stream_model is not None,
    )  # fmt: skip


def name_of(path: Path, bundle: Bundle) -> str:
    """What a bundle is called where nobody gives it a name: its own."""
    return bundle.name or path.name


__all__ = ["INPUT", "PNG", "RAW", "RLE", "Model", "Output", "model_of", "name_of"]
