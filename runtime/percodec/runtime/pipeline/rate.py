"""Fewer bytes from one bundle: small symbols become 0 before anything reads them, so that heads and packets still see the same latent.

    encoder -> symbols -> `coarsen`, in place -> heads
                                     \\-> `encode` -> packet, whose size decides how coarse the next frame is

A coarseness counts channels: at k the last k of them, but never the first, lose symbols one step from 0; with all of them through, it
begins again at two steps. What is left stands for the same values as before: decoders need to know nothing, and packets carry nothing more.
The codec must have a step for each channel, and channels in falling order of importance, as `--init klt` makes them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.pipeline.options import Coder
from percodec.runtime.pipeline.slots import Slot
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import UsageError

_ROUNDS = 4  # of the ladder: symbols up to so many steps from 0 can go
_PER_OCTAVE = 40.0  # coarseness for half of the bytes, roughly
_HORIZON_S = 1.0  # within which too many bytes are to be made up for
_EVERYTHING = 255


class RateControl:
    """Keeps one camera's packets at `bytes_per_second` on average, by their time stamps, and none of them above `max_bytes`.

    `coder` makes the packets. `fps`: what a first frame may take. `coarsen` may be called from several threads.
    Raises `UsageError` where the bundle's codec has no steps, for less than a byte a second, or where `max_bytes` is less than an empty
    latent takes.
    """

    def __init__(
        self, bundle: Bundle, coder: Coder, *, bytes_per_second: float | None = None, max_bytes: int | None = None, fps: float = 25.0
    ) -> None:
        if not bundle.steps:
            raise UsageError(f"bundle {bundle.name} has one rate: bundles with a step for each channel (format 1.2) have many")
        if bytes_per_second is not None and not 1 <= bytes_per_second < math.inf:
            raise UsageError(f"the target is {bytes_per_second:g} bytes a second; give 1 or more (0.008 kbit/s)")
        self._offsets = [step.offset for step in bundle.steps]
        self._coder, self._rate, self._most, self._fps = coder, bytes_per_second, max_bytes, fps
        self._trial = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
        self._trying = threading.Lock()
        self._top = _ROUNDS * max(1, len(bundle.steps) - 1) + 1
        self._level, self._debt, self._last_ns = 0.0, 0.0, -1
        self._frames, self._sum, self._coarsest = 0, 0, 0
        if max_bytes is not None:
            empty = np.empty(bundle.latent_shape, np.uint8)
            empty[:] = np.array(self._offsets, np.uint8)[:, None, None]
            if (least := self._size(empty)) > max_bytes:
                raise UsageError(f"a packet of {bundle.name} takes {least} bytes at least; allow no fewer, not {max_bytes}")

    def coarsen(self, symbols: NDArray[np.uint8]) -> None:
        """Make a latent, uint8 [C,h,w], as coarse as the rate wants it, in place."""
        level = round(self._level)
        if self._most is not None:
            level = self._that_fits(symbols, level, self._most)
        self._apply(symbols, level)
        self._frames, self._sum, self._coarsest = self._frames + 1, self._sum + level, max(self._coarsest, level)

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int) -> bytes:
        """The coder's packet of a coarsened latent; its size is taken into account."""
        packet = self._coder.encode(symbols, frame_id, timestamp_ns)
        if self._rate is None:
            self._level = max(0.0, self._level - 2)
            return packet
        seconds = (timestamp_ns - self._last_ns) / 1e9 if 0 <= self._last_ns < timestamp_ns else max(1 / self._fps, 1e-9)
        self._last_ns = timestamp_ns
        allowed = self._rate * min(seconds, _HORIZON_S)
        self._debt = float(np.clip(self._debt + len(packet) - allowed, -self._rate * _HORIZON_S, 2 * self._rate * _HORIZON_S))
        wanted = max(0.3 * allowed, allowed - self._debt * min(1.0, seconds / _HORIZON_S))
        self._level = float(np.clip(self._level + 0.5 * _PER_OCTAVE * math.log2(len(packet) / wanted), 0, self._top))
        return packet

    def over(self, make: Callable[[int], list[Slot]]) -> Callable[[int], list[Slot]]:
        """Makes slots as `make` does, on a CPU, whose latents are coarsened when `encode` returns."""

        def made(count: int) -> list[Slot]:
            slots = make(count)
            for slot in slots:
                slot.encode = partial(self._encode_slot, slot, slot.encode)
            return slots

        return made

    def _encode_slot(self, slot: Slot, encode: Callable[[], None]) -> None:
        encode()
        self.coarsen(slot.symbols[0])

    @property
    def missed(self) -> str | None:
        """That the target cannot be kept, where the coarsest packets are still too large for it."""
        if self._rate is None or round(self._level) < self._top or self._debt < self._rate * _HORIZON_S:
            return None
        return f"{self._rate * 8 / 1000:g} kbit/s cannot be kept: packets are as coarse as they get, and larger"

    def report(self) -> dict[str, float | str | None]:
        """For a run's report: what was asked for, whether it could not be had, and how coarse latents were, of `coarsest` at most."""
        return {
            "target_kbps": None if self._rate is None else self._rate * 8 / 1000,
            "max_packet": self._most,
            "missed": self.missed,
            "coarseness_mean": round(self._sum / max(1, self._frames), 2),
            "coarseness_max": self._coarsest,
            "coarsest": self._top,
        }

    def _that_fits(self, symbols: NDArray[np.uint8], level: int, most: int) -> int:
        """The least coarseness from `level` on at which a packet has at most `most` bytes; the coarsest always has."""
        low, high, tried = level, self._top, level
        while low < high:
            trial = symbols.copy()
            self._apply(trial, tried)
            low, high = (low, tried) if self._size(trial) <= most else (tried + 1, high)
            tried = (low + high) // 2
        if low > level:
            self._level = float(low)
        return low

    def _size(self, symbols: NDArray[np.uint8]) -> int:
        with self._trying:
            return len(self._trial.encode(symbols, 0, 0))

    def _apply(self, symbols: NDArray[np.uint8], level: int) -> None:
        others = max(1, len(self._offsets) - 1)
        for c, offset in enumerate(self._offsets):
            lost = _EVERYTHING if level == self._top else (level + c - 1) // others if c else 0
            if lost:
                table = np.arange(256, dtype=np.uint8)
                table[max(0, offset - lost) : offset + lost + 1] = offset
                symbols[c] = table[symbols[c]]


__all__ = ["RateControl"]
