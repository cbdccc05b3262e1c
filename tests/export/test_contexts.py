"""Tables by neighbours, learned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from percodec.export.bundles.context_tables import learn_contexts
from percodec.sdk.errors import EntropyModelError

LEVELS = 6


def test_learned_on_a_stream_it_uses_the_latent_before() -> None:
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, LEVELS, (2, 12, 16), np.uint8)]
    for _ in range(12):
        changed = rng.random((2, 12, 16)) < 0.1
        frames.append(np.where(changed, rng.integers(0, LEVELS, (2, 12, 16), np.uint8), frames[-1]))
    pairs = np.stack([np.concatenate(p) for p in itertools.pairwise(frames)])
    model = learn_contexts(pairs, LEVELS, neighbours=4, temporal=True)
    assert model.contexts is not None
    assert all(any(n.channel >= 2 for n in c.neighbours) for c in model.contexts.channels)
    intra = learn_contexts(pairs[:, 2:], LEVELS, neighbours=4)
    assert model.cost_bits(pairs[-1]) < 0.5 * intra.cost_bits(np.ascontiguousarray(pairs[-1, 2:]))


@pytest.mark.parametrize("wrong", [{"neighbours": 0}, {"neighbours": 33}, {"contexts": 0}, {"contexts": 17}])
def test_tables_that_cannot_be_are_not_learned(wrong: dict[str, int]) -> None:
    with pytest.raises(EntropyModelError, match=r"supported are 1\.\."):
        learn_contexts(np.zeros((2, 3, 4, 4), np.uint8), LEVELS, **wrong)
