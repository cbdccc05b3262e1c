"""One bundle opened for use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.open import open_engine
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BundleError

DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "road-edge"


def open_bundle(path: Path) -> Bundle:
    """`Bundle.open` with a friendlier word when the default one is not installed."""
    if path == DEFAULT_BUNDLE and not path.is_dir():
        raise BundleError("the demo bundle road-edge is not part of this installation; name a bundle with --bundle FOLDER")
    return Bundle.open(path)


def decoder(bundle: Bundle, backend: str, threads: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """symbols uint8 [C,h,w] -> RGB uint8 [H,W,3], valid until the next call."""
    engine = open_engine(bundle, "decoder", backend=backend, threads=threads)
    symbols = np.zeros(engine.source.shape, np.uint8)
    image = np.zeros(engine.destination.shape, np.uint8)
    run = engine.bind(symbols, image)

    def decode(latent: NDArray[np.uint8]) -> NDArray[np.uint8]:
        np.copyto(symbols[0], latent)
        run()
        picture: NDArray[np.uint8] = image[0]
        return picture

    return decode


__all__ = ["DEFAULT_BUNDLE", "decoder", "open_bundle"]
