"""Frames to learn from: SPEC or SPEC@FIRST:END, a video, a folder of pictures or a rendered drive. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from percodec.runtime import open_source
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import UsageError
from percodec.sdk.types import Frame

_RANGE = re.compile(r"(?P<source>.+)@(?P<first>\d{0,9}):(?P<end>\d{0,9})")


@contextmanager
def opened_frames(bundle: Bundle, spec: str, option: str) -> Iterator[tuple[Iterator[Frame], int]]:
    """Frames up to the range's end, and where it begins: earlier ones come too. Raises `UsageError` naming `option`; `SourceError`."""
    ranged = _RANGE.fullmatch(spec)
    source, first, end = (ranged["source"], ranged["first"], ranged["end"]) if ranged else (spec, "", "")
    start, stop = int(first or 0), int(end) if end else None
    if stop is not None and stop - start < 2:
        raise UsageError(f"{option} {spec}: holds no two frames; write SPEC@FIRST:END, for example drive.mp4@0:100")
    opened = open_source(source, height=bundle.frame_height, width=bundle.frame_width)
    try:
        if opened.info.live:
            raise UsageError(f"{option} {spec}: is a camera; record it first and give the video")
        frames: Iterator[Frame] = iter(opened.read, None)
        yield (frames if stop is None else takewhile(lambda frame: frame.frame_id < stop, frames)), start
    finally:
        opened.close()


def frames_of(bundle: Bundle, spec: str, option: str, most: int) -> Iterator[Frame]:
    """Frames of the range, in order; after each `most` of them half as many of those that follow: a video does not say how long it is."""
    with opened_frames(bundle, spec, option) as (frames, start):
        step = taken = 1
        for frame in frames:
            if frame.frame_id >= start and (frame.frame_id - start) % step == 0:
                yield frame
                taken += 1
                step *= 1 + (taken % most == 0)


def readable(spec: str) -> str:
    """Without this machine's folders."""
    return spec if "://" in spec else "/".join(Path(spec).parts[-2:])


__all__ = ["frames_of", "opened_frames", "readable"]
