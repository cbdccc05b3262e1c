"""`Feed`: packets that vehicles send to the uplink's broker, predicted as they come. Any number of servers may share the work.

    pk.VEHICLE.log --PK_LOG--> ingest                                     the archive, unhindered
          \\--told again--> pk.VEHICLE.live --PK_LIVE--> Feed --> pk.VEHICLE.predicted --PK_PREDICTED--> whoever asks

A message is acknowledged after the broker has its predictions. What dies in between comes again and gives the same bytes, under the same
message id, so the broker leaves out what it has. What no server could answer is refused in the end: one message never stops the others.
SERVE.md says what is in them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from percodec.runtime.serve.engine import Engine
from percodec.runtime.serve.http_tensors import in_json
from percodec.runtime.serve.models import Model
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import Limits, Wanted, Work
from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.link import Unreachable, predicted_subject
from percodec.runtime.uplink.nats_link import open_nats
from percodec.runtime.uplink.nats_live import live_consumer
from percodec.runtime.uplink.wire import MAX_MESSAGE_BYTES, Message, Record, unpacked
from percodec.sdk.codec import parse_header
from percodec.sdk.errors import PacketError, UplinkError

GROUP = 32  # messages taken at once; one has the cameras of a moment
TRIES = 5  # times that a message comes which the servers fail at
_HEADERS_BYTES = 1024  # of a message, which its broker counts as well
_LOG = logging.getLogger("percodec.serve")
_WAIT_S, _BUSY_S = 0.25, 0.05
_RETRY_S = (0.2, 5.0)


@dataclass
class FeedCounts:
    """Since the feed began. `refused`: packets without a prediction, which the answer names."""

    messages: int = 0
    frames: int = 0
    refused: int = 0


class Feed:
    """`models` by name, with the outputs of each that are published. `answers_to`: whether a model reads logs of a digest."""

    def __init__(
        self, engine: Engine, limits: Limits, wanted: Mapping[str, tuple[Wanted, ...]], answers_to: Callable[[str], str | None]
    ) -> None:
        self.counts = FeedCounts()
        self._engine, self._limits, self._wanted, self._answers_to = engine, limits, wanted, answers_to
        self._most_bytes = MAX_MESSAGE_BYTES

    async def run(self, url: str, credentials: Credentials | None, stop: asyncio.Event, tell: Callable[[str], None]) -> None:
        """Until `stop`. `tell` gets what is wrong, "" when all is well. Raises `UplinkError` where the broker refuses at the first time."""
        pause, known = _RETRY_S[0], False
        while not stop.is_set():
            lost, said = asyncio.Event(), []  # type: ignore[var-annotated]
            connection = None
            try:
                connection = await open_nats(url, credentials, "percodec serve", "_INBOX.predict", lost.set, said)
                pull = await live_consumer(connection, url, said)
                known, pause = True, _RETRY_S[0]
                tell("")
                await self._serve(connection, pull, lost, stop)
            except (Unreachable, UplinkError) as error:
                if not known and isinstance(error, UplinkError):
                    raise
                tell(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_S[1])
            finally:
                if connection is not None and not connection.is_closed:
                    await connection.close()

    async def _serve(self, connection: Any, pull: Any, lost: asyncio.Event, stop: asyncio.Event) -> None:
        import nats.errors
        import nats.js.errors

        context = connection.jetstream(timeout=10)
        self._most_bytes = min(MAX_MESSAGE_BYTES, connection.max_payload - _HEADERS_BYTES)
        try:
            while not (lost.is_set() or stop.is_set()):
                try:
                    group = await pull.fetch(GROUP, timeout=_WAIT_S)
                except (nats.errors.TimeoutError, asyncio.TimeoutError):
                    continue
                await asyncio.gather(*(self._answer(context, message) for message in group))
        except (nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError) as error:
            raise Unreachable(f"the connection to the broker broke ({error or type(error).__name__})") from error

    async def _answer(self, context: Any, message: Any) -> None:
        import nats.errors
        import nats.js.errors

        vehicle = message.subject.split(".")[1]
        name = hashlib.sha256(vehicle.encode() + b"\0" + message.data).hexdigest()[:32]

        async def publish(body: bytes, place: object) -> None:
            await context.publish(predicted_subject(vehicle), body, headers={"Nats-Msg-Id": f"{name}-{place}"})

        place, trouble = 0, None
        try:
            async for body in self.predictions(message.data):
                await publish(body, place)
                await message.in_progress()  # of a long one, so that no other server takes it meanwhile
                place += 1
        except Refusal as refusal:
            trouble = str(refusal)
        except (nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError):
            raise
        except Exception:
            _LOG.exception("a message of %s", vehicle)
            trouble = "the server failed; its log says why"
        if trouble is not None:  # the server's fault, so far as anybody knows
            tries = message.metadata.num_delivered
            _LOG.warning("a message of %s is not answered, for the %d. time: %s", vehicle, tries, trouble)
            if tries < TRIES:
                return  # it comes again
            self.counts.refused += 1
            await publish(_refused(f"servers failed at it {tries} times: {trouble}"), "refused")
        await message.ack()
        self.counts.messages += 1

    async def predictions(self, data: bytes) -> AsyncIterator[bytes]:
        """What is published for a message of a vehicle: the same for the same bytes. None for a message without records.

        Raises `Refusal` where the server could not do it.
        """
        try:
            message = unpacked(data)
        except UplinkError as error:
            self.counts.refused += 1
            yield _refused(str(error))
            return
        for part in _parts(message, self._limits.packets):
            yield await self._part(message, part)

    async def _part(self, message: Message, records: Sequence[Record]) -> bytes:
        answer: dict[str, Any] = {"records": [], "refused": []}
        digest = str(message.segments[records[0].segment].get("bundle_digest", ""))
        name = self._answers_to(digest)
        if name is None:
            answer["refused"] = [
                _place(message, one) | {"reason": f"no model here reads packets of bundle {digest[:12]}"} for one in records
            ]
        else:
            model = self._engine.models[name]
            answer |= {"model": name, "version": model.version, "digest": model.digest}
            good = await self._readable(message, model, records, answer["refused"])
            if good:
                tensors = await self._patiently(Work(model, tuple(one.packet for one in good), self._wanted[name]))
                answer["records"] = [_place(message, one) for one in good]
                answer["outputs"] = [in_json(tensor) for tensor in tensors]
        body = json.dumps(answer).encode()
        if len(body) > self._most_bytes:
            reason = f"the predictions of {len(answer['records'])} packets take {len(body)} bytes, more than a message may have"
            answer = {key: value for key, value in answer.items() if key != "outputs"}
            body = json.dumps(answer | {"records": [], "refused": [one | {"reason": reason} for one in answer["records"]]}).encode()
        self.counts.frames += len(answer["records"])
        self.counts.refused += len(answer["refused"])
        return body

    async def _readable(self, message: Message, model: Model, records: Sequence[Record], refused: list[dict[str, Any]]) -> list[Record]:
        """Those that can be decoded after one another; one that cannot does not cost the others theirs."""
        only = (Wanted("frame_id", "raw"),)
        good: list[Record] = []
        for one in records:  # what is plainly none costs no worker anything
            try:
                _check_plainly(model, one.packet)
                good.append(one)
            except PacketError as error:
                refused.append(_place(message, one) | {"reason": str(error)})
        while good:
            try:
                await self._patiently(Work(model, tuple(one.packet for one in good), only))
                break
            except Refusal as refusal:
                if refusal.why is not Why.INVALID:
                    raise
                place, _, reason = str(refusal).removeprefix("packet ").partition(": ")
                refused.append(_place(message, good.pop(int(place))) | {"reason": reason})
        return good

    async def _patiently(self, work: Work) -> list[Any]:
        while True:
            try:
                return await self._engine.answer(work, self._limits.timeout_s)
            except Refusal as refusal:
                if refusal.why is not Why.BUSY:
                    raise
                await asyncio.sleep(_BUSY_S)


def _parts(message: Message, most: int) -> list[list[Record]]:
    """Records of one bundle each, in order, at most `most`."""
    by_bundle: dict[str, list[Record]] = {}
    for record in message.records:
        by_bundle.setdefault(str(message.segments[record.segment].get("bundle_digest", "")), []).append(record)
    return [records[k : k + most] for records in by_bundle.values() for k in range(0, len(records), most)]


def _check_plainly(model: Model, packet: bytes) -> None:
    """Raises `PacketError`."""
    if len(packet) > model.max_packet_bytes:
        raise PacketError(f"has {len(packet)} bytes; one of {model.name} has at most {model.max_packet_bytes}")
    parse_header(packet)


def _refused(reason: str) -> bytes:
    """Of a whole message."""
    return json.dumps({"refused": [{"reason": reason}]}).encode()


def _place(message: Message, record: Record) -> dict[str, Any]:
    segment = message.segment_id(record)
    return {"recording": segment.recording, "segment": segment.number, "sequence": record.sequence}


__all__ = ["GROUP", "TRIES", "Feed", "FeedCounts"]
