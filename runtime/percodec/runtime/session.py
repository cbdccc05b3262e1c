"""`Session`: the door. One bundle opened for a loop of one's own, and the pieces that every command stands on.

    with Session.open() as session:
        latent = session.encode(image)            picture -> latent
        prediction = session.predict(latent)      latent -> what a head says
        packet = session.pack(latent)             latent -> bytes for the log or the uplink, and back with `unpack`

Which one? `Session` where frames come from your code, `Session.pipeline` where a `FrameSource` gives them and stages should run at the same
time. `pack` where any packet may be wanted alone, `stream` where they are kept in order: fewer bytes.

Threads. Every method may be called from any thread; calls on one network wait for each other. What they return is the caller's. A `Stream`
is for one thread at a time; a call while another is in one raises `CodecError`. Where processes fork, open sessions afterwards.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.preprocess import Padding, Preprocessor, RawCopy
from percodec.runtime.capture.source import FrameSource
from percodec.runtime.engines.engine import Engine
from percodec.runtime.engines.open import Made, cpu_graph, decoder_for, open_engine, open_slots, takes_any_size
from percodec.runtime.engines.selftest import run_selftest
from percodec.runtime.pipeline.options import Coder, Outputs, PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import HeadTask
from percodec.runtime.pipeline.slots import Slot
from percodec.runtime.pipeline.timing import Profiler
from percodec.runtime.stream import Stream, latent_of, stream_codec
from percodec.runtime.trust.check import admit
from percodec.runtime.trust.policy import find_policy
from percodec.sdk.bundle import Bundle, GraphInfo
from percodec.sdk.camera import CameraFormat
from percodec.sdk.codec import PacketCodec
from percodec.sdk.codec.header import BytesLike
from percodec.sdk.errors import BundleError, UsageError
from percodec.sdk.familiarity import band_pixels
from percodec.sdk.fit import CELL, padded, size_of
from percodec.sdk.types import Frame, Latent, Prediction

DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "road"


class Session:
    """One bundle on one backend, ready to use. Obtain with `Session.open`."""

    def __init__(
        self,
        bundle: Bundle,
        made: Made,
        selftest: dict[str, Any] | None,
        backend: str,
        threads: int,
        stream_id: int,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.bundle, self.selftest, self.about, self.size = bundle, selftest, made.about, size
        self.heads: dict[str, GraphInfo] = {name: bundle.head(name) for name in made.heads}
        self._made, self._backend, self._threads, self._stream_id = made, backend, threads, stream_id
        self._frame = None if size is None else (padded(size[1]), padded(size[0]))
        cells = bundle.latent_shape[1:] if self._frame is None else (self._frame[0] // CELL, self._frame[1] // CELL)
        self.latent_shape = (bundle.latent_shape[0], *cells)
        self._coder = PacketCodec(bundle.entropy_model, *cells, stream_id=stream_id)
        whole = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit) if size is None else Padding(size[1], size[0])
        self._preprocess: Preprocessor | Padding = whole
        self._encode = _Call(made.encoder)
        self._predict = {name: _Call(head) for name, head in made.heads.items()}
        self._decode: dict[str, _Call] = {}
        self._opening = threading.Lock()
        self._ids = itertools.count()
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | None = None,
        *,
        backend: str = "ort",
        heads: Sequence[str] | str | None = None,
        threads: int = 1,
        provider: str | None = None,
        transfer: str = "auto",
        camera: CameraFormat | None = None,
        stream_id: int = 0,
        selftest: bool = True,
        size: tuple[int, int] | None = None,
    ) -> Session:
        """Load the encoder and `heads` ("all"; None: the default one, where there is one) of a bundle folder (None: the built-in one).

        `backend` is `ort`, `ort:fp32`, `ort:int8`, `tensorrt` or `tensorrt_rtx`; what is asked for is what runs. `threads`: inside each
        network, 1..64. `provider`, `transfer`, `camera`: of a GPU, see `engines.open.open_slots`. `stream_id`: 0..65535, in every packet.

        `size`: width and height of whole pictures, each 1..16384, instead of the bundle's frame, on `ort`. `encode` then takes this size
        alone and repeats the last row and column up to whole cells of 8 pixels; `decode` cuts them off again. Packets are of this size and
        say nothing of it: keep it beside them. `heads` None is then the default one where it takes any size, else none.

        Raises `UsageError`, `BundleError`, `BackendError`, `EngineError`, and `SelfTestError` where the engines do not compute what the
        bundle says.
        """
        opened = bundle if isinstance(bundle, Bundle) else open_bundle(default_bundle() if bundle is None else Path(bundle))
        if size is not None:
            return cls._open_sized(opened, size, backend, heads, threads, stream_id, selftest)
        made = open_slots(
            opened, backend=backend, heads=chosen_heads(opened, heads), threads=threads, provider=provider, camera=camera, transfer=transfer
        )
        found = asdict(run_selftest(opened, made.encoder, made.heads.get("segmentation"))) if selftest else None
        return cls(opened, made, found, backend, threads, stream_id)

    @classmethod
    def _open_sized(
        cls,
        bundle: Bundle,
        size: tuple[int, int],
        backend: str,
        heads: Sequence[str] | str | None,
        threads: int,
        stream_id: int,
        selftest: bool,
    ) -> Session:
        width, height = size_of(size)
        frame = (padded(height), padded(width))
        chosen = chosen_heads(bundle, heads)
        if heads is None:
            precision = backend.partition(":")[2] or None
            chosen = tuple(head for head in chosen if takes_any_size(cpu_graph(bundle, f"head_{head}", precision)[0]))
        made = open_slots(bundle, backend=backend, heads=chosen, threads=threads, frame=frame)
        found = None
        if selftest:  # its vectors are of the bundle's frame
            proof = open_slots(bundle, backend=backend, heads=[head for head in chosen if head == "segmentation"], threads=threads)
            found = asdict(run_selftest(bundle, proof.encoder, proof.heads.get("segmentation")))
        return cls(bundle, made, found, backend, threads, stream_id, (width, height))

    # -- the loop ---------------------------------------------------------------------------------------------------
    def encode(self, image: Any, *, frame_id: int | None = None, timestamp_ns: int | None = None) -> Latent:
        """A picture's latent. `image`: uint8 [H,W,3] RGB of any size, fitted as the bundle says; or a `Frame`, whose identity is taken.

        On a GPU backend also anything with `__cuda_array_interface__` or DLPack on that GPU, uint8, of exactly the bundle's frame size.
        `frame_id` None: counts up from 0; `timestamp_ns` None: the monotonic clock now. Raises `UsageError`, `SourceError`, `BackendError`.
        """
        self._check_open()
        if isinstance(image, Frame):
            frame_id = image.frame_id if frame_id is None else frame_id
            timestamp_ns = image.timestamp_ns if timestamp_ns is None else timestamp_ns
        frame_id = next(self._ids) if frame_id is None else frame_id
        timestamp_ns = time.monotonic_ns() if timestamp_ns is None else timestamp_ns
        call = self._encode
        with call.lock:
            if isinstance(image, Frame):
                self._preprocess(image, call.source[0])
            elif isinstance(image, np.ndarray):
                if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                    raise UsageError(f"an image is uint8 [H,W,3] RGB, at least one pixel; got {image.dtype} {list(image.shape)}")
                self._preprocess(Frame(image, frame_id, timestamp_ns), call.source[0])
            else:
                return Latent(self._encode_foreign(image), frame_id, timestamp_ns)
            return Latent(call.run()[0], frame_id, timestamp_ns)

    def predict(self, latent: Latent, head: str | None = None) -> Prediction:
        """What `head`, or the first of `heads`, says; `unfamiliarity` says how far to trust it. Raises `UsageError`, `BackendError`."""
        self._check_open()
        symbols = self._symbols(latent)
        name = next(iter(self._predict), None) if head is None else head.removeprefix("head_")
        if name is None or name not in self._predict:
            there = ", ".join(self._predict) or "no head"
            asked = "a head" if head is None else f"the head {head!r}"
            raise UsageError(f"{asked} is not open in this session, which has {there}; name it in Session.open(heads=...)")
        call = self._predict[name]
        with call.lock:
            np.copyto(call.source[0], symbols)
            found = call.run()
        outputs = {spec.name: array for spec, array in zip(call.engine.outputs, found, strict=True)}
        return Prediction(name, outputs, latent.frame_id, latent.timestamp_ns)

    def class_pixels(self, prediction: Prediction) -> NDArray[np.int64]:
        """int64 [classes]: how many pixels of a segmentation are of each class. Raises `UsageError` for another prediction."""
        return np.bincount(prediction.labels.reshape(-1), minlength=len(self.bundle.head(prediction.head).labels))

    def unfamiliarity(self, latent: Latent, prediction: Prediction | None = None) -> float | None:
        """Above 1.0: no scene that the bundle was made for. None: it cannot tell. Raises `UsageError` where it takes a prediction, of
        the head that the bundle's `familiarity` names, and that is missing."""
        usual = self.bundle.familiarity
        if usual is None:
            return None
        if usual.head is not None and (prediction is None or prediction.head != usual.head):
            raise UsageError(f"the familiarity of {self.bundle.name} needs the prediction of its head {usual.head}")
        pixels = () if prediction is None or usual.head is None else band_pixels(prediction.labels, usual.classes)
        return usual.distance(self._symbols(latent), pixels)

    def pack(self, latent: Latent) -> bytes:
        """A packet that stands alone; its counter is the frame's id. Keeps no state. Raises `CodecError`."""
        return self._coder.encode(latent.symbols, latent.frame_id, latent.timestamp_ns, counter=latent.frame_id)

    def unpack(self, packet: BytesLike) -> Latent:
        """The latent of a packet that stands alone. Raises `PacketError` for anything else, a predicted packet of a `stream` included."""
        return latent_of(*self._coder.decode(packet))

    def decode(self, latent: Latent, prefer: str | None = None) -> NDArray[np.uint8]:
        """The picture rebuilt, uint8 [H,W,3] RGB. `prefer`: nearest to the original in `psnr` or `ms-ssim`.

        A decoder is loaded at its first call. Raises `UsageError`, `BundleError` where the bundle has none for this, `BackendError`.
        """
        self._check_open()
        symbols = self._symbols(latent)
        graph = decoder_for(self.bundle, prefer)
        with self._opening:
            if graph not in self._decode:
                self._decode[graph] = _Call(
                    open_engine(self.bundle, graph, backend=self._backend, threads=self._threads, frame=self._frame)
                )
            call = self._decode[graph]
        with call.lock:
            np.copyto(call.source[0], symbols)
            picture: NDArray[np.uint8] = call.run()[0]
        return picture if self.size is None else np.ascontiguousarray(picture[: self.size[1], : self.size[0]])

    def stream(self, key_every: int = 25) -> Stream:
        """One direction of a stream of predicted packets, with a key packet at least every `key_every`.

        Raises `BundleError` where the bundle has no tables for them, `CodecError` for a `key_every` below 1.
        """
        return Stream(stream_codec(self.bundle, self._stream_id, key_every, self.latent_shape[1:]))

    # -- all stages at once -------------------------------------------------------------------------------------------
    def pipeline(
        self,
        source: FrameSource,
        *,
        options: PipelineOptions | None = None,
        outputs: Outputs | None = None,
        coder: Coder | None = None,
        profiler: Profiler | None = None,
    ) -> Pipeline:
        """A `Pipeline` from `source` through this session's networks to `outputs`. `coder` None: packets that stand alone.

        Raises `UsageError` for a session with a `size`.
        """
        self._check_open()
        if self.size is not None:
            raise UsageError("a pipeline runs on the bundle's own frames; open the session without a size")
        return pipeline_of(
            self.bundle, tuple(self.heads), source, self.slots, coder or self._coder, options=options, outputs=outputs, profiler=profiler
        )

    def slots(self, count: int) -> list[Slot]:
        """New slots over this session's networks, for a pipeline."""
        return self._made.make(count)

    @property
    def made(self) -> Made:
        """The engines, for whoever measures them."""
        return self._made

    def close(self) -> None:
        """Free what is held on a device. Idempotent; a network that is asked later is a `UsageError`."""
        self._closed = True
        self._made.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------------
    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this session is closed; open another one")

    def _symbols(self, latent: Latent) -> NDArray[np.uint8]:
        symbols = latent.symbols if isinstance(latent, Latent) else None
        if not isinstance(symbols, np.ndarray) or symbols.dtype != np.uint8 or symbols.shape != self.latent_shape:
            found = f"{symbols.dtype} {list(symbols.shape)}" if isinstance(symbols, np.ndarray) else type(latent).__name__
            raise UsageError(f"a latent of {self.bundle.name} is a Latent of uint8 {list(self.latent_shape)} here, got {found}")
        return symbols

    def _encode_foreign(self, image: Any) -> NDArray[np.uint8]:
        run = getattr(self._made.encoder, "run_foreign", None)
        if run is None or not (hasattr(image, "__cuda_array_interface__") or hasattr(image, "__dlpack__")):
            raise UsageError(f"an image is a numpy array or a Frame on the backend {self._backend}, got {type(image).__name__}")
        symbols = self._made.encoder.outputs[0].empty()
        try:
            run(image, symbols)
        except (TypeError, ValueError) as error:
            raise UsageError(f"an image on the GPU: {error}") from error
        return np.asarray(symbols[0], np.uint8)


