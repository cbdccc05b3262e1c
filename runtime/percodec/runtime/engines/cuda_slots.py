"""The GPU side of the pipeline's slots: every slot owns its buffers and, where it can, one CUDA graph for all its work.

    source (host) --upload--> [camera -->] image --encoder--> symbols --heads--> outputs --download--> outputs (host)  compute stream
                                             '----------------'--download--> image, symbols (host)                     second stream
    done: recorded after both

The latent never leaves the device on its way to the heads: the encoder's output address is their input address. `encode()` queues
the whole frame and returns; `predict()` and the coder wait for `done`. Slots of one pipeline share the streams, hence the order; pipelines
of several cameras share the device, each with streams of its own priority.

Uploads: `copy` from pinned memory; `mapped`, where the GPU reads the host's memory itself and nothing is copied (an integrated GPU's
default); `managed`; `foreign`: pictures that are on the device already, by `__cuda_array_interface__` or DLPack. Where there is a `camera`
engine the camera's own format is uploaded and turned into RGB on the device; the host's `image` is then a download, for the overlay.
Outputs are poisoned on the device before each run, so what was not written is never taken for a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from percodec.runtime.engines.cuda import Cuda, CudaError, Memory
from percodec.runtime.engines.cuda_foreign import foreign_array, foreign_stream
from percodec.runtime.engines.host_slots import check_fit
from percodec.runtime.engines.tensorrt import TrtEngine
from percodec.runtime.pipeline.slots import POISON, FrameLost, Slot
from percodec.sdk.errors import BackendError

TRANSFERS = ("auto", "copy", "mapped", "managed", "foreign")


@dataclass
class _Buffers:
    source: Memory  # what the host writes; the camera's format
    raw: Memory  # the same on the device
    image: Memory  # RGB on the device: `raw` itself without a camera engine
    symbols: Memory
    outputs: list[list[Memory]]  # of each head, in order
    host_image: Memory | None
    host_symbols: Memory
    host_outputs: list[list[Memory]]
    done: int
    graph: int = 0
    kept: Any = None

    def memories(self) -> list[Memory]:
        """Each once: some are the same."""
        found = [self.source, self.raw, self.image, self.symbols, self.host_image, self.host_symbols]
        found += [m for head in (*self.outputs, *self.host_outputs) for m in head]
        return list({id(m): m for m in found if m is not None}.values())


class ForeignSource:
    """Where a picture that is on the device already is handed to a slot: `source.take(array)`, from the capture thread."""

    def __init__(self, slots: CudaSlots, buffers: _Buffers, shape: tuple[int, ...]) -> None:
        self._slots, self._buffers, self.shape = slots, buffers, shape

    def take(self, array: Any) -> None:
        """uint8 of `shape`; must stay as it is until the frame is predicted. Raises TypeError, ValueError for another kind of array."""
        self._slots.feed(self._buffers, array, self.shape)


class CudaSlots:
    """`count` slots on one device. `graphs`: capture each slot once and prove it equal to the eager run, else stay eager and say why.

    `stream`: another library's stream to compute on (an integer or `__cuda_stream__`), in its order and of its priority; it stays theirs.
    """

    def __init__(
        self,
        cuda: Cuda,
        encoder: TrtEngine,
        heads: Mapping[str, TrtEngine],
        count: int,
        *,
        camera: TrtEngine | None = None,
        transfer: str = "auto",
        priority: int = 0,
        graphs: bool = True,
        stream: object = None,
    ) -> None:
        if transfer not in TRANSFERS:
            raise ValueError(f"transfer must be one of {TRANSFERS}, got {transfer!r}")
        check_fit(encoder, heads)
        if camera is not None and camera.outputs[0].shape != encoder.source.shape:
            raise ValueError(f"the camera graph gives {camera.outputs[0].shape}, the encoder takes {encoder.source.shape}")
        self.cuda = cuda
        self.transfer = ("mapped" if cuda.device.integrated else "copy") if transfer == "auto" else transfer
        self.eager_because = "" if graphs else "not asked for"
        self._heads = dict(heads)
        if encoder.own_graphs:
            self.eager_because = "this TensorRT captures graphs itself"
        self._foreign = stream is not None
        self._stream = foreign_stream(stream) if self._foreign else cuda.stream(priority)
        self._second = cuda.stream(priority)
        self._fork, self._join = cuda.event(), cuda.event()
        engines = [e for e in (camera, encoder, *heads.values()) if e is not None]
        self._scratch = cuda.allocate(max(1, *(e.scratch_bytes for e in engines)))
        lanes = [e.lane(self._scratch) for e in engines]
        self._camera = lanes.pop(0) if camera is not None else None
        self._encode, *self._predict = lanes
        self._buffers = [self._allocate(camera, encoder) for _ in range(count)]
        self.slots = [self._slot(index, b, camera, encoder) for index, b in enumerate(self._buffers)]
        for b, slot in zip(self._buffers, self.slots, strict=True):
            self._prepare(b, slot)

    def feed(self, b: _Buffers, array: Any, shape: tuple[int, ...]) -> None:
        """A device picture into a slot, ordered after whatever its library still does to it."""
        address, producer = foreign_array(array, shape, self._stream)
        if producer:
            ready = self.cuda.event()
            self.cuda.record(ready, producer)
            self.cuda.wait(self._stream, ready)
            self.cuda.destroy(event=ready)
        self.cuda.copy(b.raw.device, address, b.raw.nbytes, self._stream)
        b.kept = array  # alive until the next picture; the copy is long done then

    def device_ms(self, runs: int = 20) -> dict[str, list[float]]:
        """Milliseconds on the device per part of a frame, one eager run after the other on the first slot; no pipeline may be running."""
        names = ["h2d", *(["camera"] if self._camera is not None else []), "encode", "predict", "d2h"]
        marks = [self.cuda.event(timing=True) for _ in range(len(names) + 1)]
        out: dict[str, list[float]] = {name: [] for name in [*names, "latency"]}
        b = self._buffers[0]
        for _ in range(runs):
            self._queue(b, marks)
            self.cuda.record(b.done, self._stream)
            self._settle(b)
            for k, name in enumerate(names):
                out[name].append(self.cuda.elapsed_ms(marks[k], marks[k + 1]))
            out["latency"].append(self.cuda.elapsed_ms(marks[0], marks[-1]))
        for event in marks:
            self.cuda.destroy(event=event)
        return out

    def used_bytes(self) -> int:
        """Device memory in use by anybody, as the driver says."""
        free, total = self.cuda.memory_info()
        return total - free

    @property
    def own_bytes(self) -> dict[str, int]:
        """What these slots hold, by kind of memory; engines' weights are TensorRT's."""
        out: dict[str, int] = {}
        for memory in [self._scratch, *(m for b in self._buffers for m in b.memories())]:
            out[memory.kind] = out.get(memory.kind, 0) + memory.nbytes
        return out

    def close(self) -> None:
        """Wait for the device, then free everything. The slots must no longer be used."""
        cuda, done = self.cuda, self.cuda.event()
        for stream in (self._stream, self._second):
            cuda.record(done, stream)
            cuda.synchronize(done)
        for b in self._buffers:
            cuda.destroy(event=b.done, graph=b.graph)
            for memory in b.memories():
                cuda.free(memory)
        cuda.free(self._scratch)
        for event in (self._fork, self._join, done):
            cuda.destroy(event=event)
        for stream in (self._second,) if self._foreign else (self._stream, self._second):
            cuda.destroy(stream=stream)

    # -- making -------------------------------------------------------------------------------------------------------
    def _allocate(self, camera: TrtEngine | None, encoder: TrtEngine) -> _Buffers:
        cuda, first = self.cuda, camera or encoder
        taken, given, symbols = (spec.nbytes for spec in (first.source, encoder.source, encoder.outputs[0]))
        sizes = [[spec.nbytes for spec in head.outputs] for head in self._heads.values()]
        separate = self.transfer in ("copy", "foreign")
        source = cuda.allocate(taken, "pinned" if separate else self.transfer)
        raw = cuda.allocate(taken) if separate else source
        downloads = camera is not None or self.transfer == "foreign"
        return _Buffers(
            source=source,
            raw=raw,
            image=cuda.allocate(given) if camera is not None else raw,
            symbols=cuda.allocate(symbols),
            outputs=[[cuda.allocate(n) for n in head] for head in sizes],
            host_image=cuda.allocate(given, "pinned") if downloads else None,
            host_symbols=cuda.allocate(symbols, "pinned"),
            host_outputs=[[cuda.allocate(n, "pinned") for n in head] for head in sizes],
            done=cuda.event(),
        )

    def _slot(self, index: int, b: _Buffers, camera: TrtEngine | None, encoder: TrtEngine) -> Slot:
        shape = (camera or encoder).source.shape
        image = (b.host_image or b.source).array(encoder.source.shape)
        symbols = b.host_symbols.array(encoder.outputs[0].shape)
        outputs = {
            name: {s.name: m.array(s.shape, s.dtype) for s, m in zip(head.outputs, memories, strict=True)}
            for (name, head), memories in zip(self._heads.items(), b.host_outputs, strict=True)
        }
        for array in (image, symbols, *(a for found in outputs.values() for a in found.values())):
            array.fill(0)
        source = ForeignSource(self, b, shape) if self.transfer == "foreign" else b.source.array(shape)[0]

        def settle() -> None:
            self._settle(b)

        return Slot(index, image, symbols, outputs, self._encodes(b), settle, settle, source=source)

    def _encodes(self, b: _Buffers) -> Callable[[], None]:
        def encode() -> None:
            try:
                self._launch(b)
            except BackendError as error:
                if isinstance(error, CudaError) and error.sticky:
                    raise
                # What was queued before the failure still runs; the next frame in this slot comes after it, on the same streams.
                raise FrameLost(str(error)) from error

        return encode

    def _prepare(self, b: _Buffers, slot: Slot) -> None:
        """Warm up eagerly, then capture, then prove the graph on other pixels than it was captured with."""
        self._launch(b)
        self._settle(b)
        if self.eager_because:
            return
        try:
            self.cuda.begin_capture(self._stream)
            try:
                self._queue(b)
            finally:
                graph = self.cuda.end_capture(self._stream)
        except BackendError as error:
            if isinstance(error, CudaError) and error.sticky:
                raise
            self.eager_because = f"capture failed: {error}"
            return
        pixels = b.source.array((b.source.nbytes,))
        pixels[:] = np.random.default_rng(slot.index).integers(0, 256, pixels.shape, np.uint8)
        if self.transfer == "foreign":
            self.cuda.copy(b.raw.device, b.source.host, b.raw.nbytes, self._stream)
        self._launch(b)
        self._settle(b)
        downloads = [b.host_symbols, *(m for head in b.host_outputs for m in head)]
        eager = [m.array((m.nbytes,)).copy() for m in downloads]
        b.graph = graph
        for memory in downloads:
            memory.array((memory.nbytes,)).fill(POISON)
        self._launch(b)
        self._settle(b)
        if not all(np.array_equal(m.array((m.nbytes,)), before) for m, before in zip(downloads, eager, strict=True)):
            b.graph = 0
            self.cuda.destroy(graph=graph)
            self.eager_because = "the graph does not compute what the eager run does"
        pixels.fill(0)

    # -- one frame --------------------------------------------------------------------------------------------------
    def _launch(self, b: _Buffers) -> None:
        if b.graph and not self.eager_because:
            self.cuda.launch(b.graph, self._stream)
        else:
            self._queue(b)
        self.cuda.record(b.done, self._stream)

    def _settle(self, b: _Buffers) -> None:
        self.cuda.synchronize(b.done)

    def _queue(self, b: _Buffers, marks: list[int] | None = None) -> None:
        cuda, main, second = self.cuda, self._stream, self._second
        left = iter(marks or ())

        def mark() -> None:
            if marks:
                cuda.record(next(left), main)

        mark()
        if self.transfer == "copy":
            cuda.copy(b.raw.device, b.source.host, b.raw.nbytes, main)
        for memory in (b.symbols, *(m for head in b.outputs for m in head)):
            cuda.fill(memory.device, POISON, memory.nbytes, main)
        mark()
        if self._camera is not None:
            self._camera.enqueue(main, b.raw.device, b.image.device)
            mark()
        self._encode.enqueue(main, b.image.device, b.symbols.device)
        mark()
        cuda.record(self._fork, main)
        cuda.wait(second, self._fork)
        cuda.copy(b.host_symbols.host, b.symbols.device, b.symbols.nbytes, second)
        if b.host_image is not None:
            cuda.copy(b.host_image.host, b.image.device, b.image.nbytes, second)
        cuda.record(self._join, second)
        for lane, outputs in zip(self._predict, b.outputs, strict=True):
            lane.enqueue(main, b.symbols.device, *(m.device for m in outputs))
        mark()
        for outputs, hosts in zip(b.outputs, b.host_outputs, strict=True):
            for memory, host in zip(outputs, hosts, strict=True):
                cuda.copy(host.host, memory.device, memory.nbytes, main)
        cuda.wait(main, self._join)
        mark()


__all__ = ["TRANSFERS", "CudaSlots", "ForeignSource"]
