"""A real broker over mTLS, vehicles that publish, and predictions that come back."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import COMMAND

from percodec.runtime import Session
from percodec.runtime.serve.engine import ThreadEngine
from percodec.runtime.serve.feed import Feed
from percodec.runtime.serve.models import model_of
from percodec.runtime.serve.predictor import Opening
from percodec.runtime.serve.requests import Asked, Limits, wanted_of
from percodec.runtime.uplink.link import predicted_subject
from percodec.runtime.uplink.loopback import LoopbackBroker
from percodec.runtime.uplink.wire import Message, Record, packed
from percodec.sdk import Latent
from percodec.sdk.cli import main

pytest.importorskip("nats", reason="needs the uplink extra")
pytest.importorskip("cryptography", reason="needs the uplink extra")
LIMITS = Limits(packets=4, frames=16)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBroker]:
    found = LoopbackBroker(tmp_path_factory.mktemp("broker"), ["v1", "v2"])
    yield found
    found.close()


@pytest.fixture
def feed(rich_bundle: Path, session: Session) -> Iterator[Feed]:
    bundle = session.bundle
    models = {"rich": model_of("rich", bundle, ["all"])}
    engine = ThreadEngine({"rich": bundle}, models, LIMITS, Opening(selftest=False))
    wanted = {"rich": wanted_of(models["rich"], [Asked("classes"), Asked("labels", "png")])}
    yield Feed(engine, LIMITS, wanted, lambda digest: "rich" if bundle.answers_to(digest) else None)
    asyncio.run(engine.close())


def message_of(session: Session, packets: list[bytes], first: int, digest: str | None = None) -> bytes:
    head = {"recording": "0123456789abcdef", "segment": "2", "bundle_digest": digest or session.bundle.digest}
    return packed(Message((head,), tuple(Record(0, first + k, 7, packet) for k, packet in enumerate(packets))))


def classes_of(session: Session, latents: list[Latent]) -> list[int]:
    return [int(n) for latent in latents for n in np.bincount(session.predict(latent).labels.reshape(-1), minlength=3)]


def test_predictions_are_the_sessions_and_what_has_none_is_named(
    feed: Feed, session: Session, latents: list[Latent], packets: list[bytes]
) -> None:
    stream = session.stream(key_every=100)
    run = [stream.pack(latent) for latent in latents]
    bad = packets[1][:-1] + bytes([packets[1][-1] ^ 1])

    async def bodies(data: bytes) -> list[bytes]:
        return [body async for body in feed.predictions(data)]

    def said(data: bytes) -> list[dict[str, Any]]:
        found = asyncio.run(bodies(data))
        assert found == asyncio.run(bodies(data)), "the same bytes for the same message"
        return [json.loads(body) for body in found]

    first, second = said(message_of(session, packets, 100))
    assert first["outputs"][0]["data"] + second["outputs"][0]["data"] == classes_of(session, latents)
    assert [one["sequence"] for one in first["records"] + second["records"]] == list(range(100, 106))
    (mixed,) = said(message_of(session, [packets[0], bad, packets[2]], 0))
    assert mixed["outputs"][0]["data"] == classes_of(session, [latents[0], latents[2]])
    assert [(one["sequence"], "CRC" in one["reason"]) for one in mixed["refused"]] == [(1, True)]
    (run_,) = said(message_of(session, run[:3], 0))
    assert run_["outputs"][0]["data"] == classes_of(session, latents[:3])
    (cut,) = said(message_of(session, run[1:3], 0))
    assert (cut["records"], len(cut["refused"])) == ([], 2)
    (other,) = said(message_of(session, packets[:2], 0, "f" * 64))
    assert [one["reason"] for one in other["refused"]] == ["no model here reads packets of bundle ffffffffffff"] * 2
    (none,) = said(b"PCUP nonsense")
    assert "none of an uplink's" in none["refused"][0]["reason"]


def test_what_vehicles_send_comes_back_predicted(
    feed: Feed, broker: LoopbackBroker, session: Session, latents: list[Latent], packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nats.aio.msg import Msg

    from percodec.runtime.uplink import nats_live
    from percodec.runtime.uplink.nats_link import connect_nats, open_nats
    from percodec.runtime.uplink.nats_source import nats_source

    monkeypatch.setattr(nats_live, "_ACK_WAIT_S", 1)
    acknowledge = Msg.ack

    async def trial() -> tuple[list[bytes], list[bytes]]:
        heard: list[bytes] = []

        async def hear(message: Any) -> None:
            heard.append(message.data)

        async def until(count: int) -> None:
            for _ in range(3000):
                if len(heard) >= count:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError(f"{len(heard)} of {count} predictions came")

        ready = asyncio.Event()

        async def fed(count: int) -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(feed.run(broker.url, broker.predict, stop, lambda trouble: trouble or ready.set()))
            await until(count)
            stop.set()
            await running

        source = await nats_source(broker.url, broker.ingest, 10_000_000)
        vehicle = await open_nats(broker.url, broker.vehicles["v1"], "listener", "_INBOX.v1", lambda: None, [])
        await vehicle.subscribe(predicted_subject("v1"), cb=hear)
        await vehicle.flush(5)
        link = await connect_nats(broker.url, broker.vehicles["v1"], "v1", lambda data: None)

        async def forgotten(message: Any) -> None:
            """As if the server died before it could."""

        monkeypatch.setattr(Msg, "ack", forgotten)
        task = asyncio.create_task(fed(3))
        await asyncio.wait_for(ready.wait(), 60)  # what was sent before anybody predicted is not kept for it
        for k in range(3):
            await link.publish(message_of(session, packets[k : k + 2], k), lambda refusal: None)
        await task
        first = heard[:3]
        monkeypatch.setattr(Msg, "ack", acknowledge)
        heard.clear()
        await fed(3)
        again = list(heard)
        taken = await source.take(5)
        assert len(taken) == 3, "ingest has them as well"
        for one in (link, vehicle, source):
            await one.close()
        return first, again

    first, again = asyncio.run(trial())
    assert sorted(first) == sorted(again[:3])
    found = sorted((json.loads(body) for body in first), key=lambda one: one["records"][0]["sequence"])
    for k, one in enumerate(found):
        assert one["outputs"][0]["data"] == classes_of(session, latents[k : k + 2])
        assert [tensor["name"] for tensor in one["outputs"]] == ["classes", "labels"]


def test_a_server_without_its_broker_says_so_and_ends_when_told(bundle_folder: Path) -> None:
    words = ["serve", str(bundle_folder), "--grpc", "none", "--http", "none", "--from", "nats://127.0.0.1:9", "--insecure-loopback"]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "DEGRADED: nats://127.0.0.1:9: no answer" in process.stderr.readline()
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "feed      messages 0, frames 0, refused 0"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--from", "nats://example:4222"], "--ca, --cert, --key: missing"),
        (["--from", "mqtt://127.0.0.1:1", "--insecure-loopback"], "pulled from NATS"),
        (["--ca", "x"], "--ca goes with --from"),
        (["--from", "nats://127.0.0.1:9", "--insecure-loopback", "--publish", "nothing", "--engine", "ray"], "no output 'nothing'"),
    ],
)
def test_what_is_wrong_with_a_feed_is_said(words: list[str], text: str, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(bundle_folder), "--grpc", "none", "--http", "none", "--no-selftest", *words]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert "starting" not in said, "nothing was begun that somebody would have to end"
