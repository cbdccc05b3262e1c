"""Runs that somebody leaves: an exit in a callback, a Ctrl-C, a source that cannot be closed. None goes on, and none hangs."""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import HEIGHT, WIDTH

from percodec.runtime import Outputs, PipelineOptions, Session, open_source
from percodec.runtime.capture.source import FrameSource
from percodec.sdk.errors import PercodecError, SourceError


@pytest.fixture(scope="module")
def session(bundle_folder: Path) -> Iterator[Session]:
    with Session.open(bundle_folder, selftest=False) as opened:
        yield opened


def road(frames: int = 40, realtime: bool = False) -> FrameSource:
    return open_source(f"synthetic://road?frames={frames}", height=HEIGHT, width=WIDTH, realtime=realtime)


def ended(work: Callable[[], Any], seconds: float = 30) -> BaseException | None:
    """What the work raised, in a thread of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
    return raised[0] if raised else None


@pytest.mark.parametrize("policy", ["block", "latest"])
@pytest.mark.parametrize("callback", ["on_prediction", "on_packet", "on_record", "on_view"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_callback_ends_the_run(session: Session, callback: str, policy: str, error: type[BaseException]) -> None:
    called = []

    def leave(*arguments: object) -> None:
        called.append(arguments)
        if len(called) == 3:
            raise error("enough")

    pipeline = session.pipeline(road(), options=PipelineOptions(policy=policy), outputs=Outputs(**{callback: leave}))
    raised = ended(pipeline.run)
    assert isinstance(raised, PercodecError)
    assert f"stage failed: {error.__name__}" in str(raised)


def test_an_exit_in_a_source_is_no_end_of_it(session: Session) -> None:
    source = road()
    read, taken = source.read, []

    def leave() -> Any:
        taken.append(1)
        return read() if len(taken) < 4 else sys.exit("enough")

    source.read = leave  # type: ignore[method-assign]
    assert isinstance(ended(session.pipeline(source).run), SourceError)


def test_nothing_goes_on_after_ctrl_c(session: Session) -> None:
    predicted: list[int] = []

    def on_prediction(prediction: Any) -> None:
        predicted.append(prediction.frame_id)
        if len(predicted) == 5:
            _thread.interrupt_main()

    pipeline = session.pipeline(road(100_000, realtime=True), outputs=Outputs(on_prediction=on_prediction))
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("percodec-") and "capture" in thread.name]
    count = len(predicted)
    time.sleep(0.2)
    assert len(predicted) == count
    assert pipeline.counts.balanced


def test_the_error_of_a_source_is_not_hidden_by_its_closing(session: Session) -> None:
    source = road(4)
    source.close = lambda: (_ for _ in ()).throw(OSError(5, "ioctl failed"))  # type: ignore[method-assign]
    raised = ended(session.pipeline(source).run)
    assert isinstance(raised, SourceError)
    assert "ioctl failed" in str(raised)
    source.read = lambda: (_ for _ in ()).throw(SourceError("the cable is out"))  # type: ignore[method-assign]
    assert "the cable is out" in str(ended(session.pipeline(source).run))
