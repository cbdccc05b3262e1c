"""A network of one's own as a head of a bundle: read, checked, run once. No torch here.

symbols uint8 [1 or N,C,h,w] of the bundle's latent -> TASK

segmentation     labels uint8 [N,H,W] at the bundle's frame size
classification   probs float32 [N,K]
array            whatever it gives
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.onnxruntime import open_session
from percodec.sdk.bundle import OPERATORS, Bundle, GraphInfo, Label, TensorInfo
from percodec.sdk.bundle.graphs import DTYPES, HEAD, HEAD_TASKS
from percodec.sdk.bundle.manifest import MAX_FILE_BYTES
from percodec.sdk.bundle.onnx_ops import checked_graph, signature
from percodec.sdk.errors import BundleError, ExportError, UsageError
from percodec.sdk.files import read_file

MAX_LABEL_BYTES = 1 << 20


def parse_head(text: str) -> tuple[str, Path, str]:
    """NAME=FILE.onnx:TASK -> name, file, task. Raises `UsageError`."""
    name, equals, rest = text.partition("=")
    file, colon, task = rest.rpartition(":")
    if not (equals and colon and file):
        raise UsageError(f"--head {text!r}: write it as NAME=FILE.onnx:TASK, for example depth=depth.onnx:array")
    if task not in HEAD_TASKS:
        raise UsageError(f"--head {text!r}: the task must be one of {', '.join(HEAD_TASKS)}, not {task!r}")
    if not HEAD.fullmatch(f"head_{name}"):
        raise UsageError(f"--head {text!r}: a name is 1 to 60 of a-z, 0-9 and _, without head_ before it, for example depth")
    return name, Path(file), task


def user_head(bundle: Bundle, name: str, file: Path, task: str, labels: tuple[Label, ...] = ()) -> tuple[GraphInfo, bytes]:
    """What `extend_bundle` takes. `labels`: the classes; without, they are numbered. Raises `ExportError`, `UsageError`."""
    where = f"--head {name}: {file}"
    try:
        data = read_file(file, MAX_FILE_BYTES)
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise ExportError(
                f"{where} has more than {MAX_FILE_BYTES >> 20} MiB, the most a bundle holds in one file; make the network smaller"
            ) from e
        raise UsageError(f"{where} cannot be read ({e.strerror}); check the path") from e
    if f"head_{name}" in bundle.graphs:
        raise UsageError(f"--head {name}: {bundle.name} has a head of this name already; choose another (it has {', '.join(bundle.heads)})")
    try:
        checked = checked_graph(data, str(file))
        inputs, _ = signature(data, str(file))
    except BundleError as e:
        raise ExportError(f"--head {name}: {str(e).rpartition('; ')[0]}; a head may use {', '.join(sorted(OPERATORS))}") from e
    shape = bundle.latent_shape
    found = [f"{n} {t} {['N' if side is None else side for side in s or ()]}" for n, (t, s) in inputs]
    (only, (kind, sides)) = inputs[0] if len(inputs) == 1 else ("", (None, None))
    if (only, kind) != ("symbols", "uint8") or sides is None or len(sides) != 4 or sides[1:] != shape or sides[0] not in (None, 1):
        raise ExportError(
            f"{where} must take one input, symbols uint8 [1 or N, {', '.join(map(str, shape))}] as {bundle.name}'s encoder gives it, "
            f"it takes {', '.join(found) or 'nothing'}; export it with this input and cast and scale inside"
        )
    answers = _run(where, checked, bundle.selftest().symbols)
    _check(where, bundle, task, answers)
    outputs = tuple(TensorInfo(key, array.dtype.name, array.shape[1:]) for key, array in answers[0].items())
    count = outputs[0].shape[0] if task == "classification" else _classes(where, data) if task == "segmentation" and not labels else 0
    if task == "classification" and labels and len(labels) != count:
        raise UsageError(f"--head-labels {name}: names {len(labels)} classes, {file} gives {count} probabilities; name as many")
    if task == "segmentation" and labels and max(int(a["labels"].max()) for a in answers) >= len(labels):
        raise UsageError(f"--head-labels {name}: names {len(labels)} classes, {file} gives labels past that; name all of them")
    if task == "array" and labels:
        raise UsageError(f"--head-labels {name}: a head of the task array has no classes; leave them out")
    numbered = tuple(Label(k, f"class {k}", color_of(k)) for k in range(count))
    symbols = TensorInfo("symbols", "uint8", shape)
    return GraphInfo(f"head_{name}", task, "as it was given", (symbols,), outputs, labels or numbered), data


def read_labels(file: Path) -> tuple[Label, ...]:
    """Classes from a JSON list of names, or from text with one name a line. Raises `UsageError`."""
    try:
        text = read_file(file, 2 * MAX_LABEL_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"--head-labels {file}: cannot be read ({getattr(e, 'strerror', None) or 'not UTF-8'}); check the file") from e
    how = f"--head-labels {file}: write a JSON list, or a text file, of different names of 1 to 60 characters"
    if len(text) > MAX_LABEL_BYTES:
        raise UsageError(f"{how}; it has more than {MAX_LABEL_BYTES >> 20} MiB")
    if text.lstrip().startswith("["):
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise UsageError(f"{how}; it is not valid JSON: {str(e)[:100]}") from e
    else:
        entries = [line.strip() for line in text.splitlines() if line.strip()]
    if not entries or any(not isinstance(n, str) or not 1 <= len(n) <= 60 for n in entries) or len(set(entries)) < len(entries):
        raise UsageError(how)
    return tuple(Label(k, name, color_of(k)) for k, name in enumerate(entries))


def color_of(label: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour map, from its second colour on: the bits of the number spread over the high bits of red, green and blue."""
    k, channels = label + 1, [0, 0, 0]
    for bit in range(24):
        channels[bit % 3] |= (k >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


def _run(where: str, data: bytes, symbols: NDArray[np.uint8]) -> list[dict[str, NDArray[Any]]]:
    """Its outputs by name for each latent."""
    names = [name for name, _ in signature(data, where)[1]]
    try:
        session = open_session(data)
        name = session.get_inputs()[0].name
        return [dict(zip(names, session.run(names, {name: z[None]}), strict=True)) for z in symbols]
    except Exception as e:  # ONNX Runtime raises its own kinds
        raise ExportError(f"{where} does not run in ONNX Runtime: {str(e).splitlines()[0][:200]}; try it there alone") from e


def _check(where: str, bundle: Bundle, task: str, answers: list[dict[str, NDArray[Any]]]) -> None:
    said = ", ".join(f"{key} {array.dtype} {list(array.shape)}" for key, array in answers[0].items())
    if any(array.ndim < 1 or array.shape[0] != 1 or 0 in array.shape for found in answers for array in found.values()):
        raise ExportError(
            f"{where} must give arrays that begin with the batch dimension, it gives {said} for one latent; keep that dimension"
        )
    if any(array.dtype.name not in DTYPES for array in answers[0].values()):
        raise ExportError(f"{where} may give {', '.join(DTYPES)}, it gives {said}; cast inside")
    if any(a.keys() != b.keys() or any(a[k].shape != b[k].shape for k in a) for a in answers for b in answers[:1]):
        raise ExportError(f"{where} gives arrays of another size for another latent; make them of one size, padded for example")
    if task == "segmentation":
        size = (1, bundle.frame_height, bundle.frame_width)
        if list(answers[0]) != ["labels"] or answers[0]["labels"].dtype != np.uint8 or answers[0]["labels"].shape != size:
            raise ExportError(
                f"{where} must give labels uint8 {list(size)} for the task segmentation, it gives {said}; resize, take ArgMax inside"
            )
    if task == "classification":
        probs = answers[0].get("probs")
        if list(answers[0]) != ["probs"] or probs is None or probs.dtype != np.float32 or probs.ndim != 2:
            raise ExportError(f"{where} must give probs float32 [1,K] for the task classification, it gives {said}; rename, cast inside")
        if any(not (0 <= found["probs"].min() <= found["probs"].max() <= 1) for found in answers):
            raise ExportError(f"{where} gives probs outside 0..1; end it with Softmax or Sigmoid")


def _classes(where: str, data: bytes) -> int:
    """How many classes a segmentation chooses among: the size of what its one ArgMax runs over."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data)).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    chosen = [node for node in graph.node if node.op_type == "ArgMax"]
    if len(chosen) == 1:
        axis = next((a.i for a in chosen[0].attribute if a.name == "axis"), 0)
        shape = shapes.get(chosen[0].input[0], [])
        if -len(shape) <= axis < len(shape) and 1 <= shape[axis] <= 255:
            return int(shape[axis])
    raise UsageError(f"{where} does not show how many classes there are; name them with --head-labels NAME=FILE")


__all__ = ["color_of", "parse_head", "read_labels", "user_head"]
