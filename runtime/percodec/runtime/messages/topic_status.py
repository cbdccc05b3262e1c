"""What a node says of itself once a second: one level, one line, and the figures behind it, for `diagnostic_msgs/DiagnosticStatus`.

| level | when                                                                                                       |
|-------|------------------------------------------------------------------------------------------------------------|
| OK    | results come                                                                                               |
| WARN  | more than 1 % of what was sent is lost, predictions cannot be used, messages are no pictures, or it says so |
| ERROR | a fault, a setting that cannot work, or a topic whose two sides do not fit together                         |
| STALE | nothing has come for two seconds                                                                           |
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from percodec.runtime.messages.topic_source import Arrivals
from percodec.runtime.pipeline.records import Counts

OK, WARN, ERROR, STALE = range(4)
SILENT_S = 2.0
LOST_SHARE = 0.01
WINDOW_S = 5.0  # rates and shares are of the last five seconds


class Recent:
    """The last few of a figure: `add` from one thread, the rest from any."""

    def __init__(self, count: int = 256) -> None:
        self._values: deque[float] = deque(maxlen=count)

    def add(self, value: float) -> None:
        """One more."""
        self._values.append(value)

    def percentile(self, percent: int) -> float | None:
        """1..99, by nearest rank; None without values."""
        values = sorted(self._values.copy())
        return values[max(0, -(-percent * len(values) // 100) - 1)] if values else None

    @property
    def mean(self) -> float | None:
        """None without values."""
        values = self._values.copy()
        return statistics.fmean(values) if values else None


@dataclass
class Input:
    """The topic a node lives on. `lost`: messages the middleware says it lost. `mismatch`: why its two sides do not fit, "" if they do."""

    topic: str = ""
    reliability: str = ""
    publishers: int = 0
    lost: int = 0
    message_bytes: int = 0
    mismatch: str = ""


@dataclass
class Snapshot:
    """One instant. `since_ns`: when the node became active, monotonic; 0 while it is not. `lost_packets`: gaps of the packets' counter.

    `faults` make it ERROR, `worries` WARN. `pixels`: of a frame. `about`: further figures as they are.
    """

    state: str
    now_ns: int
    since_ns: int = 0
    counts: Counts = field(default_factory=Counts)
    arrivals: Arrivals = field(default_factory=Arrivals)
    superseded: int = 0
    input: Input = field(default_factory=Input)
    lost_packets: int | None = None
    faults: tuple[str, ...] = ()
    worries: tuple[str, ...] = ()
    invalid: str = ""
    pixels: int = 0
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What goes into the status message."""

    level: int
    message: str
    values: dict[str, str]


class TopicStatus:
    """Keeps what the next report is compared with. One thread; `latency_ms` and `packet_bytes` may be added to from another."""

    def __init__(self) -> None:
        self.latency_ms, self.packet_bytes = Recent(), Recent()
        self._marks: deque[tuple[int, int, int, int, int, int, int]] = deque()

    def report(self, now: Snapshot) -> Report:
        """Of this instant and the five seconds before it."""
        input_fps, output_fps, lost, came, refused, packets = self._moved(now)
        counts, arrivals = now.counts, now.arrivals
        dropped = counts.dropped
        values: dict[str, object] = {
            "state": now.state,
            "input": now.input.topic,
            "input_reliability": now.input.reliability,
            "publishers": now.input.publishers,
            "input_fps": f"{input_fps:.1f}",
            "output_fps": f"{output_fps:.1f}",
            "captured": counts.captured,
            "predicted": counts.predicted,
            "invalid": counts.invalid,
            "unfamiliar": counts.unfamiliar,
            "dropped_superseded": dropped.get("superseded", 0) + now.superseded,
            "dropped_no_slot": dropped.get("no_slot", 0),
            "dropped_engine": dropped.get("engine", 0),
            "dropped_too_old": arrivals.stale,
            "throttled": arrivals.throttled,
            "refused": arrivals.refused,
            "lost_by_middleware": now.input.lost,
            **({} if now.lost_packets is None else {"lost_packets": now.lost_packets}),
            "receive_to_result_ms_p50": _ms(self.latency_ms.percentile(50)),
            "receive_to_result_ms_p99": _ms(self.latency_ms.percentile(99)),
            "stamp_age_ms": _ms(arrivals.stamp_age_ms) if arrivals.last_ns else "",
        }
        if (size := self.packet_bytes.mean) is not None:
            values |= {"packet_bytes_mean": f"{size:.0f}", "bpp": f"{8 * size / max(1, now.pixels):.4f}"}
        level, message = self._judged(now, lost / max(1, lost + came), lost, refused, packets, output_fps)
        return Report(level, message, {name: str(value) for name, value in values.items()} | now.about)

    def _judged(self, now: Snapshot, share: float, lost: int, refused: int, packets: int, fps: float) -> tuple[int, str]:
        faults = [*now.faults, *([now.input.mismatch] if now.input.mismatch else [])]
        if faults:
            return ERROR, "; ".join(faults)
        if not now.since_ns:
            return OK, f"{now.state}: waits to be activated"
        silent_s = (now.now_ns - max(now.since_ns, now.arrivals.last_ns)) / 1e9
        worries = list(now.worries)
        if share > LOST_SHARE:
            worries.append(f"{100 * share:.0f} % of the messages on {now.input.topic} are lost by the middleware{_hint(now.input, share)}")
        if packets:
            worries.append(f"{packets} packets were lost on the way")
        if refused:
            worries.append(f"{refused} messages on {now.input.topic} were refused: {now.arrivals.why}")
        if now.invalid:
            worries.append(f"predictions cannot be used: {now.invalid}")
        if worries:
            return WARN, "; ".join(worries)
        if silent_s > SILENT_S:
            whose = f"; {now.input.publishers} publishers" if now.input.topic else ""
            return STALE, f"nothing on {now.input.topic or 'the camera'} for {silent_s:.0f} s{whose}"
        return OK, f"{fps:.1f} results a second"

    def _moved(self, now: Snapshot) -> tuple[float, float, int, int, int, int]:
        """Input and output a second; messages lost, come, refused, and packets lost, all of the window."""
        results = max(now.counts.predicted, now.counts.coded)
        mark = (
            now.now_ns, now.arrivals.arrived, results, now.input.lost, now.arrivals.refused, now.lost_packets or 0, now.since_ns,
        )  # fmt: skip
        if self._marks and self._marks[-1][-1] != now.since_ns:
            self._marks.clear()  # counted from zero again
        if not self._marks and now.since_ns:
            self._marks.append((now.since_ns, 0, 0, 0, 0, 0, now.since_ns))
        self._marks.append(mark)
        while len(self._marks) > 2 and now.now_ns - self._marks[0][0] > WINDOW_S * 1e9:
            self._marks.popleft()
        seconds, came, done, lost, refused, packets, _ = (b - a for a, b in zip(self._marks[0], mark, strict=True))
        rate = 1e9 / seconds if seconds else 0.0
        return came * rate, done * rate, lost, came, refused, packets


def _hint(topic: Input, share: float) -> str:
    if share <= 0.5 or topic.reliability != "best_effort":
        return ""
    size = f" and sends {topic.message_bytes / 1e6:.1f} MB" if topic.message_bytes else ""  # as long as one has arrived
    return (
        f": the camera offers best effort{size}; let it offer reliable, or use the node `camera`, "
        "or FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA with reliable"
    )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


__all__ = ["ERROR", "LOST_SHARE", "OK", "SILENT_S", "STALE", "WARN", "Input", "Recent", "Report", "Snapshot", "TopicStatus"]
