"""`percodec encode` and `percodec decode`: pictures <-> packets, without the prediction head unless asked for.

image  -> one packet (.pcpk)          packet -> reconstruction.png  (+ segmentation.png)
video, folder, synthetic -> log (.mcap)   log -> reconstruction.mp4  (+ segmentation.mp4)
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.images import write_image
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.engines.engine import Engine
from percodec.runtime.engines.open import open_engine
from percodec.runtime.run.drawing import OverlayPainter
from percodec.runtime.run.sinks import VideoSink, psnr_db
from percodec.runtime.session import decoder
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import BundleError, LogError, PacketError, UsageError
from percodec.sdk.log import LogWriter, read_log

MCAP_MAGIC = b"\x89MCAP0\r\n"
MAX_PACKET_FILE = 1 << 26


@dataclass
class CodingResult:
    """What was coded or decoded. `psnr_db`: one figure per frame with a reference, in order."""

    frames: int = 0
    packet_bytes: int = 0
    files: list[str] = field(default_factory=list)
    psnr_db: list[float] = field(default_factory=list)

    def as_dict(self, bundle: Bundle) -> dict[str, Any]:
        """JSON form with bits per pixel and mean PSNR."""
        pixels = bundle.frame_height * bundle.frame_width
        out: dict[str, Any] = {"frames": self.frames, "packet_bytes": self.packet_bytes, "files": self.files}
        out["bpp"] = round(8 * self.packet_bytes / (self.frames * pixels), 5) if self.frames else None
        finite = [value for value in self.psnr_db if np.isfinite(value)]
        out["psnr_db"] = round(float(np.mean(finite)), 3) if finite else None
        return out


def encode_source(
    spec: str, out: Path, bundle: Bundle, *, backend: str = "ort", threads: int = 1, max_frames: int | None = None
) -> CodingResult:
    """Code every frame of `spec` into `out`.

    Raises SourceError after the good frames of a damaged source were written, LogError when the disk refuses.
    """
    engine = open_engine(bundle, "encoder", backend=backend, threads=threads)
    source = open_source(spec, height=bundle.frame_height, width=bundle.frame_width)
    result = CodingResult(files=[str(out)])
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        single = source.info.kind == "image"
        if single != (out.suffix == ".pcpk"):
            raise UsageError(f"{out}: {'an image is coded into NAME.pcpk' if single else 'a sequence is coded into NAME.mcap'}")
        codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
        preprocess = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
        image, symbols = np.zeros(engine.source.shape, np.uint8), np.zeros(engine.destination.shape, np.uint8)
        run = engine.bind(image, symbols)
        log: LogWriter | None = None
        while result.frames != max_frames and (frame := source.read()) is not None:
            preprocess(frame, image[0])
            run()
            packet = codec.encode(symbols[0], frame.frame_id, frame.timestamp_ns)
            if single:
                out.write_bytes(packet)
            else:
                if log is None:
                    log = LogWriter(out, bundle)
                    stack.callback(log.close)
                log.append(packet, frame.frame_id, frame.timestamp_ns)
            result.frames += 1
            result.packet_bytes += len(packet)
    return result


def is_log(path: Path) -> bool:
    """True for an MCAP file. Raises LogError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MCAP_MAGIC)) == MCAP_MAGIC
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or 'cannot be read'}") from error


def check_log_bundle(path: Path, digest: str, name: str, bundle: Bundle) -> None:
    """Raises BundleError when the log was written with another bundle."""
    if digest != bundle.digest:
        raise BundleError(
            f"{path}: was logged with bundle {name} {digest[:12]}, not {bundle.name} {bundle.digest[:12]}; name the right one with --bundle"
        )


def read_packet_file(path: Path) -> bytes:
    """A .pcpk file. Raises PacketError when it is empty, unreadable or far too large."""
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_PACKET_FILE:
            raise PacketError(f"{path}: {size} bytes is not the size of a packet")
        return path.read_bytes()
    except OSError as error:
        raise PacketError(f"{path}: {error.strerror or 'cannot be read'}") from error


