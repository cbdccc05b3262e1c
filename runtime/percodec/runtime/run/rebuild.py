"""Latents -> pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.open import open_engine
from percodec.sdk.bundle import Bundle


def decoder(bundle: Bundle, backend: str, threads: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """symbols uint8 [C,h,w] -> RGB uint8 [H,W,3], valid until the next call."""
    engine = open_engine(bundle, "decoder", backend=backend, threads=threads)
    symbols, image = engine.source.empty(), engine.outputs[0].empty()
    run = engine.bind(symbols, image)

    def decode(latent: NDArray[np.uint8]) -> NDArray[np.uint8]:
        np.copyto(symbols[0], latent)
        run()
        picture: NDArray[np.uint8] = image[0]
        return picture

    return decode


__all__ = ["decoder"]
