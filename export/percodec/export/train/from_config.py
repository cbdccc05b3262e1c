"""`train(config, ...)`: a configuration becomes data, model, loss and schedule, and runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.data.crops import Crops
from percodec.export.data.dataset import DataSet
from percodec.export.data.sets import load
from percodec.export.fleet.dataset import PacketDataset
from percodec.export.models import AUTOENCODERS, Autoencoder, LatentFPN, Quantizer, Steps, build_head, head_kind
from percodec.export.train import distributed
from percodec.export.train.checkpoint import digest_of, load_checkpoint
from percodec.export.train.config import Config, resolve
from percodec.export.train.finish import finish
from percodec.export.train.kept import keep, plain
from percodec.export.train.klt import contexts_start, klt_start
from percodec.export.train.loop import Run, Schedule, resumable
from percodec.export.train.norms import idle, settle
from percodec.export.train.offsets import lean
from percodec.export.train.packets import PacketCrops, PacketSet, is_packets, open_sets, packet_crops, some_latents, validate_packets
from percodec.export.train.provenance import origin_of, provenance, record_run
from percodec.export.train.tasks import Joint, Objective, class_weights, no_class
from percodec.export.train.validate import as_batch, score, validate_codec, validate_head
from percodec.export.train.views import ViewCrops, Views
from percodec.sdk.errors import UsageError
from percodec.sdk.folder_lock import FolderLock

Progress = Callable[[int, int, dict[str, float]], None]
Say = Callable[[str], None]


def build_model(config: Config) -> Joint:
    """The networks a configuration names, freshly initialised from its seed."""
    c, h, task = config["codec"], config["head"], config["task"]
    if c["name"] not in AUTOENCODERS:
        raise UsageError(f"codec.name must be one of {', '.join(AUTOENCODERS)}, got {c['name']!r}")
    torch.manual_seed(config["seed"])
    head = None
    if task != "codec":
        if task != "joint" and head_kind(h["name"]) != task:
            raise UsageError(f"head.name = {h['name']} is for {head_kind(h['name'])}, the task is {task}")
        head = build_head(h, c["channels"])
        if h["input"] == "original":
            if task == "joint":
                raise UsageError("a joint run trains the codec too: head.input must be latent or decoded, not original")
            return Joint(None, head, "original")
    codec = AUTOENCODERS[c["name"]](c["channels"], c["levels"], c["width"])
    if isinstance(codec.quantizer, Quantizer):
        codec.quantizer.sigma = c["sigma"]
    return Joint(codec, head, h["input"], frozen=task in ("classification", "segmentation"))


def trained_model(state: Mapping[str, Any]) -> Joint:
    """What a checkpoint's configuration says, with its weights."""
    model = build_model(state["config"])
    model.load_state_dict(state["model"])
    return model