def decode_file(
    path: Path,
    out: Path,
    bundle: Bundle,
    *,
    backend: str = "ort",
    threads: int = 1,
    segment: bool = False,
    reference: str | None = None,
    max_frames: int | None = None,
) -> CodingResult:
    """Rebuild the pictures of a packet or log in folder `out`.

    Raises PacketError or LogError where data is damaged; everything before that place has been written.
    """
    decode = decoder(bundle, backend, threads)
    head = open_engine(bundle, "head_segmentation", backend=backend, threads=threads) if segment else None
    codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    result = CodingResult()
    with contextlib.ExitStack() as stack:
        truth = _Reference(reference, bundle) if reference else None
        if truth is not None:
            stack.callback(truth.close)
        segmenter = _Segmenter(bundle, head) if head else None
        if not is_log(path):
            _decode_packet(path, out, codec, decode, segmenter, truth, result)
            return result
        log = read_log(path)
        check_log_bundle(path, log.bundle_digest, log.bundle_name, bundle)
        records = iter(log)
        first = list(itertools.islice(records, 16))
        fps = _frame_rate([record.timestamp_ns for record in first])
        videos: dict[str, VideoSink] = {}

        def show(name: str, rgb: NDArray[np.uint8]) -> None:
            if name not in videos:
                height, width = (n + n % 2 for n in rgb.shape[:2])
                videos[name] = VideoSink(out / f"{name}.mp4", fps, height, width)
            videos[name].write(_even_bgr(rgb))

        try:
            for record in itertools.islice(itertools.chain(first, records), max_frames):
                _, symbols = codec.decode(record.packet)
                rgb = decode(symbols)
                show("reconstruction", rgb)
                if segmenter is not None:
                    show("segmentation", segmenter(symbols, rgb))
                if truth is not None and (image := truth.frame(record.frame_id)) is not None:
                    result.psnr_db.append(psnr_db(image, rgb))
                result.frames += 1
                result.packet_bytes += len(record.packet)
        finally:
            for video in videos.values():
                video.close()
                result.files.append(str(video.path))
        if log.truncated and result.frames != max_frames:
            raise LogError(f"{path}: the log is cut off; its {result.frames} complete frames were decoded into {out}")
        if result.frames == 0:
            raise LogError(f"{path}: the log holds no packets")
    return result


class _Segmenter:
    """symbols, RGB -> RGB with class colours."""

    def __init__(self, bundle: Bundle, head: Engine) -> None:
        self._symbols = np.zeros(head.source.shape, np.uint8)
        self._labels = np.zeros(head.destination.shape, np.uint8)
        self._predict = head.bind(self._symbols, self._labels)
        self._painter = OverlayPainter(bundle)

    def __call__(self, symbols: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        np.copyto(self._symbols[0], symbols)
        self._predict()
        return np.ascontiguousarray(self._painter.blend(rgb, self._labels[0])[..., ::-1])


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
    codec: PacketCodec,
    decode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    segmenter: _Segmenter | None,
    truth: _Reference | None,
    result: CodingResult,
) -> None:
    packet = read_packet_file(path)
    try:
        header, symbols = codec.decode(packet)
    except PacketError as error:
        raise PacketError(f"{path}: {error}") from error
    rgb = decode(symbols)
    for name, picture in _pictures(symbols, rgb, segmenter):
        write_image(out / f"{name}.png", picture)
        result.files.append(str(out / f"{name}.png"))
    if truth is not None and (image := truth.frame(header.frame_id)) is not None:
        result.psnr_db.append(psnr_db(image, rgb))
    result.frames, result.packet_bytes = 1, len(packet)


def _pictures(symbols: NDArray[np.uint8], rgb: NDArray[np.uint8], segmenter: _Segmenter | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    yield "reconstruction", rgb
    if segmenter is not None:
        yield "segmentation", segmenter(symbols, rgb)


def _frame_rate(stamps: list[int]) -> float:
    steps = sorted(b - a for a, b in itertools.pairwise(stamps) if b > a)
    return min(240.0, max(1.0, 1e9 / steps[len(steps) // 2])) if steps else 25.0


def _even_bgr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(rgb[..., ::-1])


__all__ = ["CodingResult", "check_log_bundle", "decode_file", "encode_source", "is_log", "read_packet_file"]
