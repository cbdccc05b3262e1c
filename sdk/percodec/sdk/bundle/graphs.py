"""The manifest's `graphs`: what each takes and gives (BUNDLE.md, "Graphs"). Format 1.0 says it by the graph's name alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from percodec.sdk.bundle.node import Node
from percodec.sdk.bundle.onnx_ops import Signature
from percodec.sdk.bundle.parts import GraphInfo, Label, TensorInfo
from percodec.sdk.errors import BundleError

HEAD_TASKS = ("segmentation", "classification", "array")
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "bool")
MAX_OUTPUTS = 16
MAX_ELEMENTS = 1 << 26
MAX_CLASSES = 1 << 16
HEAD = re.compile(r"head_(?!head_)[a-z0-9_]{1,60}")
DECODER = re.compile(r"decoder_[a-z0-9_]{1,60}")  # further ones, from format 1.2 on
# Names of the sides that a graph may leave free, of a bundle's own tensors; any other tensor has a free batch at most.
FREE_SIDES: dict[str, tuple[str | None, ...]] = {
    "image": ("batch", "height", "width", None),
    "symbols": ("batch", None, "rows", "columns"),
    "labels": ("batch", "height", "width"),
}
_TENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_1_0 = re.compile(r"encoder|decoder|head_(segmentation|classification)(_[a-z0-9]{1,20}){0,3}")


class Shapes:
    """What a bundle's frame and latent fix: the tensors of every task but those of `array`."""

    def __init__(self, height: int, width: int, latent: tuple[int, int, int]) -> None:
        self.image = TensorInfo("image", "uint8", (height, width, 3))
        self.symbols = TensorInfo("symbols", "uint8", latent)
        self.labels = TensorInfo("labels", "uint8", (height, width))

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Shapes:
        """Of a manifest whose frame and latent were checked."""
        frame, latent = manifest["frame"], manifest["latent"]
        return cls(frame["height"], frame["width"], (latent["channels"], latent["height"], latent["width"]))

    def inputs(self, task: str) -> tuple[TensorInfo, ...]:
        return (self.image,) if task == "encoder" else (self.symbols,)

    def outputs(self, task: str, classes: int) -> tuple[TensorInfo, ...]:
        known = {"encoder": self.symbols, "decoder": self.image, "segmentation": self.labels}
        return (known.get(task) or TensorInfo("probs", "float32", (classes,)),)


def check_graphs(graphs: Node, files: Mapping[str, Any], shapes: Shapes, minor: int) -> None:
    """Raises `BundleError` naming the field."""
    for name, graph in graphs.items():
        further = minor >= 2 and DECODER.fullmatch(name)
        if not ((name in ("encoder", "decoder") or HEAD.fullmatch(name) or further) if minor else _1_0.fullmatch(name)):
            names = "head_NAME" + ", decoder_NAME" * (minor >= 2) if minor else "head_segmentation, head_classification and variants"
            known = f"encoder, decoder, {names}"
            raise BundleError(f"manifest.json: graphs has the unknown graph {name[:80]!r}; known: {known}")
        graph.object(("file", "precision", *(("task", "inputs", "outputs") if minor else ())), ("labels",) if minor else ())
        graph["file"].listed(files)
        graph["precision"].text(most=100)
        if minor:
            _check_described(name, graph, shapes)


def _check_described(name: str, graph: Node, shapes: Shapes) -> None:
    by_name = {"encoder": ("encoder",), "decoder": ("decoder",)}
    plain = {f"head_{task}": (task,) for task in HEAD_TASKS[:2]}
    task = graph["task"].one_of(("decoder",) if DECODER.fullmatch(name) else {**by_name, **plain}.get(name, HEAD_TASKS))
    inputs, outputs = (_check_tensors(graph[key]) for key in ("inputs", "outputs"))
    fixed = [(graph["inputs"], inputs, shapes.inputs(task))]
    if task != "array":
        classes = min(max(outputs[0].shape, default=1), MAX_CLASSES)
        fixed.append((graph["outputs"], outputs, shapes.outputs(task, classes)))
    elif sum(math.prod(t.shape) for t in outputs) > MAX_ELEMENTS:
        raise graph["outputs"].fail(f"at most {MAX_ELEMENTS} elements in all")
    for node, found, wanted in fixed:
        if found != wanted:
            raise node.fail(f"{_text(wanted)} for the task {task}")
    if "labels" in graph.value:
        if task not in ("segmentation", "classification"):
            raise graph["labels"].fail(f"absent: a graph of the task {task} has no classes")
        count = check_labels(graph["labels"], 255 if task == "segmentation" else MAX_CLASSES)
        if task == "classification" and count != outputs[0].shape[0]:
            raise graph["labels"].fail(f"one class for each of the {outputs[0].shape[0]} probabilities")


def _check_tensors(tensors: Node) -> tuple[TensorInfo, ...]:
    entries = tensors.items()
    if not 1 <= len(entries) <= MAX_OUTPUTS:
        raise tensors.fail(f"1..{MAX_OUTPUTS} tensors")
    found = []
    for name, tensor in entries:
        if not _TENSOR.fullmatch(name):
            raise BundleError(f"manifest.json: {tensors.where} names {name[:60]!r}; give the tensor a name like {_TENSOR.pattern}")
        tensor.object(("dtype", "shape"))
        shape = tuple(side.integer(1, MAX_ELEMENTS) for side in tensor["shape"].elements(0, 8))
        found.append(TensorInfo(name, tensor["dtype"].one_of(DTYPES), shape))
    return tuple(found)


