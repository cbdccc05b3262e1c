"""What is usual for a bundle, learned from frames of its roads, and how far is too far, from frames of other drives. No torch here.

SPEC  a video, a folder of pictures or a rendered drive, as `percodec run` takes them; SPEC@FIRST:END for some of its frames
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.export.bundles.frames import frames_of, readable
from percodec.runtime import Session
from percodec.sdk.bundle import Bundle
from percodec.sdk.familiarity import BEYOND, SHRINKAGE, Familiarity, band_pixels, features

MOST = 2000  # frames of a source; of more every second, fourth, ... is taken
Say = Callable[[str], None]


def learn_familiarity(
    bundle: Bundle, usual: Sequence[str], limit_from: Sequence[str], say: Say = lambda text: None
) -> tuple[Familiarity, dict[str, Any]]:
    """From specs of usual frames and of frames that set the limit, which should be of other drives; and what it was learned from.

    The limit is the largest that any one of `limit_from` asks for. Raises what a source raises, and `UsageError` for too few frames.
    """
    head = next((name for name in bundle.heads if bundle.head(name).task == "segmentation"), None)
    classes = 0 if head is None else len(bundle.head(head).labels)
    with Session.open(bundle, backend="ort:fp32", heads=() if head is None else (head,), selftest=False) as session:

        def of(specs: Sequence[str]) -> list[NDArray[np.float64]]:
            found = []
            for spec in specs:
                found.append(np.array([row for _, row in frame_features(session, spec)]))
                say(f"{spec}: {len(found[-1])} frames")
            return found

        known, others = of(usual), of(limit_from)
    frames = np.concatenate(known)
    made = [Familiarity.fit(frames, rows, bundle.levels, classes, head, bundle.offsets) for rows in others]
    chosen = max(made, key=lambda one: one.limit)
    say(f"familiar up to a distance of {chosen.limit:.3f}, in {chosen.mean.size} features")
    origin = {
        "usual": [{"source": readable(s), "frames": len(rows)} for s, rows in zip(usual, known, strict=True)],
        "limit_from": [
            {"source": readable(s), "frames": len(rows), "limit": round(one.limit, 4)}
            for s, rows, one in zip(limit_from, others, made, strict=True)
        ],
        "frames": len(frames),
        "beyond": BEYOND,
        "shrinkage": SHRINKAGE,
    }
    return chosen, {"familiarity": origin}


def frame_features(session: Session, spec: str) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(number, `features`) of a source's frames. The session's first head, where it has one, is a segmentation."""
    bundle, head = session.bundle, next(iter(session.heads), None)
    for frame in frames_of(bundle, spec, "--familiar", MOST):
        latent = session.encode(frame)
        pixels = band_pixels(session.predict(latent, head).labels, len(bundle.head(head).labels)) if head is not None else ()
        yield frame.frame_id, features(latent.symbols, bundle.levels, pixels, bundle.offsets)


__all__ = ["MOST", "frame_features", "learn_familiarity"]
