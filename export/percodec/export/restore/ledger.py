"""`Ledger`: which files a mirrored set has and what became of each, on disk: the driver's memory does not grow with them.

journal of earlier runs + files of the source --> ledger --in order, in parts--> workers --> ledger --in order--> the finished journal
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PART, PARTS = 256, 4096  # files of a part at most; parts of a set, before they grow


@dataclass(frozen=True)
class Record:
    """One finished file: `digest` is the source file's sha256; `bpp` is None for what was copied."""

    file: str
    digest: str
    stored: str
    bpp: float | None

    def line(self) -> str:
        return json.dumps({"file": self.file, "sha256": self.digest, "stored": self.stored, "bpp": self.bpp}) + "\n"

    @classmethod
    def of(cls, line: str) -> Record:
        """Raises ValueError, KeyError or TypeError for what is no line of a record."""
        found = json.loads(line)
        return cls(found["file"], found["sha256"], found["stored"], found["bpp"])


class Ledger:
    """In a temporary file, for as long as it is open. Names are in the order of their code points."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="percodec-")
        self._base = sqlite3.connect(Path(self._folder.name) / "ledger")
        self._base.execute("PRAGMA journal_mode = OFF")
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("PRAGMA temp_store = FILE")
        self._base.execute("CREATE TABLE files (name BLOB PRIMARY KEY, there INTEGER, record TEXT, stored BLOB) WITHOUT ROWID")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._base.close()
        self._folder.cleanup()

    def __len__(self) -> int:
        """Files of the source."""
        return int(self._one("SELECT count(*) FROM files WHERE there")[0])

    def enter(self, record: Record) -> bool:
        """What became of a file, now or in an earlier run. Returns whether that is new."""
        done = self._base.execute(
            "INSERT INTO files VALUES (?, 0, ?, ?) ON CONFLICT (name) DO UPDATE SET record = excluded.record, stored = excluded.stored "
            "WHERE record IS NOT excluded.record",
            (_bytes(record.file), record.line(), _bytes(record.stored)),
        )
        return done.rowcount > 0

    def find(self, files: Iterable[str]) -> None:
        """Files that the source has."""
        self._base.executemany(
            "INSERT INTO files VALUES (?, 1, NULL, NULL) ON CONFLICT (name) DO UPDATE SET there = 1", ((_bytes(file),) for file in files)
        )

    def gone(self) -> Record | None:
        """The first that an earlier run has done and the source has no more."""
        found = self._one("SELECT record FROM files WHERE NOT there ORDER BY name LIMIT 1")
        return None if found is None else Record.of(found[0])

    def twice(self) -> tuple[Record, Record] | None:
        """Two files that are stored under one name."""
        found = self._one("SELECT stored FROM files GROUP BY stored HAVING count(*) > 1 LIMIT 1")
        if found is None:
            return None
        first, second = self._base.execute("SELECT record FROM files WHERE stored = ? ORDER BY name LIMIT 2", found)
        return Record.of(first[0]), Record.of(second[0])

    def records(self) -> Iterator[Record]:
        for (line,) in self._base.execute("SELECT record FROM files ORDER BY name"):
            yield Record.of(line)

    def write_parts(self, path: Path) -> list[tuple[int, int]]:
        """Every file of the source with its record, a line each, and where in `path` the parts begin and how many lines they have."""
        size = min(max(1, len(self) // PARTS), PART)
        parts: list[tuple[int, int]] = []
        with path.open("wb") as out:
            for number, (name, line) in enumerate(self._base.execute("SELECT name, record FROM files WHERE there ORDER BY name")):
                if number % size == 0:
                    parts.append((out.tell(), 0))
                parts[-1] = (parts[-1][0], parts[-1][1] + 1)
                out.write(json.dumps([_text(name), line]).encode() + b"\n")
        return parts

    def _one(self, query: str) -> Any:
        return self._base.execute(query).fetchone()


def part_of(path: Path, offset: int, count: int) -> Iterator[tuple[str, Record | None]]:
    """What `Ledger.write_parts` wrote of one part."""
    with path.open("rb") as lines:
        lines.seek(offset)
        for _ in range(count):
            file, line = json.loads(lines.readline())
            yield file, None if line is None else Record.of(line)


def _bytes(name: str) -> bytes:
    """In the order of code points; a name of no encoding has halves of surrogates."""
    return name.encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


__all__ = ["PART", "PARTS", "Ledger", "Record", "part_of"]
