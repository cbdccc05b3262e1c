"""The ledger of a mirrored set: the order of its names, what is new in it, and that it takes no memory."""

from __future__ import annotations

import tracemalloc

import pytest

pytest.importorskip("PIL", reason="needs the export extra")

from percodec.export.restore.ledger import PART, PARTS, Ledger, Record, part_of

NAMES = ["a/b.png", "a-b.png", "a/B.png", "é.png", "\udcff.png", "\ue000.png", "\U0001f600.png", "z z.png", "a.png"]


def record(file: str, stored: str = "") -> Record:
    return Record(file, "0" * 64, stored or file, None)


def test_names_come_in_order_with_what_became_of_them(tmp_path):
    with Ledger() as ledger:
        assert ledger.enter(record(NAMES[0]))
        ledger.find(NAMES)
        assert len(ledger) == len(NAMES)
        assert ledger.gone() is None
        parts = ledger.write_parts(tmp_path / "parts")
        assert [count for _, count in parts] == [1] * len(NAMES)
        found = [one for part in parts for one in part_of(tmp_path / "parts", *part)]
        assert found == [(name, record(name) if name == NAMES[0] else None) for name in sorted(NAMES)]
        assert not ledger.enter(record(NAMES[0]))
        assert [ledger.enter(record(name)) for name in NAMES[1:]] == [True] * (len(NAMES) - 1)
        assert list(ledger.records()) == [record(name) for name in sorted(NAMES)]
        assert ledger.twice() is None
        assert ledger.enter(record("a.png", "z z.png"))
        assert ledger.twice() == (record("a.png", "z z.png"), record("z z.png"))
        ledger.enter(record("gone.png"))
        assert ledger.gone() == record("gone.png")


def test_ten_times_the_files_take_the_same_memory(tmp_path):
    def most(count: int) -> int:
        tracemalloc.start()
        with Ledger() as ledger:
            ledger.find(f"train/{k:08d}.png" for k in range(count))
            parts = ledger.write_parts(tmp_path / "parts")
            assert sum(number for _, number in parts) == count
            assert len(parts) <= max(2 * PARTS, count // PART + 1)
            for offset, number in parts:
                for file, _ in part_of(tmp_path / "parts", offset, number):
                    ledger.enter(record(file))
            assert sum(1 for _ in ledger.records()) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert most(3_000) < 1.5 * most(1_000) + 500_000  # a list of parts: 4,096 and few more
