"""What a node says of itself: every level with its reason, figures over the last five seconds."""

from __future__ import annotations

from typing import Any

import pytest

from percodec.runtime.messages.topic_source import Arrivals
from percodec.runtime.messages.topic_status import ERROR, OK, STALE, WARN, Input, Recent, Snapshot, TopicStatus
from percodec.runtime.pipeline.records import Counts

S = 1_000_000_000


def _snapshot(seconds: float, came: int, **words: Any) -> Snapshot:
    now = 100 * S + int(seconds * S)
    arrivals = Arrivals(arrived=came, last_ns=now if came else 0)
    return Snapshot(
        "active", now, 100 * S, Counts(captured=came, predicted=came, coded=came), arrivals, **{"input": Input("/image"), **words}
    )


def test_results_come() -> None:
    status = TopicStatus()
    for second in range(8):
        report = status.report(_snapshot(second, 25 * second))
    assert (report.level, report.message) == (OK, "25.0 results a second")
    assert (report.values["input_fps"], report.values["output_fps"]) == ("25.0", "25.0")
    assert report.values["lost_by_middleware"] == "0"
    assert "lost_packets" not in report.values


def test_nothing_comes() -> None:
    report = TopicStatus().report(_snapshot(3.2, 0, input=Input("/image", publishers=1)))
    assert (report.level, report.message) == (STALE, "nothing on /image for 3 s; 1 publishers")
    assert TopicStatus().report(_snapshot(1.5, 0)).level == OK, "it has just begun"


def test_not_active_is_no_trouble_and_a_fault_is_an_error() -> None:
    idle = Snapshot("inactive", 5 * S)
    assert TopicStatus().report(idle).message == "inactive: waits to be activated"
    broken = Snapshot("unconfigured", 5 * S, faults=("cannot be configured: no such folder",))
    assert TopicStatus().report(broken).level == ERROR
    mismatch = _snapshot(1, 10, input=Input("/image", mismatch="a publisher offers best_effort"))
    assert TopicStatus().report(mismatch).level == ERROR


@pytest.mark.parametrize(
    ("lost", "level", "hint"), [(0, OK, False), (1, OK, False), (2, WARN, False), (150, WARN, True)], ids=["none", "1 %", "2 %", "most"]
)
def test_losses_are_a_share_of_what_was_sent_and_most_of_it_gets_a_hint(lost: int, level: int, hint: bool) -> None:
    told = Input("/image", "best_effort", 1, lost, 2_764_800)
    report = TopicStatus().report(_snapshot(1, 100, input=told))
    assert report.level == level
    assert ("sends 2.8 MB; let it offer reliable" in report.message) == hint
    assert report.values["lost_by_middleware"] == str(lost)


def test_a_loss_of_long_ago_is_no_worry_now() -> None:
    status = TopicStatus()
    status.report(_snapshot(1, 100, lost_packets=3))
    levels = [status.report(_snapshot(second, 100 * second, lost_packets=3)).level for second in (2, 9, 10)]
    assert levels == [WARN, OK, OK]


def test_what_is_no_picture_and_what_cannot_be_used() -> None:
    snapshot = _snapshot(1, 10)
    snapshot.arrivals.refused, snapshot.arrivals.why = 2, "depth"
    snapshot.invalid = "too old"
    report = TopicStatus().report(snapshot)
    assert report.level == WARN
    assert report.message == "2 messages on /image were refused: depth; predictions cannot be used: too old"


def test_figures() -> None:
    status = TopicStatus()
    for value in range(1, 101):
        status.latency_ms.add(float(value))
        status.packet_bytes.add(8000.0)
    report = status.report(_snapshot(1, 10, pixels=480 * 360, about={"backend": "ort"}))
    assert report.values["receive_to_result_ms_p50"] == "50.0"
    assert report.values["receive_to_result_ms_p99"] == "99.0"
    assert report.values["bpp"] == "0.3704"
    assert report.values["backend"] == "ort"
    assert Recent().percentile(50) is None
    assert Recent().mean is None


def test_a_second_life_counts_from_zero() -> None:
    status = TopicStatus()
    status.report(_snapshot(4, 400))
    again = _snapshot(10, 5)
    again.since_ns = 109 * S
    report = status.report(again)
    assert report.values["input_fps"] == "5.0"
