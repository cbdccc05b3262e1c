"""Tables of predicted packets for a bundle, learned from frames that follow each other. No torch here.

SPEC  a video, a folder of consecutive pictures or a rendered drive, as `percodec run` takes them; SPEC@FIRST:END for some of its frames
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.bundles.context_tables import learn_contexts
from percodec.export.engines.session import session
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.capture.source import FrameSource
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import EntropyModel
from percodec.sdk.errors import DataError, UsageError

PAIRS = 120  # of each source: more take longer to learn from and hardly make smaller packets
_RANGE = re.compile(r"(?P<source>.+)@(?P<first>\d{0,9}):(?P<end>\d{0,9})")
Say = Callable[[str], None]


def learn_stream(bundle: Bundle, specs: Sequence[str], say: Say = lambda text: None) -> tuple[EntropyModel, dict[str, Any]]:
    """Tables of profile 2 for the bundle's latents, and what they were learned from.

    Raises `SourceError` for a source that cannot be read, `UsageError` for a range that is none, `DataError` for too few frames.
    """
    found = []
    for spec in specs:
        found.append(stream_pairs(bundle, spec))
        say(f"{spec}: {len(found[-1])} pairs of frames")
    say(f"learning tables of predicted packets, {bundle.latent_shape[0]} channels ...")
    tables = learn_contexts(np.concatenate(found), bundle.levels, temporal=True, say=say)
    return tables, {"stream": [{"source": _readable(s), "pairs": len(p)} for s, p in zip(specs, found, strict=True)]}


def stream_pairs(bundle: Bundle, spec: str, most: int = PAIRS) -> NDArray[np.uint8]:
    """Latents uint8 [N,2C,h,w] of at most `most` pairs of consecutive frames, spread over the source: each frame's and the next one's."""
    ranged = _RANGE.fullmatch(spec)
    source, first, end = (ranged["source"], ranged["first"], ranged["end"]) if ranged else (spec, "", "")
    start, stop = int(first or 0), int(end) if end else None
    if stop is not None and stop - start < 2:
        raise UsageError(f"--stream-from {spec}: holds no two frames; write SPEC@FIRST:END, for example drive.mp4@0:100")
    opened = open_source(source, height=bundle.frame_height, width=bundle.frame_width)
    try:
        if opened.info.live:
            raise UsageError(f"--stream-from {spec}: is a camera; record it first and give the video")
        pairs = _pairs(bundle, opened, start, stop, 2 * most)
    finally:
        opened.close()
    if not pairs:
        raise DataError(f"--stream-from {spec}: holds no two consecutive frames; give a video, or a folder of pictures in their order")
    kept = np.unique(np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int))
    return np.stack([pairs[k] for k in kept])


def _pairs(bundle: Bundle, source: FrameSource, start: int, stop: int | None, most: int) -> list[NDArray[np.uint8]]:
    """Every `step`-th pair; `step` doubles each time there are more than `most`, for a video does not say how long it is."""
    prepare, encode = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit), session(bundle.graph("encoder"))
    image = np.empty((1, bundle.frame_height, bundle.frame_width, 3), np.uint8)
    pairs: list[NDArray[np.uint8]] = []
    step, before, before_id = 1, None, -1
    while (frame := source.read()) is not None and (stop is None or frame.frame_id < stop):
        k = frame.frame_id - start
        if k < 0 or (k % step and (k - 1) % step):
            continue
        prepare(frame, image[0])
        latent = encode(image)[0][0]
        if before is not None and before_id == k - 1 and (k - 1) % step == 0:
            pairs.append(np.concatenate([before, latent]))
        before, before_id = latent, k
        if len(pairs) > most:
            pairs, step = pairs[::2], 2 * step
    return pairs


def _readable(spec: str) -> str:
    """Without this machine's folders."""
    return spec if "://" in spec else "/".join(Path(spec).parts[-2:])


__all__ = ["PAIRS", "learn_stream", "stream_pairs"]
