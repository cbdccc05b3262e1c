"""What a run was asked for, and the folder it may write into."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from percodec.runtime.session import DEFAULT_BUNDLE, Demand
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import UsageError
from percodec.sdk.folder_lock import FolderLock
from percodec.sdk.log.names import SEGMENTS
from percodec.sdk.log.segments import SegmentLimits, segment_paths

FILES = ("packets.mcap", "frames.jsonl", "overlay.mp4", "overlay.avi", "contact_sheet.png", "report.json")


@dataclass(frozen=True)
class RunSettings:
    """What `percodec run` was asked for. `policy` None: `latest` for live or real-time sources, `block` otherwise.

    `heads`: by name, None for the bundle's default one, ("all",) for every one. `stream`: packets predicted from the one before, with a
    key packet at least every `key_every`. `target_kbps`, `max_packet`: see `pipeline.rate`. `isolate`: engines in a process of their own,
    None for those of a bundle that nobody vouches for; `fallback`: backends that take over where the first keeps failing.
    `reconnect_s`: how long a camera that is lost may stay lost. `camera`: its pictures as they are, prepared on the GPU where there is one.
    `save_labels`: folder for label maps, None for none.
    `log_segment`: a log in segments, None for one file. `log_key`: proofs in it. `stream_id`: the camera's number, in every packet.
    `demand`: what the bundle must be before it is opened.
    """

    source: str
    out: Path
    bundle: Path = DEFAULT_BUNDLE
    demand: Demand = Demand()  # noqa: RUF009
    backend: str = "ort"
    provider: str | None = None
    transfer: str = "auto"
    camera: CameraFormat | None = None
    policy: str | None = None
    realtime: bool = False
    threads: int = 1
    workers: int = 1
    max_frames: int | None = None
    max_age_ms: float | None = None
    allow_unfamiliar: bool = False
    timeout_s: float = 3.0
    reconnect_s: float = 0.0
    heads: tuple[str, ...] | None = None
    stream: bool = False
    key_every: int = 25
    target_kbps: float | None = None
    max_packet: int | None = None
    isolate: bool | None = False
    fallback: tuple[str, ...] = ()
    overlay: bool = True
    sheet: bool = True
    log: bool = True
    log_segment: SegmentLimits | None = None
    log_key: bytes | None = field(default=None, repr=False)
    stream_id: int = 0
    save_labels: Path | None = None
    selftest: bool = True
    overwrite: bool = False


def prepare_folder(out: Path, overwrite: bool) -> FolderLock:
    """Make `out` ready for a run, which has it alone until it closes the lock.

    Raises UsageError when it is not a folder, is in use, or holds an earlier run that must not be lost.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out must name a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be created ({error.strerror}); choose another --out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"{out}: not writable; choose another --out")
    lock = FolderLock(out)
    try:
        there = [name for name in FILES if (out / name).exists() or (out / name).is_symlink()]
        segments = segment_paths(out / SEGMENTS) if (out / SEGMENTS).is_dir() else []
        there += [f"{SEGMENTS}/{path.name}" for path in segments]
        if there and not overwrite:
            raise UsageError(f"{out}: already holds a run ({', '.join(there[:4])}); choose another --out or add --overwrite")
        for name in there:
            (out / name).unlink()
    except BaseException:
        lock.close()
        raise
    return lock


__all__ = ["FILES", "RunSettings", "prepare_folder"]
