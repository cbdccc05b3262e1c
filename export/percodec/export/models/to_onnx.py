"""From trained networks to ONNX graphs: uint8 in, uint8 out, everything between inside the graph.

    encoder.onnx              image   uint8 [N,H,W,3] -> symbols uint8 [N,C,H/8,W/8]
    head_segmentation.onnx    symbols uint8           -> labels  uint8 [N,H,W]
    head_classification.onnx  symbols uint8           -> probs   float32 [N,K]
    decoder.onnx              symbols uint8           -> image   uint8 [N,H,W,3]

N is free, and so are H and W where the layers allow it (`engines.free_shapes`).

A head that reads decoded pictures has the decoder inside: it too starts from the symbols.

Batch norm is folded before export. Weights are rounded to FP16 and stored so, each behind one Cast that every backend folds at
load time; arithmetic is FP32. Rounding happens in torch first, so torch and ONNX compute with the same numbers.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.engines.free_shapes import freed
from percodec.export.models import Autoencoder, LatentFPN, Quantizer, Shrinking, Steps
from percodec.export.models.norms import fused, norms_behind

OPSET = 20
PRECISION = "fp32 (weights stored fp16)"
_STORED_FP16_FROM = 512  # elements; smaller constants stay FP32


class EncoderGraph(nn.Module):
    """image -> symbols: a symbol is the number of midpoints below z (the nearest center, for sorted centers), or z in steps, rounded."""

    per_step: Tensor
    offset: Tensor
    highest: Tensor

    def __init__(self, codec: Autoencoder) -> None:
        super().__init__()
        self.codec = codec
        quantizer = codec.quantizer
        self.midpoints = [float(m) for m in quantizer.midpoints.detach()] if isinstance(quantizer, Quantizer) else []
        if isinstance(quantizer, Steps):
            self.register_buffer("per_step", (1 / quantizer.step.detach()).view(1, -1, 1, 1))
            self.register_buffer("offset", quantizer.offset.float().view(1, -1, 1, 1))
            self.register_buffer("highest", quantizer.levels.float().view(1, -1, 1, 1) - 1)

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(torch.float32).permute(0, 3, 1, 2)
        z = self.codec.g_a(self.codec.normalize(x))
        if not self.midpoints:
            steps = (z * self.per_step).round() + self.offset
            return torch.minimum(torch.relu(steps), self.highest).to(torch.uint8)
        count = (z > self.midpoints[0]).to(torch.float32)
        for m in self.midpoints[1:]:
            count = count + (z > m).to(torch.float32)
        symbols: Tensor = count.to(torch.uint8)
        return symbols


class _FromSymbols(nn.Module):
    centers: Tensor | None

    def __init__(self, codec: Autoencoder) -> None:
        super().__init__()
        quantizer = codec.quantizer
        self.steps = quantizer if isinstance(quantizer, Steps) else None
        self.register_buffer("centers", quantizer.centers.detach().clone() if isinstance(quantizer, Quantizer) else None)

    def look_up(self, symbols: Tensor) -> Tensor:
        if self.steps is not None:
            return self.steps.values(symbols)
        assert self.centers is not None
        return self.centers.index_select(0, symbols.to(torch.int32).flatten()).view(symbols.shape)


class HeadGraph(_FromSymbols):
    """symbols -> logits, through the latent's center values or through the decoded picture."""

    def __init__(self, codec: Autoencoder, head: nn.Module, reads: str) -> None:
        super().__init__(codec)
        self.decoder = codec if reads == "decoded" else None
        self.head = head

    def logits(self, symbols: Tensor) -> Tensor:
        x = self.look_up(symbols)
        if self.decoder is not None:
            x = self.decoder.decode(x).clamp(0, 255).round()
        return self.head(x)  # type: ignore[no-any-return]


class SegmentationGraph(HeadGraph):
    """symbols -> labels."""

    def forward(self, symbols: Tensor) -> Tensor:
        labels = torch.argmax(self.logits(symbols), dim=1)
        if isinstance(self.head, Shrinking):  # in floats: backends resize no bytes
            labels = F.interpolate(labels[:, None].float(), scale_factor=self.head.by, mode="nearest")[:, 0]
        return labels.to(torch.uint8)


class ClassificationGraph(HeadGraph):
    """symbols -> probabilities: they sum to 1, or each class has its own where several may be present."""

    def __init__(self, codec: Autoencoder, head: nn.Module, reads: str, several: bool) -> None:
        super().__init__(codec, head, reads)
        self.several = several

    def forward(self, symbols: Tensor) -> Tensor:
        logits = self.logits(symbols)
        return torch.sigmoid(logits) if self.several else torch.softmax(logits, dim=1)


