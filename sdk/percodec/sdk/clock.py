"""`ClockAnchor`: one moment on two clocks. With one or more of them a time of the monotonic clock becomes a time of day.

The monotonic clock never goes back, counts from the start of the machine, and means nothing elsewhere. The machine's clock of the day is
what other recordings share; it is as right as whatever sets it, and may jump when it is set.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_TRIES = 8


@dataclass(frozen=True)
class ClockAnchor:
    """`monotonic_ns` (CLOCK_MONOTONIC) and `utc_ns` (CLOCK_REALTIME, since 1970) of the same moment."""

    monotonic_ns: int
    utc_ns: int

    @classmethod
    def now(cls) -> ClockAnchor:
        """Both clocks read together: the tightest of a few tries, so that a thread switch in between does no harm."""
        tries = []
        for _ in range(_TRIES):
            before, utc_ns, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
            tries.append((after - before, before, utc_ns))
        apart, before, utc_ns = min(tries)
        return cls(before + apart // 2, utc_ns)

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> ClockAnchor | None:
        """The anchor in a log's metadata; None where there is none that can be read."""
        try:
            anchor = cls(int(texts["monotonic_ns"]), int(texts["utc_ns"]))
        except (KeyError, ValueError):
            return None
        return anchor if all(0 <= ns < 1 << 64 for ns in (anchor.monotonic_ns, anchor.utc_ns)) else None

    def as_dict(self) -> dict[str, int]:
        """JSON form."""
        return asdict(self)


def boot_id() -> str:
    """Which start of this machine its monotonic clock counts from: 32 hexadecimal digits, "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")
    except (OSError, ValueError):
        return ""


def utc_ns_from_monotonic(timestamp_ns: int, anchors: Sequence[ClockAnchor]) -> int:
    """The time of day at `timestamp_ns` of the monotonic clock, in ns since 1970. `anchors`: one or more, in order of time.

    Between two anchors what they are apart is interpolated; before the first and after the last, that one holds.
    """
    offsets = [(a.monotonic_ns, a.utc_ns - a.monotonic_ns) for a in anchors]
    for (begin, first), (end, last) in itertools.pairwise(offsets):
        if begin <= timestamp_ns < end:
            return timestamp_ns + first + (last - first) * (timestamp_ns - begin) // (end - begin)
    return timestamp_ns + (offsets[0] if timestamp_ns < offsets[0][0] else offsets[-1])[1]


__all__ = ["ClockAnchor", "boot_id", "utc_ns_from_monotonic"]
