"""For every test: what is made once a run, and no deadline for an example, as another process may have the core."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from support.once import Once

settings.register_profile("percodec", deadline=None)
settings.load_profile("percodec")


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    return Once(request.config, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_folder(once: Once) -> Path:
    """The tiny bundle, its self-test computed by ONNX Runtime. Copy it to damage it."""
    from support.tiny_bundle import make_bundle

    return once("tiny", make_bundle)
