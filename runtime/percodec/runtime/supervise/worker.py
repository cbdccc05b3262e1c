"""The process that owns the engines: started with a JSON argument by `supervise.supervisor`.

Frames, symbols and the outputs of all heads live in one anonymous shared memory file, laid out as slots; engines on a CPU compute in
there. Beside it goes only which slot to run and how it went. The process ends itself at once when the GPU is lost to it (a sticky CUDA
error), with exit code `LOST`. It limits itself before it reads a model (`engines.limits`), and holds no descriptors but its own.

    standard input        slot token                 encode and predict what is in the slot
    a pipe                {json}                     engines are up: what they are
    each slot's socket    DONE token                 symbols and outputs are there to be read
                          FAILED token reason        this frame has no result; the next may have
"""

from __future__ import annotations

import json
import mmap
import os
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
from percodec.runtime.engines.host_slots import host_slots
from percodec.runtime.engines.limits import Limits
from percodec.runtime.engines.open import open_slots
from percodec.runtime.engines.selftest import run_selftest
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BackendError, PercodecError

DONE, FAILED = 1, 2
REQUEST = struct.Struct("<IQ")
REPLY = struct.Struct("<BQ")
MOST_REPLY = REPLY.size + 4000
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
        self._replies: list[int] = config["reply_fds"]
        self._encoding = threading.Lock()
        limits = Limits(**config.get("limits", {}))
        host = config["backend"].partition(":")[0] == "ort"
        limits.apply(host)
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
        self._slots = host_slots(self._made.encoder, self._made.heads, self._shared)(count) if host else self._made.make(count)
        self._threads = 2 if host else count  # on a CPU one frame is encoded while another is predicted; a GPU has a queue
        frame_ms = self._warm_up()
        limits.loaded()
        self._say(config["ready_fd"], json.dumps({**self._made.about, "selftest": found, "frame_ms": frame_ms}))

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
        """Until there are no more requests. A frame is one thread's from here to there: a request wakes one of them."""
        others = [threading.Thread(target=self._serve, daemon=True) for _ in range(self._threads - 1)]
        for thread in others:
            thread.start()
        self._serve()
        for thread in others:
            thread.join(timeout=2)

    def _serve(self) -> None:
        while len(raw := os.read(0, REQUEST.size)) == REQUEST.size:
            index, token = REQUEST.unpack(raw)
            slot, (image, symbols, *results) = self._slots[index], self._shared[index]
            outputs = [array for head in slot.outputs.values() for array in head.values()]
            try:
                _copy([image], [slot.image])
                with self._encoding:  # it queues, on a GPU: one frame after the other
                    slot.encode()
                slot.ready()
                slot.predict()
                _copy([slot.symbols, *outputs], [symbols, *results])
                os.write(self._replies[index], REPLY.pack(DONE, token))
            except PercodecError as error:
                self._failed(self._replies[index], token, error)

    def _failed(self, socket: int, token: int, error: PercodecError) -> None:
        reply = (REPLY.pack(FAILED, token) + (str(error) or "the engine failed").encode())[:MOST_REPLY]
        os.write(socket, reply)
        if isinstance(error, CudaError) and error.sticky:
            os._exit(LOST)  # no clean-up: every further CUDA call would fail or hang

    def _say(self, pipe: int, text: str) -> None:
        with os.fdopen(pipe, "w") as ready:
            print(text, file=ready)


def _copy(sources: Sequence[NDArray[Any]], destinations: Sequence[NDArray[Any]]) -> None:
    for source, destination in zip(sources, destinations, strict=True):
        if source is not destination:
            np.copyto(destination, source)


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


__all__ = ["DONE", "FAILED", "LOST", "MOST_REPLY", "REFUSED", "REPLY", "REQUEST", "layout", "main", "views"]
