"""A server with two bundles, what it has to say, and clients that know nothing of percodec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.serving import Serving, serving

from percodec.runtime import Session
from percodec.sdk import Latent

pytest.importorskip("grpc", reason="needs the serve extra")
pytest.importorskip("aiohttp", reason="needs the serve extra")


@pytest.fixture(scope="session")
def session(rich_bundle: Path) -> Iterator[Session]:
    """The rich bundle in this process: what every answer is compared with."""
    with Session.open(rich_bundle, heads=["all"]) as opened:
        yield opened


@pytest.fixture(scope="session")
def latents(session: Session) -> list[Latent]:
    rng = np.random.default_rng(5)
    shape, levels = session.latent_shape, session.bundle.levels
    return [Latent(rng.integers(0, levels, shape, dtype=np.uint8), 10 + k, 10**15 + k) for k in range(6)]


@pytest.fixture(scope="session")
def packets(session: Session, latents: list[Latent]) -> list[bytes]:
    return [session.pack(latent) for latent in latents]


@pytest.fixture(scope="session")
def server(bundle_folder: Path, rich_bundle: Path) -> Iterator[Serving]:
    """Models `tiny` and `rich`."""
    with serving({"tiny": bundle_folder, "rich": rich_bundle}) as made:
        yield made


@pytest.fixture(scope="session", params=["grpc", "http"])
def triton(request: pytest.FixtureRequest, server: Serving) -> Iterator[tuple[Any, Any]]:
    """(module, client) of an unmodified tritonclient."""
    pytest.importorskip("tritonclient", reason="needs tritonclient")
    module = pytest.importorskip(f"tritonclient.{request.param}")
    client = module.InferenceServerClient(getattr(server, request.param))
    yield module, client
    client.close()