def train(
    config: Config,
    out: Path,
    places: dict[str, str],
    codec_from: Path | None = None,
    trunk_from: Path | None = None,
    restart: bool = False,
    progress: Progress = lambda step, steps, values: None,
    head_from: Path | None = None,
    teacher_from: Path | None = None,
    views: Path | None = None,
    say: Say = lambda text: None,
    command: str | None = None,
    init: str | None = None,
) -> dict[str, Any]:
    """Train in folder `out`, resuming what is there.

    `codec_from` starts the codec, `head_from` the head, from another run's checkpoint or a bundle's folder; `trunk_from` a codec from
    another operating point; `init` "klt" starts a linear codec in closed form from the training sets (`klt_start`); `teacher_from` is
    distilled from (`load_teacher`); `views` keeps encoded pictures between runs. Returns the
    best validation record. Writes config.json, data.json (digests), codec.json (where the codec came from), command.txt (`command`),
    train.csv, val.csv, best.json, last.pt, best.pt; nothing where it refuses. Raises `UsageError`, `DataError`, `TrainingError`.
    """
    if config["head"]["shrink"] > 1:
        raise UsageError("head.shrink is made by percodec export --shrink, of a trained head: train with head.shrink=1")
    device = distributed.start()
    specs = config["data"]["train"]
    resolved, val_spec = [resolve(spec, places) for spec, _ in specs], resolve(config["data"]["val"], places)
    packets = open_sets(config, resolved, val_spec, codec_from) if any(map(is_packets, (*resolved, val_spec))) else None
    sets = [packets[0].sample()] if packets else [load(spec, groups=True) for spec in resolved]
    val = packets[1].sample() if packets else load(val_spec)
    model = build_model(config)
    for note in dict.fromkeys(note for data in (*sets, val) for note in data.notes):
        say(note)
    _check_data(config, sets, val)
    labelled = [s for s in sets if s.labels][:1]
    weights = None
    if labelled and model.head:
        weights = class_weights(labelled, config["head"]["classes"], config["loss"]["class_offset"], say)
    groups = [s.groups for s in sets if s.groups]
    if len(set(groups)) > 1:
        raise UsageError("two training sets have different groups of classes: train on one of them")
    if codec_from is not None and model.codec is not None:
        load_part(model, codec_from, "codec")
        if codec_from.is_dir() and isinstance(model.codec.quantizer, Steps) and not (model.frozen or config["codec"]["fixed_encoder"]):
            contexts_start(model.codec, _some_pictures(sets), config["seed"], say)
    elif model.frozen and model.codec is not None:
        raise UsageError(f"the task {config['task']} trains a head on a fixed codec: give --codec CHECKPOINT")
    sees = head_from is not None and load_part(model, head_from, "head", say)
    if config["head"]["kept"] and (config["task"] == "joint" or not sees):
        raise UsageError("head.kept needs --head, a head that reads what this one does, and a codec that stays as it is")
    before = plain(model.head) if config["head"]["kept"] and model.head else {}
    if (
        not sees
        and model.frozen
        and model.codec is not None
        and isinstance(model.codec.quantizer, Steps)
        and isinstance(model.head, LatentFPN)
    ):
        model.head.see(some_latents(packets[0], model.codec, config["seed"]) if packets else _latents(model.codec, sets[0]))
    if trunk_from is not None:
        load_trunk(model, trunk_from)
    if init == "klt":
        _init_klt(config, model, sets, codec_from or trunk_from or teacher_from, say)
    if config["codec"]["fixed_encoder"] and model.codec is not None:
        model.codec.g_a.requires_grad_(False)
        model.codec.quantizer.requires_grad_(False)
    teacher = None if teacher_from is None else load_teacher(teacher_from, model).to(device)
    start = codec_from or trunk_from or (teacher_from if config["task"] == "codec" else None)
    origin = None if start is None else origin_of(start)
    made_of_init = {} if init is None else {"--init": init}
    starts = {"--codec": codec_from, "--trunk": trunk_from, "--head": head_from, "--teacher": teacher_from}
    made_of = {name: digest_of(path) for name, path in starts.items() if path is not None}
    read: list[DataSet | PacketSet] = [*(packets or (*sets, val))]
    made_of |= made_of_init | {f"training set {spec}": data.digest for (spec, _), data in zip(specs, read[:-1], strict=True)}
    made_of[f"validation set {config['data']['val']}"] = read[-1].digest
    if not restart:
        resumable(out, config, made_of)
    distributed.wait()
    first = distributed.rank() == 0
    if first:
        out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out) if first else contextlib.nullcontext():
        if first:
            if restart:
                for name in ("last.pt", "best.pt", "train.csv", "val.csv"):
                    (out / name).unlink(missing_ok=True)
            record_run(config, out, origin, provenance(specs, config["data"]["val"], read), command)
        distributed.wait()
        pictures = teacher is not None and teacher.reads == "original"
        batches: Crops | ViewCrops | PacketCrops
        if packets:
            if pictures:
                raise UsageError(f"--teacher {teacher_from} reads pictures, and packets hold none; give one that reads latents")
            batches, val_views = packet_crops(packets[0], model, config, say), None
            val_packets = PacketDataset(packets[1].where, packets[1].bundle, labels=packets[1].labels, batch=8, shuffle=False)
        else:
            batches, val_views = _batches(config, model, sets, val, device, views, pictures, say)
        objective = Objective(model, config, weights, not isinstance(batches, Crops), teacher, groups[0] if groups else ())
        position = batches if isinstance(batches, PacketCrops) else None
        learning = [part for part in (None if model.frozen else model.codec, model.head) if part is not None]
        if not (out / "last.pt").exists() and (norms := [norm for part in learning for norm in idle(part)]):
            at = position.state_dict() if position is not None else {}
            settle(norms, objective.to(device), lambda step: batches.batch(step).to(device))
            if position is not None:
                position.load_state_dict(at)

        def check(m: Any) -> dict[str, Any]:
            if packets:
                return validate_packets(m, config, val_packets, device)
            record = {} if m.codec is None or m.frozen else validate_codec(m.codec, val, device)
            return record if m.head is None else {**record, **validate_head(m, config, val, val_views, device)}

        def anneal(fraction: float) -> None:
            c = config["codec"]
            if model.codec is not None and isinstance(model.codec.quantizer, Quantizer) and c["sigma"] != c["sigma_final"]:
                model.codec.quantizer.sigma = c["sigma"] * (c["sigma_final"] / c["sigma"]) ** fraction

        run = Run(
            folder=out,
            model=model,
            objective=objective,
            schedule=Schedule(**config["schedule"]),
            batch=batches.batch,
            validate=check,
            score=lambda record: score(config, record),
            config=config,
            made_of=made_of,
            progress=progress,
            device=device,
            before_step=anneal,
            position=position,
        )
        best = run.fit()
        if first:
            changes: dict[str, Callable[[Any], Any]] = {}
            if before:
                changes["kept"] = lambda m: keep(m.head, before, config["head"]["kept"])
            if config["head"]["offsets"] and config["task"] == "segmentation" and not packets:
                changes["class_offsets"] = lambda m: lean(m, labelled[0])
            if changes:
                best = finish(out, model, changes, check)
            (out / "best.json").write_text(json.dumps(best, indent=1))
        return best


