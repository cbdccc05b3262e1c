"""Vehicles that send what they should not, over a real broker: each is told why, and the others have their predictions."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from percodec.runtime import Session
from percodec.runtime.serve import feed as feed_module
from percodec.runtime.serve.engine import ThreadEngine
from percodec.runtime.serve.feed import Feed
from percodec.runtime.serve.models import model_of
from percodec.runtime.serve.predictor import Opening, Tensor
from percodec.runtime.serve.requests import Asked, Limits, Work, wanted_of
from percodec.runtime.uplink import nats_live
from percodec.runtime.uplink.link import log_subject, predicted_subject
from percodec.runtime.uplink.loopback import LoopbackBroker
from percodec.runtime.uplink.wire import Message, Record, packed
from percodec.sdk import Bundle

pytest.importorskip("nats", reason="needs the uplink extra")
pytest.importorskip("cryptography", reason="needs the uplink extra")
LIMITS = Limits(packets=4, frames=16)
MAX_PAYLOAD = 100_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBroker]:
    """One that takes no large messages."""
    folder = tmp_path_factory.mktemp("broker")
    found = LoopbackBroker(folder, ["good", "bad"])
    found.close()
    text = (folder / "nats-server.conf").read_text()
    (folder / "nats-server.conf").write_text(text.replace("max_payload: 1MB", f"max_payload: {MAX_PAYLOAD}"))
    found.start()
    yield found
    found.close()


@pytest.fixture
def engine(session: Session) -> Iterator[ThreadEngine]:
    made = ThreadEngine({"rich": session.bundle}, {"rich": model_of("rich", session.bundle, ["all"])}, LIMITS, Opening(selftest=False))
    yield made
    asyncio.run(made.close())


def message_of(bundle: Bundle, packets: list[bytes], **changed: Any) -> bytes:
    head = {"recording": "0123456789abcdef", "segment": "2", "bundle_digest": bundle.digest, **changed}
    return packed(Message((head,), tuple(Record(0, k, 7, packet) for k, packet in enumerate(packets))))


def with_head(words: bytes, tail: bytes = b"") -> bytes:
    """A message whose JSON is `words`, with a checksum that is right."""
    head = zlib.compress(words, 9)
    body = struct.pack("<4sBI", b"PCUP", 1, len(head)) + head + tail
    return body + struct.pack("<I", zlib.crc32(body))


def hostile(bundle: Bundle, packets: list[bytes]) -> dict[str, tuple[bytes, str]]:
    """name -> (message, a part of what is said of it)."""
    whole = message_of(bundle, packets[:2])
    segment = {"recording": "0123456789abcdef", "segment": "2"}

    past_the_end = struct.pack("<HIQI", 0, 0, 0, 1 << 31)

    def of_segments(*segments: object, **more: object) -> bytes:
        return with_head(json.dumps({"segments": segments, **more}).encode())

    return {
        "nothing": (b"", "too short"),
        "another format": (b"GIF89a" * 50, "begins with"),
        "zeros": (bytes(MAX_PAYLOAD - 2000), "begins with"),
        "cut off": (whole[:-9], "checksum"),
        "altered": (whole[:60] + b"x" + whole[61:], "checksum"),
        "a head that unpacks to 64 MB": (with_head(bytes(64 << 20)), "too large"),
        "a head of no JSON": (with_head(b"{"), "none of an uplink's"),
        "a head nested deeply": (with_head(b"[" * 100_000), "none of an uplink's"),
        "a number of 5000 digits": (with_head(b'{"segments": [], "ask": ' + b"9" * 5000 + b"}"), "none of an uplink's"),
        "an infinite number": (of_segments(segment, ask=float("inf")), "none of an uplink's"),
        "no segments": (with_head(b"{}"), "segments"),
        "a segment that is text": (of_segments("x"), "none of an uplink's"),
        "a segment elsewhere": (of_segments({"recording": "../../../../etc", "segment": "2"}), "names no segment"),
        "half a surrogate pair": (of_segments({**segment, "x": "\ud800"}), "none of an uplink's"),
        "10,000 segments": (of_segments(*[segment] * 10_000), "more than"),
        "a record past the end": (with_head(json.dumps({"segments": [segment]}).encode(), past_the_end), "past the end"),
        "a record of no segment": (with_head(json.dumps({"segments": []}).encode(), struct.pack("<HIQI", 7, 0, 0, 0)), "past the end"),
        "another bundle": (message_of(bundle, packets[:2], bundle_digest="f" * 64), "no model here"),
        "a digest that is none": (message_of(bundle, packets[:2], bundle_digest="<script>\n"), "no model here"),
        "no digest": (message_of(bundle, packets[:2], bundle_digest=""), "no model here"),
        "packets of nothing": (message_of(bundle, [b""] * 8), "packet"),
        "a packet too long": (message_of(bundle, [packets[0] + bytes(60_000)]), "at most"),
        "a packet altered": (message_of(bundle, [packets[0][:-1] + bytes([packets[0][-1] ^ 1])]), "CRC"),
    }  # fmt: skip


async def tried(
    broker: LoopbackBroker, feed: Feed, sends: list[tuple[str, bytes]], enough: Callable[[dict[str, list[Any]]], bool]
) -> dict[str, list[Any]]:
    """What both vehicles hear of what they send, in this order, until it is enough."""
    from percodec.runtime.uplink.nats_link import open_nats
    from percodec.runtime.uplink.nats_source import nats_source

    heard: dict[str, list[Any]] = {"good": [], "bad": []}
    source = await nats_source(broker.url, broker.ingest, 10_000_000)
    links = {}
    for name, found in heard.items():

        async def hear(message: Any, found: list[Any] = found) -> None:
            found.append(json.loads(message.data))

        links[name] = await open_nats(broker.url, broker.vehicles[name], "vehicle", f"_INBOX.{name}", lambda: None, [])
        await links[name].subscribe(predicted_subject(name), cb=hear)
        await links[name].flush(5)
    ready, stop, troubles = asyncio.Event(), asyncio.Event(), []

    def tell(trouble: str) -> None:
        troubles.append(trouble)
        if not trouble:
            ready.set()

    running = asyncio.create_task(feed.run(broker.url, broker.predict, stop, tell))
    await asyncio.wait_for(ready.wait(), 60)
    for name, body in sends:
        await links[name].publish(log_subject(name), body)
    for _ in range(3000):
        if running.done() or enough(heard):
            break
        await asyncio.sleep(0.02)
    stop.set()
    await running  # raises what it ended with
    for link in (*links.values(), source):
        await link.close()
    assert troubles == [""], "it never lost the broker"
    return heard


def test_hostile_messages_are_refused_and_others_are_answered(
    broker: LoopbackBroker, engine: ThreadEngine, session: Session, packets: list[bytes]
) -> None:
    bundle = session.bundle
    wanted = {"rich": wanted_of(engine.models["rich"], [Asked("frame_id")])}
    feed = Feed(engine, LIMITS, wanted, lambda digest: "rich" if bundle.answers_to(digest) else None)
    cases = hostile(bundle, packets)
    sends = [one for body, _ in cases.values() for one in (("bad", body), ("good", message_of(bundle, packets[:1], name=str(len(body)))))]

    def refused(heard: dict[str, list[Any]]) -> list[str]:
        return [one["reason"] for answer in heard["bad"] for one in answer["refused"]]

    def enough(heard: dict[str, list[Any]]) -> bool:
        return len(heard["good"]) >= len(cases) and all(any(text in said for said in refused(heard)) for _, text in cases.values())

    heard = asyncio.run(tried(broker, feed, sends, enough))
    reasons = refused(heard)
    assert {name for name, (_, text) in cases.items() if not any(text in reason for reason in reasons)} == set()
    assert not [one for answer in heard["bad"] for one in answer.get("records", ())]
    assert all(len(reason) < 400 for reason in reasons)
    assert [answer["outputs"][0]["data"] for answer in heard["good"]] == [[10]] * len(cases)
    assert not [one for answer in heard["good"] for one in answer["refused"]]


def test_one_message_never_has_the_servers_try_for_ever(
    broker: LoopbackBroker, engine: ThreadEngine, session: Session, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_live, "_ACK_WAIT_S", 1)
    monkeypatch.setattr(feed_module, "TRIES", 2)
    bundle, answer = session.bundle, engine.answer

    async def broken(work: Work, seconds: float) -> list[Tensor]:
        if work.packets[0] == packets[3]:
            raise ZeroDivisionError("a defect that only this packet finds")
        return await answer(work, seconds)

    monkeypatch.setattr(engine, "answer", broken)
    feed = Feed(engine, LIMITS, {"rich": wanted_of(engine.models["rich"], [Asked("frame_id")])}, lambda digest: "rich")
    sends = [("bad", message_of(bundle, [packets[3]])), ("good", message_of(bundle, packets[:1]))]
    heard = asyncio.run(tried(broker, feed, sends, lambda heard: bool(heard["good"] and heard["bad"])))
    assert [one["reason"] for one in heard["bad"][0]["refused"]] == ["servers failed at it 2 times: the server failed; its log says why"]
    assert heard["good"][0]["outputs"][0]["data"] == [10]


def test_predictions_that_the_broker_does_not_take_are_refused(
    broker: LoopbackBroker, engine: ThreadEngine, session: Session, packets: list[bytes]
) -> None:
    wanted = {"rich": wanted_of(engine.models["rich"], [Asked("latent"), Asked("reconstruction", "raw")])}
    feed = Feed(engine, LIMITS, wanted, lambda digest: "rich")
    sends = [("bad", message_of(session.bundle, packets[:4], name="large"))]
    heard = asyncio.run(tried(broker, feed, sends, lambda heard: bool(heard["bad"])))
    assert [one["sequence"] for one in heard["bad"][0]["refused"]] == [0, 1, 2, 3]
    assert "more than a message may have" in heard["bad"][0]["refused"][0]["reason"]


def test_one_vehicle_cannot_take_anothers_predictions_by_sending_the_same(
    broker: LoopbackBroker, engine: ThreadEngine, session: Session, packets: list[bytes]
) -> None:
    feed = Feed(engine, LIMITS, {"rich": wanted_of(engine.models["rich"], [Asked("frame_id")])}, lambda digest: "rich")
    body = message_of(session.bundle, packets[:1], name="the same")
    heard = asyncio.run(tried(broker, feed, [("bad", body), ("good", body)], lambda heard: bool(heard["good"] and heard["bad"])))
    assert heard["good"] == heard["bad"] != []