class PictureGraph(nn.Module):
    """image -> labels, for a segmentation network on original pictures: no codec, nothing to log; what a latent head is compared with."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        return torch.argmax(self.head(image.to(torch.float32).permute(0, 3, 1, 2)), dim=1).to(torch.uint8)


class DecoderGraph(_FromSymbols):
    """symbols -> image."""

    def __init__(self, codec: Autoencoder) -> None:
        super().__init__(codec)
        self.codec = codec

    def forward(self, symbols: Tensor) -> Tensor:
        image = self.codec.decode(self.look_up(symbols)).clamp(0, 255).round()
        return image.permute(0, 2, 3, 1).to(torch.uint8)


def fold(module: nn.Module) -> nn.Module:
    """A copy in eval mode: batch norm and a head's scale folded into convolutions, large weights rounded to FP16."""
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        if isinstance(part, LatentFPN):
            part.absorb()
    for parent, k, conv, norm in norms_behind(module):
        conv.weight, conv.bias = fused(conv, norm)
        parent[k + 1] = nn.Identity()
    with torch.no_grad():
        for p in module.parameters():
            if p.numel() >= _STORED_FP16_FROM:
                p.copy_(p.half().float())
    return module


def graph_bytes(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    names_in: Sequence[str],
    name_out: str,
    dynamic_shapes: dict[str, Any] | None = None,
    facts: dict[str, str] | None = None,
) -> bytes:
    """Export a graph module, with fixed shapes unless said; checked by `onnx.checker` and shape inference. `facts`: metadata to carry."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            examples,
            input_names=list(names_in),
            output_names=[name_out],
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    _store_fp16(model)
    onnx.helper.set_model_props(model, facts or {})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Drop what only the exporter needs: metadata with source paths, doc strings, intermediate shapes."""
    del model.metadata_props[:]
    model.doc_string, model.producer_version = "", ""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""


def _store_fp16(model: onnx.ModelProto) -> None:
    graph = model.graph
    casts = []
    for k, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _STORED_FP16_FROM:
            continue
        name = tensor.name
        graph.initializer[k].CopyFrom(numpy_helper.from_array(values.astype("float16"), name + "_fp16"))
        casts.append(helper.make_node("Cast", [name + "_fp16"], [name], name=name + "_cast", to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


class Head(NamedTuple):
    """A trained head to export: the network, what it `reads` (latent or decoded), and whether `several` classes may be present."""

    network: nn.Module
    kind: str
    reads: str = "latent"
    several: bool = False


def graphs(
    codec: Autoencoder, heads: dict[str, Head], height: int, width: int, decoders: Mapping[str, Autoencoder] = MappingProxyType({})
) -> dict[str, tuple[nn.Module, bytes]]:
    """{graph name: (torch module that computes the same, ONNX bytes)} traced at one frame size (multiples of 8).

    `decoders`: by graph name, codecs of the same encoder and steps whose decoder is a further one.
    """
    if height % 8 or width % 8:
        raise ValueError(f"frame sides must be multiples of 8, got {width}x{height}")
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    symbols = torch.zeros(1, codec.channels, height // 8, width // 8, dtype=torch.uint8)
    modules: dict[str, tuple[nn.Module, Tensor, str, str]] = {
        "encoder": (EncoderGraph(codec), image, "image", "symbols"),
        "decoder": (DecoderGraph(codec), symbols, "symbols", "image"),
    }
    modules |= {name: (DecoderGraph(other), symbols, "symbols", "image") for name, other in decoders.items()}
    for name, head in heads.items():
        module, answer = _head_module(codec, head)
        modules[name] = (module, symbols, "symbols", answer)
    out: dict[str, tuple[nn.Module, bytes]] = {}
    for name, (module, example, name_in, name_out) in modules.items():
        folded = fold(module)
        out[name] = folded, freed(graph_bytes(folded, (example,), (name_in,), name_out))
    return out


def head_graph(codec: Autoencoder, head: Head, height: int, width: int) -> bytes:
    """One head alone, as `graphs` has it."""
    module, answer = _head_module(codec, head)
    symbols = torch.zeros(1, codec.channels, height // 8, width // 8, dtype=torch.uint8)
    return freed(graph_bytes(fold(module), (symbols,), ("symbols",), answer))


def _head_module(codec: Autoencoder, head: Head) -> tuple[nn.Module, str]:
    """What it computes, and what its answer is called."""
    if head.kind == "segmentation":
        return SegmentationGraph(codec, head.network, head.reads), "labels"
    return ClassificationGraph(codec, head.network, head.reads, head.several), "probs"


def picture_graph(head: nn.Module, height: int, width: int) -> bytes:
    """ONNX of a segmentation network on original pictures: image uint8 [1,H,W,3] -> labels uint8 [1,H,W]."""
    return graph_bytes(fold(PictureGraph(head)), (torch.zeros(1, height, width, 3, dtype=torch.uint8),), ("image",), "labels")


__all__ = [
    "OPSET",
    "PRECISION",
    "ClassificationGraph",
    "DecoderGraph",
    "EncoderGraph",
    "Head",
    "HeadGraph",
    "PictureGraph",
    "SegmentationGraph",
    "fold",
    "graph_bytes",
    "graphs",
    "head_graph",
    "picture_graph",
]
