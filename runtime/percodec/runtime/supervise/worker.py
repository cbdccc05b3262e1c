"""The process that owns the engines: started with a JSON argument by `supervise.supervisor`.

Frames, symbols and the outputs of all heads live in one anonymous shared memory file, laid out as slots; over two pipes go only which
slot to run and how it went. The process ends itself at once when the GPU is lost to it (a sticky CUDA error), with exit code `LOST`.
It limits itself before it reads a model (`engines.limits`), and holds no descriptors but its own.

    in   RUN slot token                 encode and predict what is in the slot
    out  READY {json}                   engines are up: what they are
         SYMBOLS|OUTPUTS slot token      there to be read
         FAILED slot token reason       this frame has no result; the next may have
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.engines.cuda import CudaError
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.engines.limits import Limits
from percodec.runtime.engines.open import open_slots
from percodec.runtime.engines.selftest import run_selftest
from percodec.runtime.pipeline.slots import POISON
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BackendError, PercodecError

RUN, READY, SYMBOLS, OUTPUTS, FAILED = range(1, 6)
REQUEST = struct.Struct("<BIQ")
REPLY = struct.Struct("<BIQI")
LOST, REFUSED = 75, 76  # exit codes: the GPU is gone; the engines are not what they must be, which no other try changes


def layout(specs: Sequence[TensorSpec], count: int) -> tuple[list[list[int]], int]:
    """Offsets [slot][array] and the size of the file, everything on a page of its own."""
    page, at, offsets = mmap.PAGESIZE, 0, []
    for _ in range(count):
        line = []
        for spec in specs:
            line.append(at)
            at += -(-spec.nbytes // page) * page
        offsets.append(line)
    return offsets, at


def views(shared: mmap.mmap, specs: Sequence[TensorSpec], count: int) -> list[list[NDArray[Any]]]:
    """The arrays of every slot: image, symbols, then the outputs of each head in order."""
    offsets, _ = layout(specs, count)
    return [
        [
            np.frombuffer(shared, np.uint8, spec.nbytes, at).view(spec.dtype).reshape(spec.shape)
            for spec, at in zip(specs, line, strict=True)
        ]
        for line in offsets
    ]


class _Worker:
    def __init__(self, config: dict[str, Any]) -> None:
        self._out, self._lock = os.fdopen(config["reply_fd"], "wb", buffering=0), threading.Lock()
        limits = Limits(**config.get("limits", {}))
        limits.apply(host=config["backend"].partition(":")[0] == "ort")
        bundle = Bundle.open(
            Path(config["bundle"]), config.get("digest"), config.get("engines")
        )  # the log names one bundle: no other may run under it
        specs = [TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in config["specs"]]
        count = int(config["count"])
        shared = mmap.mmap(config["memory_fd"], layout(specs, count)[1])
        self._shared = views(shared, specs, count)
        wishes = {k: config[k] for k in ("provider", "threads", "transfer", "heads") if k in config}
        self._made = open_slots(bundle, backend=config["backend"], **wishes)
        found = (
            asdict(run_selftest(bundle, self._made.encoder, self._made.heads.get("segmentation"))) if config.get("selftest", True) else None
        )
        self._slots = self._made.make(count)
        self._waiting: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        frame_ms = self._warm_up()
        limits.loaded()
        self._send(READY, 0, 0, json.dumps({**self._made.about, "selftest": found, "frame_ms": frame_ms}))

    def _warm_up(self, runs: int = 3) -> float:
        """The longest of a few frames, in ms: how long an answer may take."""
        slot, longest = self._slots[0], 0.0
        for _ in range(runs):
            begin = time.monotonic()
            for work in (slot.encode, slot.ready, slot.predict):
                work()
            longest = max(longest, 1000 * (time.monotonic() - begin))
        return round(longest, 3)

    def serve(self) -> None:
        finisher = threading.Thread(target=self._finish, daemon=True)
        finisher.start()
        with os.fdopen(0, "rb", buffering=0) as requests:
            while True:
                raw = requests.read(REQUEST.size)
                if len(raw) < REQUEST.size:
                    break
                _, index, token = REQUEST.unpack(raw)
                slot, (image, *results) = self._slots[index], self._shared[index]
                for array in results:
                    array.reshape(-1).view(np.uint8).fill(POISON)
                np.copyto(slot.image, image)
                if self._guard(index, token, slot.encode):
                    self._waiting.put((index, token))
        self._waiting.put(None)
        finisher.join(timeout=2)

    def _finish(self) -> None:
        while (item := self._waiting.get()) is not None:
            index, token = item
            slot, (_, symbols, *results) = self._slots[index], self._shared[index]
            outputs = [array for head in slot.outputs.values() for array in head.values()]
            for wait, sources, destinations, kind in (
                (slot.ready, [slot.symbols], [symbols], SYMBOLS),
                (slot.predict, outputs, results, OUTPUTS),
            ):
                if not self._guard(index, token, wait):
                    break
                for source, destination in zip(sources, destinations, strict=True):
                    np.copyto(destination, source)
                self._send(kind, index, token, "")

    def _guard(self, index: int, token: int, work: Any) -> bool:
        try:
            work()
        except PercodecError as error:
            self._send(FAILED, index, token, str(error))
            if isinstance(error, CudaError) and error.sticky:
                os._exit(LOST)  # no clean-up: every further CUDA call would fail or hang
            return False
        return True

    def _send(self, kind: int, index: int, token: int, text: str) -> None:
        payload = text.encode()[:4000]
        with self._lock:
            self._out.write(REPLY.pack(kind, index, token, len(payload)) + payload)


def main() -> int:
    """Serve until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to the whole group, they are for the one that started us
        signal.signal(number, signal.SIG_IGN)
    try:
        worker = _Worker(json.loads(sys.argv[1]))
    except PercodecError as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return LOST if isinstance(error, CudaError) and error.sticky else REFUSED
    except MemoryError:
        print(f"{BackendError.__name__}: the engines need more memory than they may have", file=sys.stderr, flush=True)
        return REFUSED
    worker.serve()
    return 0


__all__ = ["FAILED", "LOST", "OUTPUTS", "READY", "REFUSED", "REPLY", "REQUEST", "RUN", "SYMBOLS", "layout", "main", "views"]