class _Call:
    """One network with arrays of its own; whoever holds `lock` may fill `source` and `run`."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.lock = engine, threading.Lock()
        self.source = engine.source.empty()
        self._outputs = [spec.empty() for spec in engine.outputs]
        self._run = engine.bind(self.source, *self._outputs)

    def run(self) -> list[NDArray[Any]]:
        """Copies of the outputs, without the batch."""
        self._run()
        return [array[0].copy() for array in self._outputs]


def pipeline_of(
    bundle: Bundle,
    heads: Sequence[str],
    source: FrameSource,
    make_slots: Callable[[int], list[Slot]],
    coder: Coder,
    *,
    camera: CameraFormat | None = None,
    options: PipelineOptions | None = None,
    outputs: Outputs | None = None,
    profiler: Profiler | None = None,
) -> Pipeline:
    """The one wiring of a pipeline for a bundle, over slots of any kind. `camera`: its raw pictures go to the slots as they are."""
    tasks = {}
    for name in heads:
        info = bundle.head(name)
        tasks[name] = HeadTask(info.task, len(info.labels))
    preprocess = RawCopy(camera) if camera is not None else Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
    return Pipeline(
        source,
        preprocess,
        make_slots,
        coder,
        levels=bundle.levels,
        heads=tasks,
        familiarity=bundle.familiarity,
        options=options,
        outputs=outputs,
        profiler=profiler,
    )


def chosen_heads(bundle: Bundle, heads: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of heads without `head_`, checked. None: the default one where there is any; "all": every one. Raises `BundleError`."""
    if heads is None:
        return bundle.heads[:1]
    heads = [heads] if isinstance(heads, str) else heads
    names = bundle.heads if list(heads) == ["all"] else tuple(bundle.head(name).name.removeprefix("head_") for name in heads)
    return tuple(dict.fromkeys(names))


