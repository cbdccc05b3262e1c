"""`Bundle.open`: a folder becomes a checked, immutable bundle, or a `BundleError` that says which file and why."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.bundle.arrays import array_from_bytes
from percodec.sdk.bundle.files import UnfitFileError, read_file
from percodec.sdk.bundle.graphs import Shapes, check_signature, graph_from_json, graph_from_name, labels_from_json
from percodec.sdk.bundle.manifest import MAX_FILES, MAX_MANIFEST_BYTES, MAX_SELFTEST, parse_manifest
from percodec.sdk.bundle.onnx_ops import check_graph
from percodec.sdk.bundle.parts import GraphInfo, Label, SelfTest, Step
from percodec.sdk.codec import EntropyModel, StepsModel, read_model
from percodec.sdk.codec.entropy_model import PREDICTED
from percodec.sdk.errors import BundleError, EntropyModelError
from percodec.sdk.familiarity import Familiarity
from percodec.sdk.text import shown

_RESERVED = ("signature", "engines")
_LEFT_BY_DESKTOPS = ("thumbs.db", "desktop.ini")


class Bundle:
    """Everything a vehicle needs for one codec and its heads, in memory. Obtain with `Bundle.open`.

    `graphs`: what each graph takes and gives, in the manifest's order. `heads`: the heads' names without "head_", the default one first.
    `centers`: what symbols stand for in every channel, or none where each channel has a step of its own: `steps`, else none.
    `decoders`: what rebuilds pictures, the default one "" first, then the others' names without "decoder_".
    `familiarity`: what is usual for it, None where nobody said; its `head` is the one whose labels are a part of that.
    `entropy_model`: tables of packets that stand alone; `stream_model`: of predicted ones (profile 2 or 5), None where the bundle has none.
    `notes`: what was left aside when it was opened. `engines`: by "FOLDER/GRAPH" the SHA-256 of records of engines
    that may be used; None where any may. `vouched`: somebody who is trusted here stands for it, as whoever opened it found.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], digest: str, files: dict[str, bytes]) -> None:
        self.path = path
        self.notes: tuple[str, ...] = ()
        self.engines: Mapping[str, tuple[str, ...]] | None = None
        self.vouched = False
        self.manifest = manifest
        self.digest = digest
        self._files = files
        self.name: str = manifest["name"]
        self.frame_height: int = manifest["frame"]["height"]
        self.frame_width: int = manifest["frame"]["width"]
        self.fit: str = manifest["preprocess"]["fit"]
        latent = manifest["latent"]
        self.latent_shape: tuple[int, int, int] = (latent["channels"], latent["height"], latent["width"])
        self.levels: int = latent["levels"]
        self.steps: tuple[Step, ...] = tuple(Step(**entry) for entry in latent.get("steps", ()))
        self.offsets: tuple[int, ...] = tuple(step.offset for step in self.steps)
        self.centers: NDArray[np.float32] = np.array(latent.get("centers", ()), np.float32)
        self.labels: tuple[Label, ...] = labels_from_json(manifest["labels"])
        self.palette: NDArray[np.uint8] = np.zeros((256, 3), np.uint8)
        for label in self.labels:
            self.palette[label.id] = label.color
        self.palette.setflags(write=False)
        self.entropy_model = self._read_tables(manifest["entropy_model"])
        stream = self._read_tables(manifest["stream"]) if "stream" in manifest else None
        self.stream_model: EntropyModel | StepsModel | None = stream
        wanted = PREDICTED[isinstance(self.entropy_model, StepsModel)]
        if stream is not None and stream.profile != wanted:
            raise BundleError(
                f"{manifest['stream']['file']} has tables of profile {stream.profile}, predicted packets need those of profile "
                f"{wanted}; export the bundle again with --stream"
            )
        self._graphs = {name: self._read_graph(name) for name in manifest["graphs"]}
        names = [name.removeprefix("head_") for name in self._graphs if name.startswith("head_")]
        self.heads: tuple[str, ...] = tuple(sorted(names, key=lambda name: name != "segmentation"))
        decoders = [name.removeprefix("decoder").removeprefix("_") for name, info in self._graphs.items() if info.task == "decoder"]
        self.decoders: tuple[str, ...] = tuple(sorted(decoders, key=bool))
        self.familiarity: Familiarity | None = self._read_familiarity() if "familiarity" in manifest else None
        self._selftest = self._read_selftest()

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], expect_digest: str | None = None, engines: Mapping[str, Sequence[str]] | None = None
    ) -> Bundle:
        """Read and check a bundle folder; each file is read once and only those bytes are used afterwards.

        `expect_digest` pins the SHA-256 (hex, or its beginning of at least 8 digits) of manifest.json, which itself pins every
        other file. `engines`: see the class. Raises `BundleError`.
        """
        folder = Path(path)
        if not os.path.isdir(folder):  # which never raises
            state = "is a file, not a folder" if os.path.lexists(folder) else "does not exist"
            raise BundleError(f"bundle {folder} {state}; give a folder with a manifest.json")
        try:
            raw = _read(folder, "manifest.json", MAX_MANIFEST_BYTES, None)
            digest = hashlib.sha256(raw).hexdigest()
            if expect_digest is not None and (len(expect_digest) < 8 or not digest.startswith(expect_digest.lower())):
                raise BundleError(f"digest is {digest[:16]}..., expected {expect_digest[:16]}; this is another bundle")
            manifest = parse_manifest(raw)
            hidden = _hidden_besides(folder, manifest["files"])
            files = {name: _read(folder, name, entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
            bundle = cls(folder, manifest, digest, files)
        except BundleError as e:
            raise BundleError(f"bundle {folder}: {e}") from e
        bundle.engines = None if engines is None else MappingProxyType({name: tuple(records) for name, records in engines.items()})
        if hidden:
            bundle.notes = (f"{len(hidden)} hidden files such as {shown(hidden[0])} are no part of the bundle",)
        return bundle

    @property
    def graphs(self) -> Mapping[str, GraphInfo]:
        """Read-only."""
        return MappingProxyType(self._graphs)

    def graph(self, name: str) -> bytes:
        """ONNX bytes of "encoder", "head_segmentation", ... whose hash was checked. Raises `BundleError` where it is absent."""
        entry = self.manifest["graphs"].get(name)
        if entry is None:
            have = ", ".join(self.manifest["graphs"]) or "none"
            raise BundleError(f"bundle {self.path} has no graph {name!r} (it has: {have}); use a bundle exported with it")
        return self._files[entry["file"]]

    def head(self, name: str | None = None) -> GraphInfo:
        """A head by its name, with or without "head_"; None: the default, the first of `heads`. Raises `BundleError`."""
        if not self.heads:
            raise BundleError(f"bundle {self.path} has no head; use a bundle exported with one, or add one: percodec export --head")
        found = self._graphs.get(f"head_{self.heads[0] if name is None else name.removeprefix('head_')}")
        if found is None:
            raise BundleError(f"bundle {self.path} has no head {name!r} (it has: {', '.join(self.heads)}); give one of those")
        return found

    def answers_to(self, digest: str) -> bool:
        """Whether what was made with the bundle of this digest (64 hex digits) can be read with this one: its own, or one it supersedes."""
        return digest == self.digest or digest in self.manifest.get("supersedes", ())

    def selftest(self) -> SelfTest:
        """The vectors, read-only."""
        return self._selftest

    def file(self, name: str) -> bytes:
        """Any listed file by its path in the bundle. Raises `BundleError` where it is absent."""
        if name not in self._files:
            raise BundleError(f"bundle {self.path} has no file {name!r}")
        return self._files[name]

    def _read_graph(self, name: str) -> GraphInfo:
        entry = self.manifest["graphs"][name]
        stated = check_graph(self._files[entry["file"]], entry["file"])
        if "task" not in entry:
            return graph_from_name(name, entry["precision"], stated, Shapes.of(self.manifest), self.labels)
        info = graph_from_json(name, entry, self.labels)
        check_signature(info, stated, entry["file"])
        return info

    def _read_tables(self, entry: Mapping[str, Any]) -> EntropyModel | StepsModel:
        try:
            model = read_model(self._files[entry["file"]])
        except EntropyModelError as e:
            raise BundleError(f"{entry['file']}: {e}") from e
        if (model.channels, model.levels, model.profile) != (self.latent_shape[0], self.levels, entry["profile"]):
            raise BundleError(
                f"{entry['file']} has {model.channels} channels, {model.levels} levels, profile {model.profile}; the manifest says "
                f"{self.latent_shape[0]}, {self.levels}, {entry['profile']}; export the bundle again"
            )
        if isinstance(model, StepsModel):
            said = tuple((s.offset, s.levels) for s in self.steps)
            if said != tuple(zip(model.offsets, model.levels_per_channel, strict=True)):
                raise BundleError(f"{entry['file']} has other offsets and levels than latent.steps; export the bundle again")
        return model

    def _read_familiarity(self) -> Familiarity:
        entry = self.manifest["familiarity"]
        classes = 0 if entry["head"] is None else len(self.head(entry["head"]).labels)
        data, channels = self._files[entry["file"]], self.latent_shape[0]
        try:
            return Familiarity.from_bytes(data, entry["limit"], channels, self.levels, classes, entry["head"], self.offsets)
        except BundleError as e:
            raise BundleError(f"{entry['file']}: {e}") from e

    def _read_selftest(self) -> SelfTest:
        entry = self.manifest["selftest"]
        height, width = self.frame_height, self.frame_width
        shapes = {"frames": (-1, height, width, 3), "symbols": (-1, *self.latent_shape), "labels": (-1, height, width)}
        arrays = {key: array_from_bytes(self._files[entry[key]], entry[key], shape) for key, shape in shapes.items()}
        counts = {len(a) for a in arrays.values()}
        if len(counts) != 1 or not 1 <= len(arrays["frames"]) <= MAX_SELFTEST:
            raise BundleError(f"self-test arrays must hold the same number of vectors, 1..{MAX_SELFTEST}; export the bundle again")
        if arrays["symbols"].max() >= self.levels:
            raise BundleError(f"{entry['symbols']} holds symbols past level {self.levels - 1}; export the bundle again")
        return SelfTest(
            arrays["frames"], arrays["symbols"], arrays["labels"], entry["max_symbol_disagreement"], entry["min_label_agreement"]
        )


def _read(folder: Path, name: str, size: int, sha256: str | None) -> bytes:
    """Exactly `size` bytes with this hash; without a hash at most `size`."""
    try:
        data = read_file(folder, name, size, None if sha256 is None else size)
    except UnfitFileError as e:
        raise BundleError(f"{name} {e}; copy or export the bundle again") from e
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(f"{name} was altered: its SHA-256 is not the manifest's; copy or export the bundle again")
    return data


def _hidden_besides(folder: Path, files: dict[str, Any]) -> list[str]:
    """Files that desktops left in the folder; they are never read. Raises `BundleError` for any other that the manifest does not list."""
    hidden, count = [], 0
    for root, folders, names in os.walk(folder, followlinks=False):
        count += len(folders)
        if Path(root) == folder:
            folders[:] = [f for f in folders if f not in _RESERVED]
        for name in [*names, *(f for f in folders if f.startswith(".") or (Path(root) / f).is_symlink())]:
            relative = (Path(root) / name).relative_to(folder).as_posix()
            count += 1
            if relative in (*files, "manifest.json", *_RESERVED) and count <= MAX_FILES + 2:
                continue
            if not (name.startswith(".") or name.lower() in _LEFT_BY_DESKTOPS) or count > 4 * MAX_FILES:
                raise BundleError(f"holds {relative[:100]!r}, which the manifest does not list; remove it or export the bundle again")
            hidden.append(relative)
        folders[:] = [f for f in folders if not f.startswith(".")]
        if count > 4 * MAX_FILES:
            raise BundleError(f"holds more than {4 * MAX_FILES} files and folders; remove what the manifest does not list")
    return sorted(hidden)


__all__ = ["Bundle"]
