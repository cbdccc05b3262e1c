"""Tables of predicted packets for a bundle, learned from frames that follow each other. No torch here.

SPEC  a video, a folder of consecutive pictures or a rendered drive, as `percodec run` takes them; SPEC@FIRST:END for some of its frames
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.bundles.context_tables import learn_contexts
from percodec.export.bundles.frames import opened_frames, readable
from percodec.export.bundles.steps_tables import learn_steps
from percodec.runtime import Session
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import EntropyModel, StepsModel
from percodec.sdk.errors import DataError
from percodec.sdk.types import Frame

PAIRS = 120  # of each source: more take longer to learn from and hardly make smaller packets
Say = Callable[[str], None]


def learn_stream(bundle: Bundle, specs: Sequence[str], say: Say = lambda text: None) -> tuple[EntropyModel | StepsModel, dict[str, Any]]:
    """Tables of profile 2 or 5 for the bundle's latents, and what they were learned from.

    Raises `SourceError` for a source that cannot be read, `UsageError` for a range that is none, `DataError` for too few frames.
    """
    found = []
    for spec in specs:
        found.append(stream_pairs(bundle, spec))
        say(f"{spec}: {len(found[-1])} pairs of frames")
    say(f"learning tables of predicted packets, {bundle.latent_shape[0]} channels ...")
    tables = learned_from(bundle, np.concatenate(found), say)
    return tables, {"stream": [{"source": readable(s), "pairs": len(p)} for s, p in zip(specs, found, strict=True)]}


def learned_from(bundle: Bundle, pairs: NDArray[np.uint8], say: Say = lambda text: None) -> EntropyModel | StepsModel:
    """Tables of predicted packets for the bundle's latents: `pairs` uint8 [N,2C,h,w], each frame's latent and the next one's."""
    key = bundle.entropy_model
    if isinstance(key, StepsModel):
        return learn_steps(pairs, key.offsets, key.levels_per_channel, temporal=True, say=say)
    return learn_contexts(pairs, bundle.levels, temporal=True, say=say)


def stream_pairs(bundle: Bundle, spec: str, most: int = PAIRS) -> NDArray[np.uint8]:
    """Latents uint8 [N,2C,h,w] of at most `most` pairs of consecutive frames, spread over the source: each frame's and the next one's."""
    with opened_frames(bundle, spec, "--stream-from") as (frames, start):
        pairs = _pairs(bundle, frames, start, 2 * most)
    if not pairs:
        raise DataError(f"--stream-from {spec}: holds no two consecutive frames; give a video, or a folder of pictures in their order")
    kept = np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int))
    return np.stack([pairs[k] for k in kept])


def _pairs(bundle: Bundle, frames: Iterable[Frame], start: int, most: int) -> list[NDArray[np.uint8]]:
    """Every `step`-th pair; `step` doubles each time there are more than `most`, for a video does not say how long it is."""
    pairs: list[NDArray[np.uint8]] = []
    step, before = 1, None
    with Session.open(bundle, backend="ort:fp32", heads=(), selftest=False) as session:
        for frame in frames:
            k = frame.frame_id - start
            if k < 0 or (k % step and (k - 1) % step):
                continue
            latent = session.encode(frame)
            if before is not None and before.frame_id == frame.frame_id - 1 and (k - 1) % step == 0:
                pairs.append(np.concatenate([before.symbols, latent.symbols]))
            before = latent
            if len(pairs) > most:
                pairs, step = pairs[::2], 2 * step
    return pairs


__all__ = ["PAIRS", "learn_stream", "learned_from", "stream_pairs"]