def check_labels(labels: Node, most: int) -> int:
    """How many classes there are. Raises `BundleError` naming the field."""
    names = set()
    for k, label in enumerate(labels.elements(0, most)):
        label.object(("id", "name", "color"))
        if label["id"].integer(0, most - 1) != k:
            raise label["id"].fail(f"{k}: ids count from 0 in order")
        names.add(label["name"].text(most=60))
        for component in label["color"].elements(3, 3):
            component.integer(0, 255)
    if len(names) != len(labels.value):
        raise labels.fail("classes with different names")
    return len(names)


def labels_from_json(entries: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    return tuple(Label(e["id"], e["name"], (e["color"][0], e["color"][1], e["color"][2])) for e in entries)


def json_from_labels(labels: Sequence[Label]) -> list[dict[str, Any]]:
    return [{"id": label.id, "name": label.name, "color": list(label.color)} for label in labels]


def json_from_graph(info: GraphInfo, file: str, labels: Sequence[Label]) -> dict[str, Any]:
    """A graph's entry in the manifest. `labels`: the bundle's, which are not said again."""
    entry: dict[str, Any] = {"file": file, "precision": info.precision, "task": info.task}
    for key, tensors in (("inputs", info.inputs), ("outputs", info.outputs)):
        entry[key] = {t.name: {"dtype": t.dtype, "shape": list(t.shape)} for t in tensors}
    if info.labels and not (info.task == "segmentation" and info.labels == tuple(labels)):
        entry["labels"] = json_from_labels(info.labels)
    return entry


def graph_from_json(name: str, entry: Mapping[str, Any], labels: tuple[Label, ...]) -> GraphInfo:
    """Of a checked entry of format 1.1. `labels`: the bundle's, which a segmentation without classes of its own uses."""
    inputs, outputs = (tuple(TensorInfo(k, t["dtype"], tuple(t["shape"])) for k, t in entry[key].items()) for key in ("inputs", "outputs"))
    own = labels_from_json(entry.get("labels", ()))
    return GraphInfo(name, entry["task"], entry["precision"], inputs, outputs, own or (labels if entry["task"] == "segmentation" else ()))


def graph_from_name(name: str, precision: str, stated: Signature, shapes: Shapes, labels: tuple[Label, ...]) -> GraphInfo:
    """What format 1.0 says of a graph: its task by its name, its shapes by frame and latent, the classes as the ONNX bytes state them."""
    task = "decoder" if DECODER.fullmatch(name) else name if name in ("encoder", "decoder") else name.split("_")[1]
    known = dict(stated[1]).get("probs")
    shape = known[1] if known else None
    classes = (shape[-1] if shape else None) or len(labels)
    if task == "classification" and not 1 <= classes <= MAX_CLASSES:
        raise BundleError(f"{name} does not say how many probabilities it gives; export the bundle again")
    own = labels if task == "segmentation" or (task == "classification" and classes == len(labels)) else ()
    return GraphInfo(name, task, precision, shapes.inputs(task), shapes.outputs(task, classes), own)


def check_signature(info: GraphInfo, stated: Signature, file: str) -> None:
    """Raises `BundleError` where the ONNX bytes say otherwise than the manifest; what they leave open is the engine's to check."""
    for what, declared, sides in zip(("input", "output"), (info.inputs, info.outputs), stated, strict=True):
        there = dict(sides)
        for tensor in declared:
            if tensor.name not in there:
                raise BundleError(
                    f"{file} has no {what} {tensor.name!r} (it has: {', '.join(there) or 'none'}), which the manifest names under "
                    f"graphs.{info.name}; export the bundle again"
                )
            dtype, shape = there[tensor.name]
            fits = dtype in (None, tensor.dtype) and (shape is None or _fits(shape, tensor.shape))
            if not fits:
                found = f"{dtype} {'?' if shape is None else ['?' if s is None else s for s in shape]}"
                raise BundleError(
                    f"{file}: its {what} {tensor.name!r} is {found} with the batch dimension, graphs.{info.name} says "
                    f"{_text((tensor,))} without; export the bundle again"
                )


def _fits(shape: Sequence[int | None], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) + 1 and all(s in (None, w) for s, w in zip(shape[1:], wanted, strict=True))


def _text(tensors: Sequence[TensorInfo]) -> str:
    return ", ".join(f"{t.name} {np.dtype(t.dtype).name} {list(t.shape)}" for t in tensors)


__all__ = [
    "DECODER",
    "DTYPES",
    "FREE_SIDES",
    "HEAD",
    "HEAD_TASKS",
    "MAX_CLASSES",
    "MAX_ELEMENTS",
    "MAX_OUTPUTS",
    "Shapes",
    "check_graphs",
    "check_labels",
    "check_signature",
    "graph_from_json",
    "graph_from_name",
    "json_from_graph",
    "json_from_labels",
    "labels_from_json",
]
