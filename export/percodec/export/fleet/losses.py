"""What was not read, by kind: counted, and the first few in words. Nothing a reader leaves out is silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 10
KINDS = {
    "damaged": "records that fail a check",
    "missing": "records that are not there although their neighbours are",
    "lost": "predicted packets whose predecessor is missing, up to the next key packet",
    "repeated": "packets that came twice or too late",
    "refused": "packets that do not decode",
    "cut": "logs that were cut off (a killed writer); what they hold was read",
}


@dataclass
class Losses:
    """`counts` by the kinds of `KINDS`; `said`: the first `SHOWN`, in words."""

    counts: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def add(self, kind: str, count: int, words: str) -> None:
        if count:
            self.counts[kind] += count
            if len(self.said) < SHOWN:
                self.said.append(words)

    def merge(self, other: Losses) -> None:
        self.counts.update(other.counts)
        self.said = (self.said + other.said)[:SHOWN]

    def taken(self) -> Losses:
        """What there is, as an object of its own; here nothing is left."""
        found = Losses(Counter(self.counts), list(self.said))
        self.counts.clear()
        self.said.clear()
        return found

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        """One line; "" where nothing was lost."""
        counts = ", ".join(f"{count} {kind} ({KINDS[kind]})" for kind, count in sorted(self.counts.items()))
        return f"{counts}; first: {self.said[0]}" if self.said else counts


__all__ = ["KINDS", "SHOWN", "Losses"]
