"""`export_bundle`: checkpoint -> ONNX graphs -> parity check -> entropy tables -> self-test vectors -> metrics -> bundle.

Tables are counted on the training set through the exported encoder; metrics come from the validation set. Pictures of another size than the
bundle's are cropped and resized to it for both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.bundles.extend import Additions
from percodec.export.bundles.steps_bundle import fit_levels, further_decoders, steps_of
from percodec.export.bundles.steps_tables import learn_steps
from percodec.export.data import DataSet, at_size, fitted, load
from percodec.export.engines.graph_function import graph_function
from percodec.export.evaluate.bundle_metrics import evaluate_bundle
from percodec.export.models import Quantizer, Shrinking, Steps, head_kind, shrunk
from percodec.export.models.to_onnx import OPSET, PRECISION, Head, graphs, picture_graph
from percodec.export.train.checkpoint import bundle_checkpoint, load_checkpoint
from percodec.export.train.config import resolve
from percodec.export.train.from_config import build_model
from percodec.export.train.packets import is_packets
from percodec.export.train.provenance import commit
from percodec.export.train.tasks import Joint
from percodec.sdk.bundle import Bundle, Label, SelfTest, write_bundle
from percodec.sdk.codec import EntropyModel, StepsModel, count_pairs
from percodec.sdk.codec.entropy_model import MAX_PAIR_LEVELS
from percodec.sdk.errors import DataError, SelfTestError, UsageError

MAX_SYMBOL_DISAGREEMENT = 1e-3
MIN_LABEL_AGREEMENT = 0.995
_SELFTEST_FRAMES = 2
_STEPS_LATENTS = 60

Say = Callable[[str], None]

SAME_DRIVE = """These are no unseen drive, but 6.7 seconds of one whose other frames are in `train`. On drives left out of training
networks lost a fifth to a half of their mIoU.

