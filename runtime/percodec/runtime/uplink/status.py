"""What the agent says of itself: READY, or DEGRADED with its reasons, and the counts that must add up."""

from __future__ import annotations

import datetime
import time
from collections import deque
from typing import Any

from percodec.runtime.uplink.ledger import Ledger
from percodec.runtime.uplink.shelf import Shelf
from percodec.runtime.uplink.window import Window

READY, DEGRADED = "READY", "DEGRADED"
_PATIENCE_S = {"refused": 10.0, "link": 3.0}  # shorter troubles are none
_NEWS_S = 60.0


class Status:
    """found = stored + discarded + what is still here, at any time. `discards`: what was given up, in words, newest last."""

    def __init__(self, vehicle: str, url: str, max_bytes: int | None) -> None:
        self.vehicle, self.url, self.max_bytes = vehicle, url, max_bytes
        self.live_delays_s: deque[float] = deque(maxlen=2000)
        self.discards: deque[str] = deque(maxlen=100)
        self.sent_bytes = 0
        self.stored_s = 0.0
        self.updated_s = 0.0
        self.records: dict[str, int] = {}
        self.backlog_bytes = self.disk_bytes = 0
        self._window = Window()
        self._said: dict[str, tuple[float, str]] = {}
        self._segments = 0

    def say(self, what: str, why: str) -> None:
        """Something is wrong, until `unsay`."""
        since = self._said[what][0] if what in self._said else time.monotonic()
        self._said[what] = since, why

    def unsay(self, what: str) -> None:
        self._said.pop(what, None)

    def tell(self, what: str, why: str) -> None:
        """Wrong or, where `why` is empty, well again."""
        if why:
            self.say(what, why)
        else:
            self.unsay(what)

    @property
    def reasons(self) -> list[str]:
        now = time.monotonic()
        return [why for what, (since, why) in self._said.items() if now - since >= _PATIENCE_S.get(what, 0)]

    @property
    def state(self) -> str:
        return DEGRADED if self.reasons else READY

    def update(self, shelf: Shelf, window: Window, ledger: Ledger, under_way: int) -> None:
        """Take the counts as they are now."""
        entries, totals = ledger.entries.values(), ledger.totals
        here = sum(entry.count for entry in entries)
        stored = totals.stored + sum(entry.stored.count for entry in entries)
        claimed = sum(segment.claimed.count for segment in shelf.segments.values())
        sent = sum(entry.sent.count + len(entry.stored.without(entry.sent)) for entry in entries)
        self.records = {
            "found": here + totals.stored + totals.discarded,
            "sent": sent + totals.stored,
            "stored": stored,
            "resent": totals.resent,
            "discarded": totals.discarded,
            "under_way": under_way,
            "backlog": here - claimed,
        }
        self.backlog_bytes = sum(
            segment.tail.disk_bytes * (segment.tail.count - segment.claimed.count) // max(1, segment.tail.count)
            for segment in shelf.segments.values()
            if segment.claimed.count < segment.tail.count
        )
        self.disk_bytes = shelf.disk_bytes
        self._window, self._segments = window, len(shelf.segments)
        now = time.monotonic()
        self.updated_s = now
        self.tell("limit", f"the logs being written take {shelf.disk_bytes} bytes, more than --max-disk" if shelf.over else "")
        damaged = [segment for segment in shelf.segments.values() if segment.tail.damaged]
        self.tell("damaged", f"{damaged[0].tail.path}: {damaged[0].tail.damaged}; what follows is not sent" if damaged else "")
        whole = sorted(shelf.unsegmented)
        many = f" and {len(whole) - 1} more" if len(whole) > 1 else ""
        self.tell("unsegmented", f"{whole[0]}{many}: not in segments, and not sent; run with --log-segment" if whole else "")
        self.tell("note", ledger.note)
        waiting = sum(len(entry.sent.without(entry.stored)) for entry in entries)
        if not waiting:
            self.stored_s = now
        late = waiting and self.stored_s and now - self.stored_s > _NEWS_S
        self.tell("archive", f"{waiting} records are with the broker, and the archive says nothing: is ingest running?" if late else "")

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        delays = sorted(self.live_delays_s)
        return {
            "state": self.state,
            "reasons": self.reasons,
            "vehicle": self.vehicle,
            "to": self.url,
            "records": self.records,
            "sent_bytes": self.sent_bytes,
            "backlog_bytes": self.backlog_bytes,
            "disk_bytes": self.disk_bytes,
            "max_disk_bytes": self.max_bytes,
            "segments": self._segments,
            "window_bytes": int(self._window.bytes(self.updated_s)),
            "ack_ms": round(1e3 * self._window.rtt_s, 1),
            "live_ack_ms": {f"p{q}": round(1e3 * delays[min(len(delays) - 1, len(delays) * q // 100)], 1) for q in (50, 99)}
            if delays
            else None,
            "discards": list(self.discards),
            "updated_utc": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }


__all__ = ["DEGRADED", "READY", "Status"]
