"""`Ledger`: what of each segment was sent and what is stored, on the vehicle's disk; after a crash it is at most a second old.

    SOURCE_DIR/.uplink/ledger.json      written beside, synced, renamed

"Sent" means that the broker acknowledged it, which proves nothing. "Stored" means that the archive has it on its own disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from percodec.runtime.uplink.ranges import RecordSet
from percodec.runtime.uplink.wire import SegmentId
from percodec.sdk.errors import UplinkError

FOLDER = ".uplink"
_VERSION = 1


@dataclass
class Entry:
    """One segment. `count`: records found in it."""

    sent: RecordSet = field(default_factory=RecordSet)
    stored: RecordSet = field(default_factory=RecordSet)
    count: int = 0


@dataclass
class Totals:
    """Records of segments that are no longer here, and what happened to all. `discarded`: deleted without being stored."""

    stored: int = 0
    discarded: int = 0
    resent: int = 0


class Ledger:
    """Has the folder for itself as long as it is open. Raises `UplinkError`."""

    def __init__(self, source: Path) -> None:
        self.folder = source / FOLDER
        self.note = ""
        self.totals, self.entries = Totals(), {}
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UplinkError(f"{source}: another uplink works here; end it first") from error
        except OSError as error:
            raise UplinkError(f"{self.folder}: cannot be written ({error.strerror}); the uplink keeps its ledger there") from error
        path = self.folder / "ledger.json"
        try:
            self.totals, self.entries = _read(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.note = f"{path} could not be read ({error}); what is stored is asked from the archive"
            with contextlib.suppress(OSError):
                os.replace(path, path.with_suffix(".damaged"))

    entries: dict[SegmentId, Entry]

    def entry(self, segment: SegmentId) -> Entry:
        """Of a segment, made where there is none."""
        return self.entries.setdefault(segment, Entry())

    def forget(self, segment: SegmentId) -> int:
        """The segment is gone; what of it was not stored counts as discarded. Returns how many records that is."""
        entry = self.entries.pop(segment)
        lost = max(0, entry.count - entry.stored.count)
        self.totals.stored += entry.stored.count
        self.totals.discarded += lost
        return lost

    def packed(self) -> bytes:
        """What `save` writes, as it is now."""
        entries = {str(k): {"sent": e.sent.ranges, "stored": e.stored.ranges, "count": e.count} for k, e in self.entries.items()}
        return json.dumps({"version": _VERSION, "totals": vars(self.totals), "segments": entries}).encode()

    def save(self, data: bytes) -> None:
        """Raises OSError."""
        _replace(self.folder / "ledger.json", data, sync=True)

    def publish(self, status: dict[str, Any]) -> None:
        """Write status.json, for whoever watches. A disk that refuses it is no reason to stop."""
        with contextlib.suppress(OSError):
            _replace(self.folder / "status.json", json.dumps(status, indent=1).encode() + b"\n", sync=False)

    def close(self) -> None:
        os.close(self._lock)


def _read(data: bytes) -> tuple[Totals, dict[SegmentId, Entry]]:
    head = json.loads(data)
    if head["version"] != _VERSION:
        raise ValueError(f"version {head['version']}")
    entries = {
        SegmentId.from_text(name): Entry(RecordSet(one["sent"]), RecordSet(one["stored"]), int(one["count"]))
        for name, one in head["segments"].items()
    }
    return Totals(**{key: int(value) for key, value in head["totals"].items()}), entries


def _replace(path: Path, data: bytes, sync: bool) -> None:
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(beside, path)


__all__ = ["FOLDER", "Entry", "Ledger", "Totals"]
