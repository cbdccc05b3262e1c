"""The bundle's self-test vectors, run on this machine's engines before they are trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percodec.runtime.engines.engine import Engine
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import SelfTestError


@dataclass(frozen=True)
class SelfTestResult:
    """Worst vector: share of symbols that differ, and share of pixels with the expected label (None without a head)."""

    vectors: int
    symbol_disagreement: float
    label_agreement: float | None


def run_selftest(bundle: Bundle, encoder: Engine | None, head: Engine | None) -> SelfTestResult:
    """Frames -> symbols, and expected symbols -> labels, against the bundle's limits or those of the engine's precision.

    The head gets the *expected* symbols, so that its verdict does not depend on the encoder's. Raises SelfTestError naming
    the vector, the figure and the limit.
    """
    vectors = bundle.selftest()
    count = len(vectors.frames)
    image = np.empty((1, *vectors.frames.shape[1:]), np.uint8)
    symbols = np.empty((1, *vectors.symbols.shape[1:]), np.uint8)
    labels = np.empty((1, *vectors.labels.shape[1:]), np.uint8)
    disagreement, agreement = 0.0, 1.0
    if encoder is not None:
        encode = encoder.bind(image, symbols)
        most = encoder.limits[0] if encoder.limits else vectors.max_symbol_disagreement
        for k in range(count):
            image[0] = vectors.frames[k]
            encode()
            share = float(np.mean(symbols[0] != vectors.symbols[k]))
            disagreement = max(disagreement, share)
            if share > most:
                raise SelfTestError(
                    f"{bundle.name}: self-test frame {k}: {share:.3%} of the symbols differ on the {_name(encoder)} encoder, "
                    f"the bundle allows {most:.3%}; this backend must not be used with this bundle"
                )
    if head is not None:
        predict = head.bind(symbols, labels)
        least = head.limits[1] if head.limits else vectors.min_label_agreement
        for k in range(count):
            symbols[0] = vectors.symbols[k]
            predict()
            share = float(np.mean(labels[0] == vectors.labels[k]))
            agreement = min(agreement, share)
            if share < least:
                raise SelfTestError(
                    f"{bundle.name}: self-test frame {k}: {share:.3%} of the labels are as expected on the {_name(head)} head, "
                    f"the bundle asks for {least:.3%}; this backend must not be used with this bundle"
                )
    return SelfTestResult(count, disagreement, agreement if head is not None else None)


def _name(engine: Engine) -> str:
    return f"{engine.backend} {engine.precision}"


__all__ = ["SelfTestResult", "run_selftest"]