def _init_klt(config: Config, model: Joint, sets: list[DataSet], also: Path | None, say: Say) -> None:
    if model.codec is None or model.frozen:
        raise UsageError(f"--init klt starts a codec; the task {config['task']} trains none")
    if also is not None:
        raise UsageError(f"--init klt starts the codec from pictures: it cannot start from {also} too")
    klt_start(model.codec, _some_pictures(sets), config["loss"]["bpp"], config["seed"], say)


def _latents(codec: Autoencoder, data: DataSet) -> list[torch.Tensor]:
    """Values [1,C,h,w] of about 32 pictures."""
    codec.eval()
    return [codec.encode(as_batch(data.images[k])).q for k in range(0, len(data), -(-len(data) // 32))]


def _some_pictures(sets: list[DataSet]) -> list[NDArray[np.uint8]]:
    """About 128, as many of each set."""
    return [data.images[k] for data in sets for k in range(0, len(data), max(1, len(data) * len(sets) // 128))]


def _check_data(config: Config, sets: list[DataSet], val: DataSet) -> None:
    if config["task"] == "codec":
        return
    kind = head_kind(config["head"]["name"])
    for data in (*sets, val):
        if data.labels or (kind == "classification" and data.targets):
            continue
        wanted = "label maps" if kind == "segmentation" else "classes or label maps"
        if data is val or data is sets[0]:
            raise UsageError(f"data set {data.name} has no {wanted}: {kind} needs them")
    classes = config["head"]["classes"]
    for data in (val, *sets):
        if data.classes and len(data.classes) != classes:
            raise UsageError(
                f"head.classes is {classes}, but {data.name} has {len(data.classes)} classes; give --set head.classes={len(data.classes)}"
            )
        if data.labels and not any((label < classes).any() for label in data.labels):
            raise no_class(data)


def _batches(
    config: Config, model: Joint, sets: list[DataSet], val: DataSet, device: torch.device, cache: Path | None, pictures: bool, say: Say
) -> tuple[Crops | ViewCrops, Views | None]:
    """Where batches come from, with `pictures` behind latents, and what the head reads of the validation set if the codec is fixed."""
    crops, weights = config["crops"], [float(w) for _, w in config["data"]["train"]]
    share = (distributed.rank(), distributed.world())
    scale = (float(crops["scale"][0]), float(crops["scale"][1]))
    if config["task"] in ("codec", "joint") or not crops["views"]:
        size, margin = crops["size"], crops["margin"] if config["task"] in ("classification", "segmentation") else 0
        more = {"weather": crops["weather"], "rare": crops["rare"], "mix": crops["mix"], "share": share}
        return Crops(sets, weights, size, crops["batch"], config["seed"], scale, crops["jitter"], margin, **more), None
    if model.codec is not None:
        model.codec.to(device).eval()

    def make(data: DataSet, reads: str, count: int) -> Views:
        # The views' seed is fixed: runs with other seeds share the encoded pictures and differ in their crops.
        return Views(data, model.codec, reads, count, 1, scale, crops["jitter"], crops["size"], cache, say)

    if distributed.rank():
        distributed.wait()  # the first process encodes, the others read what it kept
    train_views = [make(s, model.reads, crops["views"]) for s in sets]
    originals = [make(s, "original", crops["views"]) for s in sets] if pictures else None
    val_views = make(val, model.reads, 0)
    if not distributed.rank():
        distributed.wait()
    return ViewCrops(train_views, weights, crops["size"], crops["batch"], config["seed"], originals, share), val_views


def load_part(model: Joint, path: Path, part: str, say: Say = lambda text: None) -> bool:
    """Start the `codec` or the `head` from a checkpoint of any run with the same one. Raises `UsageError`.

    `refined` may start from `block`: the stage that it has more adds nothing at first. A head may start from one on another codec's
    latents: all but its first layer; then it is False.
    """
    state = load_checkpoint(path)
    weights = {k: v for k, v in state["model"].items() if k.startswith(f"{part}.")}
    names = (model.codec.name if model.codec else "", state["config"]["codec"]["name"])
    more = "codec.g_a.1." if part == "codec" and names == ("refined", "block") else None
    wanted = [k for k in model.state_dict() if k.startswith(f"{part}.") and not (more and k.startswith(more))]
    whole = True
    if part == "head" and isinstance(model.head, LatentFPN) and state["config"]["head"]["name"] == "fpn":
        first = [k for k in ("head.stem.0.weight", "head.scale") if k in weights]
        whole = all(weights[k].shape == model.state_dict()[k].shape for k in first)
        if not whole:
            say(f"--head {path} reads latents of another codec: its first layer starts anew")
            weights = {k: v for k, v in weights.items() if k not in first}
            wanted = [k for k in wanted if k not in first]
    missing = [k for k in wanted if k not in weights]
    try:
        if missing:
            raise RuntimeError(f"{len(missing)} tensors missing, first {missing[0]}")
        model.load_state_dict(weights, strict=False)
    except RuntimeError as e:
        raise UsageError(f"--{part} {path} holds another {part} than this configuration: {e}".replace("\n", " ")) from e
    return whole


def load_teacher(path: Path, student: Joint) -> Joint:
    """What the student is distilled from. Raises `UsageError` where the two do not fit.

    For a head: a run on original pictures or on what the student reads, whose stages have the student's shapes. For a codec: one of the
    same C, L and decoder, which the student takes over with the centers, fixed: its encoder alone will learn.
    """
    state = load_checkpoint(path)
    teacher = trained_model(state)
    if student.head is None:
        assert student.codec is not None
        _take_over(student.codec, teacher.codec, path)
        return teacher
    if teacher.head is None or (teacher.reads != "original" and not (student.frozen and teacher.reads == student.reads)):
        also = f" or, as the student has, {student.reads}" if student.frozen else ""
        raise UsageError(f"--teacher {path} must be a run with head.input=original{also}")
    if not hasattr(teacher.head, "with_features") or not hasattr(student.head, "with_features"):
        raise UsageError("distillation compares the stages of residual networks: teacher and student must be of the (c)resnet family")
    sizes = [h.backbone.channels_out for h in (teacher.head, student.head)]  # type: ignore[union-attr]
    if type(teacher.head) is not type(student.head) or sizes[0] != sizes[1]:
        raise UsageError(f"--teacher {path} must have the student's task and head.width (stages of {sizes[0]} and {sizes[1]} channels)")
    if teacher.codec is not None and not teacher.codec.equals(student.codec):
        raise UsageError(f"--teacher {path} reads what another codec gives than --codec")
    return teacher


def _take_over(codec: Autoencoder, given: Autoencoder | None, path: Path) -> None:
    if not isinstance(codec.quantizer, Quantizer):
        raise UsageError(f"--teacher is for codecs with shared centers; {codec.name} begins with --init klt")
    if (
        given is None
        or not isinstance(given.quantizer, Quantizer)
        or ((given.channels, given.quantizer.levels) != (codec.channels, codec.quantizer.levels))
    ):
        raise UsageError(f"--teacher {path} must hold a codec of the student's codec.channels and codec.levels")
    try:
        codec.g_s.load_state_dict(given.g_s.state_dict())
    except RuntimeError as e:
        raise UsageError(f"--teacher {path} has another decoder than {codec.name} of this width") from e
    codec.quantizer.follow(given.quantizer.centers)
    codec.g_s.requires_grad_(False)
    codec.quantizer.requires_grad_(False)


def load_trunk(model: Joint, path: Path) -> None:
    """Start from the codec of another operating point: every tensor of equal name and shape, the rest stays fresh. Raises `UsageError`."""
    own = model.state_dict()
    given = load_checkpoint(path)["model"]
    fitting = {k: v for k, v in given.items() if k.startswith("codec.") and k in own and v.shape == own[k].shape}
    if sum(v.numel() for v in fitting.values()) < 0.5 * sum(v.numel() for k, v in own.items() if k.startswith("codec.")):
        raise UsageError(f"--trunk {path} holds another kind of codec: less than half of it fits; use one of the same codec.name and width")
    model.load_state_dict(fitting, strict=False)


__all__ = ["build_model", "load_part", "load_teacher", "load_trunk", "train", "trained_model"]
