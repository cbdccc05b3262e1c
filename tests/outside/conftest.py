"""The folder that is walked in, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.once import Once
from support.yard import Walk, fill


@pytest.fixture(scope="session")
def yard(once: Once, tiny_folder: Path) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        fill(folder, tiny_folder)

    return once("yard", make)


@pytest.fixture(scope="session")
def walk(yard: Path, tmp_path_factory: pytest.TempPathFactory) -> Walk:
    import torch  # noqa: F401  while nobody is waiting for it

    os.environ.pop("PERCODEC_DEBUG", None)
    return Walk(yard, tmp_path_factory.mktemp("walk"))