"""


def export_bundle(
    checkpoint: Path,
    out: Path,
    name: str,
    places: dict[str, str],
    height: int,
    width: int,
    fit: str,
    overwrite: bool = False,
    say: Say = print,
    more: tuple[Path, ...] = (),
    contexts: bool = False,
    shrink: int = 1,
    decoders: Mapping[str, Path] = MappingProxyType({}),
    add: Callable[[Bundle], Additions] = lambda bundle: Additions(),
) -> Bundle:
    """Write the bundle and return it as a vehicle would open it; `more` checkpoints on the same codec add their heads.

    `checkpoint` may be a bundle's folder: its networks for another frame size, with other tables or further heads.
    `contexts`: entropy tables by neighbours (profile 1), learned on all training sets, instead of by channel alone.
    `shrink`: heads read the latent so many times smaller (`percodec.export.models.shrinking`), as they were trained on smaller frames.
    `decoders`: runs on the same encoder whose decoders join as `decoder_NAME`.
    `add`: from the bundle so far to what else it shall hold.

    Raises `DataError`, `SelfTestError`, `BundleError`, `UsageError`.
    """
    state = load_checkpoint(checkpoint)
    config = state["config"]
    model = _model(checkpoint, state)
    assert model.codec is not None
    codec = model.codec
    runs = {_graph_name(config, {}): (checkpoint, state, model)} if model.head is not None else {}
    if "bundle" in state:
        given = Bundle.open(checkpoint, state["bundle"])
        for graph in state["provenance"].get("heads", {}):
            if graph not in runs:
                further = bundle_checkpoint(given, graph)
                runs[graph] = (checkpoint, further, _model(checkpoint, further))
    for path in more:
        further = load_checkpoint(path)
        other = _model(path, further)
        if other.head is None:
            raise UsageError(f"--add {path} is a codec alone; give a run of classification, segmentation or joint")
        if not codec.equals(other.codec):
            raise UsageError(f"--add {path} was trained on another codec than {checkpoint}: one bundle has one codec")
        runs[_graph_name(further["config"], runs)] = (path, further, other)
    if any(is_packets(spec) for spec in (*(spec for spec, _ in config["data"]["train"]), config["data"]["val"])):
        raise UsageError(
            f"{checkpoint} was trained from packets of a bundle, which has all but this head. Add it there: "
            f"percodec export BUNDLE --head NAME={checkpoint} --out {out}"
        )
    train = [load(resolve(spec, places), groups=True) for spec, _ in config["data"]["train"]]
    val = load(resolve(config["data"]["val"], places))
    say(f"checkpoint {checkpoint} at step {state['step']}; {width}x{height}, opset {OPSET}, {PRECISION}")
    if shrink > 1:
        if model.head is None:
            raise UsageError(f"--shrink is for heads, and {checkpoint} has none")
        runs = {graph: _shrunk(run, shrink, train[0], height, width) for graph, run in runs.items()}
        state = runs[_graph_name(config, {})][1]
        say(f"heads read the latent {shrink} times smaller, as of {width // shrink}x{height // shrink}")

    quantizer = codec.quantizer
    if isinstance(quantizer, Steps) and "bundle" not in state:
        fit_levels(codec, [image for data in train for image in data.images])
    heads = {}
    for graph, (_, s, m) in runs.items():
        kind = head_kind(s["config"]["head"]["name"])
        assert m.head is not None
        heads[graph] = Head(m.head, kind, m.reads, several=kind == "classification" and bool(val.labels))
    made = graphs(codec, heads, height, width, further_decoders(codec, decoders))
    for graph, (_, data) in made.items():
        say(f"  {graph:<40} {len(data) / 1e6:6.2f} MB")
    frames = [fitted(image, height, width) for image in val.images[:: max(1, len(val) // 8)]][:8]
    parity = check_parity(made, frames)
    say("parity, torch against ONNX Runtime: " + "  ".join(f"{k} {v:.6f}" for k, v in parity.items()))

    encoder = graph_function(made["encoder"][1], threads=2)
    levels = quantizer.levels if isinstance(quantizer, Quantizer) else 0
    tables: EntropyModel | StepsModel
    if isinstance(quantizer, Steps):
        say("learning tables ...")
        latents = latents_of(encoder, train, height, width, _STEPS_LATENTS)
        tables = learn_steps(latents, quantizer.offset.int().tolist(), quantizer.levels.int().tolist(), say=say)
    elif contexts:
        from percodec.export.bundles.context_tables import learn_contexts

        say("learning contexts ...")
        tables = learn_contexts(latents_of(encoder, train, height, width), levels, say=say)
    else:
        tables = EntropyModel.from_counts(count_symbols(encoder, train[0], height, width, levels))
    # The self-test runs on synthetic frames, so that a bundle carries nobody's pictures.
    test_frames = np.stack([load_synthetic_frame(7_000 + k, height, width) for k in range(_SELFTEST_FRAMES)])
    symbols = np.concatenate([encoder(f[None]) for f in test_frames])
    head = graph_function(made["head_segmentation"][1], threads=2) if "head_segmentation" in made else None
    labels = np.concatenate([head(s[None]) for s in symbols]) if head else np.zeros((len(symbols), height, width), np.uint8)
    contents: dict[str, Any] = {
        "name": name,
        "frame_height": height,
        "frame_width": width,
        "fit": fit,
        **({"centers": quantizer.centers.detach().numpy().astype(np.float32)} if isinstance(quantizer, Quantizer) else {}),
        **({"steps": steps_of(quantizer)} if isinstance(quantizer, Steps) else {}),
        "entropy_model": tables,
        "graphs": {k: data for k, (_, data) in made.items()},
        "precision": dict.fromkeys(made, PRECISION),
        "labels": [Label(k, n, c) for k, (n, c) in enumerate(val.classes)] if heads else [],
        "selftest": SelfTest(test_frames, symbols, labels, MAX_SYMBOL_DISAGREEMENT, MIN_LABEL_AGREEMENT),
    }
    origin = _provenance(checkpoint, state["config"], state)
    if any(m is not model for _, _, m in runs.values()):
        origin["heads"] = {graph: _provenance(p, s["config"], s) for graph, (p, s, _) in runs.items()}
    draft = write_bundle(out, **contents, metrics={}, provenance=origin, overwrite=overwrite)
    added = add(draft)
    say("measuring on the validation set ...")
    metrics: dict[str, Any] = {"parity": parity, **evaluate_bundle(draft, at_size(val, height, width))}
    card = model_card(name, config, metrics, origin, made) + added.card
    contents["graphs"] |= {info.name: data for info, data in added.heads}
    contents["precision"] |= {info.name: info.precision for info, _ in added.heads}
    contents |= {"infos": {info.name: info for info, _ in added.heads}, "stream_model": added.stream_model}
    origin |= added.provenance
    return write_bundle(out, **contents, metrics=metrics, provenance=origin, extra_files={"MODEL_CARD.md": card.encode()}, overwrite=True)


def export_rgb(checkpoint: Path, out: Path, height: int, width: int, overwrite: bool = False) -> int:
    """Write the network of a run on original pictures as one ONNX file; its size in bytes. Raises `DataError`, `UsageError`."""
    state = load_checkpoint(checkpoint)
    model = build_model(state["config"])
    if model.codec is not None or model.head is None:
        raise UsageError(f"{checkpoint} has a codec: it becomes a bundle, --out FOLDER; one .onnx file is for runs on original pictures")
    if head_kind(state["config"]["head"]["name"]) != "segmentation":
        raise UsageError(f"{checkpoint} is no segmentation run: only those are exported as one file")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another --out or add --overwrite")
    model.load_state_dict(state["model"])
    data = picture_graph(model.head.eval(), height, width)
    try:
        out.write_bytes(data)
    except OSError as e:
        raise UsageError(f"{out}: cannot be written ({e.strerror})") from e
    return len(data)


def _shrunk(run: tuple[Path, dict[str, Any], Joint], by: int, data: DataSet, height: int, width: int) -> tuple[Path, dict[str, Any], Joint]:
    """The run with its head behind a smaller latent, and what says so."""
    path, state, model = run
    if model.reads != "latent" or isinstance(model.head, Shrinking):
        raise UsageError(f"--shrink is for heads that read the latent as it is; {path} holds another")
    if height % (8 * by) or width % (8 * by):
        raise UsageError(f"--shrink {by}: sides of {width}x{height} must be multiples of {8 * by}")
    assert model.head is not None
    assert model.codec is not None
    model.head = shrunk(model.head, model.codec, data.images, by)
    config = {**state["config"], "head": {**state["config"]["head"], "shrink": by}}
    said = {"provenance": {**state["provenance"], "config": config}} if "provenance" in state else {}
    return path, {**state, "config": config, **said}, model


def _model(path: Path, state: dict[str, Any]) -> Joint:
    model = build_model(state["config"])
    if model.codec is None:
        raise UsageError(f"{path} reads original pictures and has no codec: it becomes one ONNX file, --out NAME.onnx")
    model.load_state_dict(state["model"])
    return model.eval()


def _graph_name(config: dict[str, Any], taken: dict[str, Any]) -> str:
    """head_segmentation for the first of its kind, head_segmentation_<network> for others."""
    name = config["head"]["name"]
    plain = f"head_{head_kind(name)}"
    full = plain if plain not in taken else f"{plain}_{name.removesuffix('-d')}"
    if full in taken:
        raise UsageError(f"two heads would be called {full}: leave one of the {name} runs out")
    return full


def load_synthetic_frame(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """One picture of the synthetic road."""
    from percodec.sdk.synthetic.road import RoadScene

    return RoadScene(seed, height, width).render(0)[0]


def check_parity(made: dict[str, tuple[Any, bytes]], frames: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Torch against ONNX Runtime on real frames; each graph fed with the same input. Raises `SelfTestError` past the limits."""
    encoder = graph_function(made["encoder"][1], threads=2)
    wrong: dict[str, list[float]] = {"symbols": [], "image": [], "labels": [], "probs": []}
    with torch.no_grad():
        for frame in frames:
            symbols = encoder(frame[None])
            wrong["symbols"].append(float((made["encoder"][0](torch.from_numpy(frame[None].copy())).numpy() != symbols).mean()))
            for graph, (module, data) in made.items():
                if graph == "encoder":
                    continue
                key = "image" if graph.startswith("decoder") else "labels" if "segmentation" in graph else "probs"
                reference = module(torch.from_numpy(symbols)).numpy().astype(np.float32)
                actual = graph_function(data, threads=2)(symbols).astype(np.float32)
                limit = {"image": 1, "labels": 0, "probs": 1e-3}[key]  # a picture's rounding may fall either way
                wrong[key].append(float((np.abs(actual - reference) > limit).mean()))
    worst = {f"{k}_disagreement": max(v) for k, v in wrong.items() if v}
    for key, value in worst.items():
        if value > MAX_SYMBOL_DISAGREEMENT:
            raise SelfTestError(f"ONNX Runtime and torch disagree: {key} is {value:.4%}, limit {MAX_SYMBOL_DISAGREEMENT:.2%}")
    return worst


