"""One tiny bundle, copied for every test that damages it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# importlib mode leaves sys.path alone; the tiny bundle is a shared module
sys.path[:0] = [p for p in [str(Path(__file__).parents[2])] if p not in sys.path]


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_bundle import make_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    make_bundle(folder)
    return folder
