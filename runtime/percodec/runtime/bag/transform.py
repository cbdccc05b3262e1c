"""One bag into another: some topics through a `Step`, several messages at a time; everything else as it is, all in the order it had."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from percodec.runtime.bag.open import Bag
from percodec.runtime.bag.records import Message, Progress, Record
from percodec.runtime.bag.write import BagWriter
from percodec.sdk.errors import MessageError, PacketError, PercodecError, SourceError, UsageError

_WAITING_BYTES = 256 << 20  # of messages read and not yet written


class Step(Protocol):
    """What is done with the messages of one topic."""

    def begin(self, message: Message) -> Callable[[], Any]:
        """In the bag's order, one at a time; what it returns runs in a thread of its own. Raises `MessageError`, `PacketError`."""

    def end(self, message: Message, result: Any) -> Iterable[Message]:
        """In the bag's order, one at a time: what is written in the message's place. Raises as `begin`."""


@dataclass
class Outcome:
    """`refused`: messages that a step could not take, by topic, kept as they were; `reasons`: the first of each. `damage`: of the input."""

    messages: int = 0
    written: int = 0
    read_bytes: int = 0  # of the topics that went through steps
    made_bytes: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


def transform(bag: Bag, out: BagWriter, steps: Mapping[str, Step], workers: int, progress: Progress = lambda done, of: None) -> Outcome:
    """Every record of `bag` into `out`, messages of the topics in `steps` through them. `workers`: messages at the same time.

    What is written does not depend on `workers`. A message that its step refuses is written as it is, and counted. Raises `BagError`.
    """
    outcome, waiting, held = Outcome(), deque[tuple[Record, Future[Any] | PercodecError | None]](), 0
    with ThreadPoolExecutor(workers, "percodec-bag") as pool:
        try:
            for record in bag.records(progress):
                waiting.append((record, _begun(record, steps, pool)))
                held += _size(record)
                while waiting and (_done(waiting[0][1]) or len(waiting) > 64 * workers or held > _WAITING_BYTES or _busy(waiting, workers)):
                    held -= _size(waiting[0][0])
                    _write(out, steps, outcome, *waiting.popleft())
            while waiting:
                _write(out, steps, outcome, *waiting.popleft())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    outcome.damage = list(bag.damage)
    return outcome


def _begun(record: Record, steps: Mapping[str, Step], pool: ThreadPoolExecutor) -> Future[Any] | PercodecError | None:
    if not isinstance(record, Message) or record.channel.topic not in steps:
        return None
    try:
        return pool.submit(steps[record.channel.topic].begin(record))
    except (MessageError, PacketError) as error:
        return error


def _done(work: Future[Any] | PercodecError | None) -> bool:
    return not isinstance(work, Future) or work.done()


def _busy(waiting: deque[tuple[Record, Any]], workers: int) -> bool:
    """Enough is under way that reading on would only fill memory."""
    return sum(isinstance(work, Future) for _, work in waiting) > 2 * workers


def _size(record: Record) -> int:
    return len(getattr(record, "data", b""))


def _write(out: BagWriter, steps: Mapping[str, Step], outcome: Outcome, record: Record, work: Future[Any] | PercodecError | None) -> None:
    if not isinstance(record, Message):
        out.add(record)
        return
    outcome.messages += 1
    made: Iterable[Message] = (record,)
    if work is not None:
        outcome.read_bytes += len(record.data)
        try:
            if isinstance(work, PercodecError):
                raise work
            made = list(steps[record.channel.topic].end(record, work.result()))
        except (MessageError, PacketError, SourceError, UsageError) as error:
            topic = record.channel.topic
            outcome.refused[topic] = outcome.refused.get(topic, 0) + 1
            outcome.reasons.setdefault(topic, str(error))
        outcome.made_bytes += sum(len(message.data) for message in made)
    for message in made:
        out.add(message)
        outcome.written += 1


__all__ = ["Outcome", "Step", "transform"]