def count_symbols(encoder: Any, data: DataSet, height: int, width: int, levels: int) -> NDArray[np.int64]:
    """How often each channel uses each symbol [C, L], or each pair of neighbours [C, L, L] where they can be coded, over a data set."""
    counts: NDArray[np.int64] | None = None
    for image in data.images:
        symbols = encoder(fitted(image, height, width)[None])[0]
        if levels <= MAX_PAIR_LEVELS:
            one = count_pairs(symbols, levels)
        else:
            one = np.stack([np.bincount(c.ravel(), minlength=levels) for c in symbols])
        counts = one if counts is None else counts + one
    if counts is None:
        raise DataError("the training set is empty: no tables can be measured")
    return counts


def latents_of(encoder: Any, data: list[DataSet], height: int, width: int, most: int = 400) -> NDArray[np.uint8]:
    """Latents uint8 [N,C,h,w] of at most `most` pictures, the same number from each set where it has them."""
    each = max(1, most // len(data))
    found = [encoder(fitted(s.images[k], height, width)[None])[0] for s in data for k in range(0, len(s), -(-len(s) // each))]
    if not found:
        raise DataError("the training set is empty: no contexts can be learned")
    return np.stack(found)


def _provenance(checkpoint: Path, config: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    if "provenance" in state:  # a bundle exported anew
        return {**{k: v for k, v in state["provenance"].items() if k != "heads"}, "commit": commit(), "bundle": state["bundle"]}
    folder = checkpoint.parent

    def read(file: str) -> str | None:
        path = folder / file
        return path.read_text().strip() if path.exists() else None

    data = json.loads(read("data.json") or "{}")
    return {
        "data": [{"name": d["spec"], "digest": d["sha256"]} for d in [*data.get("train", []), *([data["val"]] if "val" in data else [])]],
        "split": {"train": config["data"]["train"], "val": config["data"]["val"]},
        "commit": commit(),
        "training_commit": data.get("commit", "unknown"),
        "seed": config["seed"],
        "command": read("command.txt") or "unknown",
        "config": config,
        "step": state["step"],
        "codec": json.loads(read("codec.json") or "null"),
        "notes": read("notes.txt") or "",
        "torch": torch.__version__,
    }


def model_card(name: str, config: dict[str, Any], metrics: dict[str, Any], origin: dict[str, Any], made: dict[str, Any]) -> str:
    """MODEL_CARD.md: what it is, what it was trained on, what it reaches, what it must not be used for."""
    codec = config["codec"]
    iou = "".join(f"| {k} | {'-' if v is None else f'{100 * v:.1f}'} |\n" for k, v in metrics.get("iou", {}).items())
    classes = f"\n| class | IoU % |\n| --- | --- |\n{iou}" if iou else ""
    sizes = "".join(f"| {k} | {len(v[1]) / 1e6:.2f} |\n" for k, v in made.items())
    data = "".join(f"- {_readable(d['name'])} ({_short(d['digest'])})\n" for d in origin["data"])
    first = origin["codec"]
    reached = f", {first['val']['psnr']:.2f} dB at {first['val']['bpp']:.3f} bpp" if first and first.get("val") else ""
    start = (
        f"- the codec was first trained alone ({first['step']} steps{reached}); its configuration is under `provenance.codec`\n"
        if first
        else ""
    )
    kinds = dict.fromkeys(d["name"].partition(":")[0] for d in origin["data"])
    shown = " and ".join(_SHOWN[kind] for kind in kinds if kind in _SHOWN) or "the pictures named above"
    labels = (
        "Labels come with no confidence, rare classes are its weakest, and objects\nsmaller than a latent cell (8x8 pixels) often missed."
        if metrics.get("heads") or iou
        else "It has no head: labels come from one that is added."
    )
    licences = "".join(f"{name} is licensed for research use.\n" for kind, name in _RESEARCH.items() if kind in kinds)
    heads = "".join(
        f"| {graph}, {'mIoU' if 'miou' in found else 'mean average precision' if 'map' in found else 'top-1'} | "
        f"{100 * next(found[k] for k in ('miou', 'map', 'top1') if k in found):.1f} |\n"
        for graph, found in metrics.get("heads", {}).items()
    )
    others = "".join(
        f"| by {graph} | {found['psnr_db']:.2f} dB PSNR, {found['ms_ssim']:.4f} MS-SSIM |\n"
        for graph, found in metrics.get("decoders", {}).items()
    )
    notes = f"- {origin['notes']}\n" if origin["notes"] else ""
    return f"""# {name}

One encoder ({codec["name"]}, C = {codec["channels"]}, L = {codec["levels"]}) whose quantized latent is both the coded frame and
the input of its heads. Those on the latent rebuild no RGB image on the way to a label.

## Measured on {metrics["data"]} ({metrics["pictures"]} pictures; this split also chose the checkpoint)
{SAME_DRIVE if metrics["data"].startswith("camvid/val") else ""}| quantity | value |
| --- | --- |
| coded size, whole packets | {metrics["bpp_coded"]:.4f} bpp, {metrics["packet_bytes_mean"]:.0f} bytes/frame |
| ideal length under the bundle's tables | {metrics["bpp_entropy"]:.4f} bpp |
| reconstruction | {metrics["psnr_db"]:.2f} dB PSNR, {metrics["ms_ssim"]:.4f} MS-SSIM |
{others}{heads}{classes}
## Graphs ({PRECISION})
| graph | MB |
| --- | --- |
{sizes}
## Training
{data}
- seed {origin["seed"]}, step {origin["step"]}, torch {origin["torch"]}
- `{origin["command"]}`
{start}{notes}- the whole configuration, digests and commit are in manifest.json under `provenance`

## Limits
Trained on {shown}:
whatever else a camera sees, such as night, snow, other cameras and other countries, is outside what it was shown. It is a
demonstration: do not drive by it. {labels}
{licences}"""


_SHOWN = {"camvid": "the daytime streets of one town", "folder": "photographs", "idd_lite": "roads in India", "synthetic": "rendered roads"}
_RESEARCH = {"camvid": "CamVid", "idd_lite": "IDD Lite"}


def _readable(spec: str) -> str:
    """`camvid:{camvid}:train` -> `camvid:train`: the place of the data is of one machine only."""
    return re.sub(r"\{\w+\}:?", "", spec)


def _short(digest: str) -> str:
    return f"sha256 {digest[:16]}" if re.fullmatch(r"[0-9a-f]{64}", digest) else "rendered, exact from its seed"


__all__ = ["check_parity", "count_symbols", "export_bundle", "export_rgb", "latents_of", "load_synthetic_frame", "model_card"]
