"""`percodec encode` and `percodec decode`: pictures <-> packets, without the prediction head unless asked for.

image  -> one packet (.pcpk)          packet -> reconstruction.png  (+ segmentation.png, a label map)
video, folder, synthetic -> log (.mcap)   log -> reconstruction.mp4  (+ segmentation.mp4, label maps)
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.images import write_image
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.engines.open import decoder_for
from percodec.runtime.pipeline.rate import RateControl
from percodec.runtime.run.drawing import OverlayPainter
from percodec.runtime.run.labels import LabelMaps
from percodec.runtime.run.logged import LoggedLatents, complain
from percodec.runtime.run.sinks import VideoSink, psnr_db
from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle, GraphInfo
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import BundleError, LogError, PacketError, UsageError
from percodec.sdk.files import check_file, read_file, write_whole
from percodec.sdk.log import LogWriter, SegmentedLogWriter, SegmentLimits
from percodec.sdk.text import shown
from percodec.sdk.types import Latent

MCAP_MAGIC = b"\x89MCAP0\r\n"
MAX_PACKET_FILE = 1 << 26


@dataclass
class CodingResult:
    """What was coded or decoded. `psnr_db`: one figure per frame with a reference, in order."""

    frames: int = 0
    packet_bytes: int = 0
    files: list[str] = field(default_factory=list)
    psnr_db: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self, bundle: Bundle) -> dict[str, Any]:
        """JSON form with bits per pixel and mean PSNR."""
        pixels = bundle.frame_height * bundle.frame_width
        out: dict[str, Any] = {"frames": self.frames, "packet_bytes": self.packet_bytes, "files": [shown(name) for name in self.files]}
        out["bpp"] = round(8 * self.packet_bytes / (self.frames * pixels), 5) if self.frames else None
        finite = [value for value in self.psnr_db if np.isfinite(value)]
        out["psnr_db"] = round(float(np.mean(finite)), 3) if finite else None
        return {**out, "notes": [shown(note) for note in self.notes]}


def encode_source(
    spec: str,
    out: Path,
    bundle: Bundle,
    *,
    backend: str = "ort",
    threads: int = 1,
    max_frames: int | None = None,
    stream: bool = False,
    key_every: int = 25,
    log_segment: SegmentLimits | None = None,
    log_key: bytes | None = None,
    stream_id: int = 0,
    overwrite: bool = False,
    target_kbps: float | None = None,
    max_packet: int | None = None,
) -> CodingResult:
    """Code every frame of `spec` into `out`; with `stream` as predicted packets, a key packet at least every `key_every`.

    `target_kbps`, `max_packet`: see `pipeline.rate`.

    With `log_segment` `out` is a folder of segments; `log_key`: proofs in the log.

    Raises SourceError after the good frames of a damaged source were written, LogError
    when the disk refuses, when `out` exists (unless `overwrite`), or when somebody is writing it.
    """
    session = Session.open(bundle, backend=backend, heads=(), threads=threads, stream_id=stream_id, selftest=False)
    source = open_source(spec, height=bundle.frame_height, width=bundle.frame_width)
    result = CodingResult(files=[str(out)], notes=source.info.notes)
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        single = source.info.kind == "image"
        if single and log_segment:
            raise UsageError(f"{out}: --log-segment is for a log; {spec} is one image")
        if single != (out.suffix == ".pcpk"):
            raise UsageError(f"{out}: {'an image is coded into NAME.pcpk' if single else 'a sequence is coded into NAME.mcap'}")
        if single and stream:
            raise UsageError(f"{out}: a stream is of several frames; {spec} is one image")
        pack: Callable[[Latent], bytes] = session.stream(key_every).pack if stream else session.pack
        control: RateControl | None = None
        if target_kbps is not None or max_packet is not None:
            if stream:
                raise UsageError("--target-kbps and --max-packet are for packets that stand alone: leave --stream out")
            control = _rate_control(bundle, target_kbps, max_packet, stream_id, source.info.fps)
            pack = partial(_coarsened, control)
        log: LogWriter | SegmentedLogWriter | None = None
        while result.frames != max_frames and (frame := source.read()) is not None:
            packet = pack(session.encode(frame))
            if single:
                write_whole(out, packet)
            else:
                if log is None:
                    live = source.info.live
                    if log_segment:
                        log = SegmentedLogWriter(out, bundle, log_segment, stream_id=stream_id, live=live, key=log_key)
                    else:
                        log = LogWriter(out, bundle, stream_id=stream_id, live=live, overwrite=overwrite, key=log_key)
                    stack.callback(log.close)
                    made = os.stat(out)
                log.append(packet, frame.frame_id, frame.timestamp_ns)
            result.frames += 1
            result.packet_bytes += len(packet)
        if log is not None and not (out.exists() and os.path.samestat(made, os.stat(out))):
            raise LogError(f"{out}: was removed or replaced by somebody else while it was written; choose another -o")
        if control is not None and control.missed:
            result.notes.append(control.missed)
    return result


def _rate_control(bundle: Bundle, target_kbps: float | None, max_packet: int | None, stream_id: int, fps: float | None) -> RateControl:
    coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:], stream_id=stream_id)
    rate = None if target_kbps is None else target_kbps * 125
    return RateControl(bundle, coder, bytes_per_second=rate, max_bytes=max_packet, fps=fps or 25.0)


def _coarsened(control: RateControl, latent: Latent) -> bytes:
    control.coarsen(latent.symbols)
    return control.encode(latent.symbols, latent.frame_id, latent.timestamp_ns)


def is_log(path: Path) -> bool:
    """True for an MCAP file, and for a folder. Raises LogError when the file cannot be read."""
    if path.is_dir():
        return True
    try:
        check_file(path)
        with path.open("rb") as file:
            return file.read(len(MCAP_MAGIC)) == MCAP_MAGIC
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or 'cannot be read'}") from error


def read_packet_file(path: Path) -> bytes:
    """A .pcpk file. Raises PacketError when it is empty, unreadable or far too large."""
    try:
        data = read_file(path, MAX_PACKET_FILE)
    except OSError as error:
        raise PacketError(f"{path}: {error.strerror or 'cannot be read'}") from error
    if not data:
        raise PacketError(f"{path}: 0 bytes is not the size of a packet")
    return data


def decode_file(
    path: Path,
    out: Path,
    bundle: Bundle,
    *,
    backend: str = "ort",
    threads: int = 1,
    segment: bool = False,
    labels: LabelMaps | None = None,
    reference: str | None = None,
    max_frames: int | None = None,
    allow_damaged: bool = False,
    prefer: str | None = None,
) -> CodingResult:
    """Rebuild the pictures of a packet or log in folder `out`. `prefer`: see `Session.decode`. `labels`: takes label maps of the
    bundle's first segmentation head.

    Raises PacketError or LogError where data is damaged or missing, after everything else was written; with `allow_damaged` a log's
    shortcomings become notes of the result.
    """
    decoder_for(bundle, prefer)
    info = segmentation_head(bundle) if segment or labels else None
    heads = (info.name,) if info else ()
    session = Session.open(bundle, backend=backend, heads=heads, threads=threads, selftest=False)
    result = CodingResult()
    with contextlib.ExitStack() as stack:
        truth = _Reference(reference, bundle) if reference else None
        if truth is not None:
            stack.callback(truth.close)
        segmenter = _Segmenter(session, info, labels, segment) if info else None
        if labels is not None:
            result.files.append(str(labels.folder))
        if not is_log(path):
            _decode_packet(path, out, session, segmenter, truth, result, prefer)
            return result
        latents = LoggedLatents(path, bundle)
        records = iter(latents)
        first = list(itertools.islice(records, 16))
        fps = _frame_rate([record.timestamp_ns for record, _ in first])
        videos: dict[str, VideoSink] = {}

        def show(name: str, rgb: NDArray[np.uint8]) -> None:
            if name not in videos:
                height, width = (n + n % 2 for n in rgb.shape[:2])
                videos[name] = VideoSink(out / f"{name}.mp4", fps, height, width)
            videos[name].write(_even_bgr(rgb))

        try:
            for record, symbols in itertools.islice(itertools.chain(first, records), max_frames):
                latent = Latent(symbols, record.frame_id, record.timestamp_ns)
                rgb = session.decode(latent, prefer)
                for name, picture in _pictures(latent, rgb, segmenter):
                    show(name, picture)
                if truth is not None and (image := truth.frame(record.frame_id)) is not None:
                    result.psnr_db.append(psnr_db(image, rgb))
                result.frames += 1
                result.packet_bytes += len(record.packet)
        finally:
            for video in videos.values():
                video.close()
                result.files.append(str(video.path))
        whole = result.frames != max_frames
        if whole and allow_damaged:
            result.notes += [said] if (said := latents.complaint()) else []
            result.notes += ["the log is cut off"] * latents.log.truncated
        elif whole:
            complain(latents, f"the other {result.frames} frames were decoded into {out}")
            if latents.log.truncated:
                raise LogError(f"{path}: the log is cut off; its {result.frames} complete frames were decoded into {out}")
        if truth is not None and len(result.psnr_db) < result.frames:
            result.notes.append(f"PSNR is of {len(result.psnr_db)} of {result.frames} frames; {reference} has no others")
        if result.frames == 0:
            raise LogError(f"{path}: the log holds no packets{'; it is cut off before the first' * latents.log.truncated}")
    return result


def segmentation_head(bundle: Bundle) -> GraphInfo:
    """The first segmentation head. Raises `BundleError` where the bundle has none."""
    found = next((bundle.head(name) for name in bundle.heads if bundle.head(name).task == "segmentation"), None)
    if found is None:
        raise BundleError(f"bundle {bundle.name} has no segmentation head (it has: {', '.join(bundle.heads) or 'no head'})")
    return found


class _Segmenter:
    """latent, RGB -> label map, if wanted; RGB with class colours, if wanted."""

    def __init__(self, session: Session, info: GraphInfo, maps: LabelMaps | None, paint: bool) -> None:
        self._session, self._head, self._maps = session, info.name, maps
        self._painter = OverlayPainter(session.bundle, info.labels) if paint else None

    def __call__(self, latent: Latent, rgb: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        labels = self._session.predict(latent, self._head).labels
        if self._maps is not None:
            self._maps.write(labels, latent.frame_id, latent.timestamp_ns, self._head)
        return None if self._painter is None else np.ascontiguousarray(self._painter.blend(rgb, labels)[..., ::-1])


class _Reference:
    """Original frames by frame id, preprocessed like the encoder's input. Ids must be asked for in rising order."""

    def __init__(self, spec: str, bundle: Bundle) -> None:
        self._source = open_source(spec, height=bundle.frame_height, width=bundle.frame_width)
        self._preprocess = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
        self._image = np.zeros((bundle.frame_height, bundle.frame_width, 3), np.uint8)
        self.close: Callable[[], None] = self._source.close

    def frame(self, frame_id: int) -> NDArray[np.uint8] | None:
        while (frame := self._source.read()) is not None:
            if frame.frame_id >= frame_id:
                self._preprocess(frame, self._image)
                return self._image if frame.frame_id == frame_id else None
        return None


