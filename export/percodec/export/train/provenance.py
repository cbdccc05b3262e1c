"""What a run was made of, as its folder and the bundle made of it tell: configuration, data, where its codec came from, commit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from percodec.export.data.dataset import DataSet
from percodec.export.train.checkpoint import load_checkpoint
from percodec.export.train.config import Config
from percodec.export.train.packets import PacketSet


def origin_of(start: Path) -> dict[str, Any]:
    state = load_checkpoint(start)
    origin: dict[str, Any] = {key: state[key] for key in ("config", "step", "val", "bundle") if key in state}
    beside = start.parent / "data.json"
    origin["data"] = json.loads(beside.read_text()) if "bundle" not in state and beside.exists() else None
    return origin


def record_run(config: Config, out: Path, origin: dict[str, Any] | None, data: dict[str, Any], command: str | None) -> None:
    if origin is not None:
        (out / "codec.json").write_text(json.dumps(origin, indent=1))
    (out / "config.json").write_text(json.dumps(config, indent=1))
    (out / "data.json").write_text(json.dumps(data, indent=1))
    if command is not None:
        (out / "command.txt").write_text(command + "\n", encoding="utf-8", errors="backslashreplace")


def provenance(specs: list[list[Any]], val_spec: str, sets: Sequence[DataSet | PacketSet]) -> dict[str, Any]:
    """Specs without machine paths, sizes and content digests. `sets`: in the order of the specs."""
    return {
        "train": [{"spec": s, "weight": w, **_facts(d)} for (s, w), d in zip(specs, sets[:-1], strict=True)],
        "val": {"spec": val_spec, **_facts(sets[-1])},
        "commit": commit(),
    }


def _facts(data: DataSet | PacketSet) -> dict[str, Any]:
    """Size, digest and, of a compressed or restored set, what made it."""
    return {"pictures": len(data), "sha256": data.digest, **({"origin": data.origin} if data.origin else {})}


def commit() -> str:
    """The commit of the repository this file is tracked in, "unknown" where it is installed or copied."""

    def git(*words: str) -> str:
        here = Path(__file__)
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, cwd=here.parent, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


__all__ = ["commit", "origin_of", "provenance", "record_run"]