def default_bundle() -> Path:
    """The folder of the built-in bundle `road`."""
    return DEFAULT_BUNDLE


@dataclass(frozen=True)
class Demand:
    """What a bundle must be to be opened. `policy`: a trust policy's file, None for the machine's; `digest`: its own, or the beginning."""

    policy: Path | None = None
    digest: str | None = None


def open_bundle(path: Path, demand: Demand = Demand()) -> Bundle:
    """`Bundle.open` of a bundle that this machine's trust policy admits. The one that comes with percodec is trusted as a part of it.

    Raises `BundleError`; `TrustError` before any model of the bundle is read.
    """
    if path == DEFAULT_BUNDLE and not path.is_dir():
        raise BundleError("the built-in bundle road is not part of this installation; name a bundle with --bundle FOLDER")
    if path == DEFAULT_BUNDLE:
        bundle = Bundle.open(path, demand.digest)
        bundle.vouched = True
        return bundle
    if not path.is_dir():
        return Bundle.open(path)  # which says what is wrong with it
    verdict, said = admit(path, find_policy(demand.policy))
    if demand.digest is not None and (len(demand.digest) < 8 or not verdict.digest.startswith(demand.digest.lower())):
        raise BundleError(f"bundle {path}: digest is {verdict.digest[:16]}..., expected {demand.digest[:16]}; this is another bundle")
    bundle = Bundle.open(path, verdict.digest, verdict.engines)
    bundle.vouched = bool(verdict.trusted)
    if said is not None:
        bundle.notes = (*bundle.notes, said)
    return bundle


__all__ = [
    "DEFAULT_BUNDLE",
    "Demand",
    "Session",
    "Stream",
    "chosen_heads",
    "default_bundle",
    "open_bundle",
    "pipeline_of",
    "stream_codec",
]