def _decode_packet(
    path: Path,
    out: Path,
    session: Session,
    segmenter: _Segmenter | None,
    truth: _Reference | None,
    result: CodingResult,
    prefer: str | None,
) -> None:
    packet = read_packet_file(path)
    try:
        latent = session.unpack(packet)
    except PacketError as error:
        raise PacketError(f"{path}: {error}") from error
    rgb = session.decode(latent, prefer)
    for name, picture in _pictures(latent, rgb, segmenter):
        write_image(out / f"{name}.png", picture)
        result.files.append(str(out / f"{name}.png"))
    if truth is not None and (image := truth.frame(latent.frame_id)) is not None:
        result.psnr_db.append(psnr_db(image, rgb))
    result.frames, result.packet_bytes = 1, len(packet)


def _pictures(latent: Latent, rgb: NDArray[np.uint8], segmenter: _Segmenter | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    yield "reconstruction", rgb
    if segmenter is not None and (picture := segmenter(latent, rgb)) is not None:
        yield "segmentation", picture


def _frame_rate(stamps: list[int]) -> float:
    steps = sorted(b - a for a, b in itertools.pairwise(stamps) if b > a)
    return min(240.0, max(1.0, 1e9 / steps[len(steps) // 2])) if steps else 25.0


def _even_bgr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(rgb[..., ::-1])


__all__ = ["CodingResult", "decode_file", "encode_source", "is_log", "read_packet_file", "segmentation_head"]
