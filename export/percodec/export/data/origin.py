"""How a compressed or restored data set was made: the summary that lies beside its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA = "percodec.data/1"
SUMMARY = "percodec-data.json"


def origin_of(folder: Path) -> dict[str, Any] | None:
    """The summary of the set that `folder` is, or is the top-level part of; None where nothing says."""
    for place in (folder, folder.parent):
        try:
            found = json.loads((place / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and found.get("schema") == SCHEMA:
            return found
    return None


__all__ = ["SCHEMA", "SUMMARY", "origin_of"]
