"""The page of assumptions names tests; they are there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_that_the_page_names_is_there(root: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", (root / "runtime" / "ASSUMPTIONS.md").read_text(encoding="utf-8")))
    there = {
        name for path in (root / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert named <= there, named - there
