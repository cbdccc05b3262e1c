"""Agent, broker and ingest as processes over TLS: what arrives, what is refused, what is given up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from percodec.runtime import default_bundle
from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.loopback import Certificates, LoopbackBroker, free_port
from percodec.sdk import SegmentedLogWriter, read_log
from percodec.sdk.log.segments import segment_paths

pytest.importorskip("nats", reason="needs the uplink extra")
pytest.importorskip("pyarrow", reason="needs the ingest extra")

Start = Callable[..., "subprocess.Popen[str]"]
Write = Callable[..., SegmentedLogWriter]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBroker]:
    found = LoopbackBroker(tmp_path_factory.mktemp("broker"), [f"v{k}" for k in range(1, 10)])
    yield found
    found.close()


def tls(who: Credentials) -> list[str]:
    return ["--ca", str(who.ca), "--cert", str(who.certificate), "--key", str(who.key)]


def take(start: Start, broker: LoopbackBroker, *more: str) -> subprocess.Popen[str]:
    words = [
        "ingest",
        "--from",
        broker.url,
        "--archive",
        "archive",
        "--flush",
        "0.2",
        "--ack-wait",
        "1",
        "--stream-size",
        "200MB",
        "--json",
    ]
    return start(*words, *tls(broker.ingest), *more)


def ship(start: Start, broker: LoopbackBroker, vehicle: str, logs: Path, *more: str) -> subprocess.Popen[str]:
    return start("uplink", logs, "--to", broker.url, *tls(broker.vehicles[vehicle]), "--json", *more)


def ended(process: subprocess.Popen[str], seconds: float = 60) -> dict[str, Any]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def stopped(process: subprocess.Popen[str]) -> dict[str, Any]:
    process.terminate()
    return ended(process)


def status_until(logs: Path, ready: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
    deadline, found = time.monotonic() + seconds, {}
    while time.monotonic() < deadline:
        try:
            found = json.loads((logs / ".uplink" / "status.json").read_text())
        except (OSError, ValueError):
            found = {}
        if found and ready(found):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_the_archive_has_the_vehicles_very_packets(start: Start, broker: LoopbackBroker, write: Write, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "old", 0, 150)
    ingest, agent = take(start, broker), ship(start, broker, "v1", logs)
    status_until(logs, lambda status: status["records"]["stored"] == 150)
    writer = write(logs / "live", 150, 151, close=False)
    status_until(logs, lambda status: status["records"]["stored"] == 151)
    writer.close()
    shutil.copytree(logs / "live", tmp_path / "copy")
    agent.terminate()
    assert ended(agent)["records"]["found"] == 151
    found = ended(ship(start, broker, "v1", logs, "--drain"))
    assert (found["records"]["stored"], found["records"]["resent"], found["records"]["discarded"]) == (151, 0, 0)
    assert found["state"] == "READY"
    stopped(ingest)
    assert sum(1 for path in (tmp_path / "archive" / "v1").iterdir() for _ in read_log(path)) == 151
    for name in ("old", "live"):
        here = read_log(logs / name)
        there = read_log(tmp_path / "archive" / "v1" / here.metadata["recording"])
        assert [(r.packet, r.timestamp_ns, r.sequence) for r in there] == [(r.packet, r.timestamp_ns, r.sequence) for r in here]
        assert {k: v for k, v in there.metadata.items() if k != "vehicle"} == here.metadata
    assert len(segment_paths(logs / "old")) > 5  # without --max-disk nothing is deleted


def test_a_broker_that_forgets_loses_nothing(start: Start, write: Write, tmp_path: Path) -> None:
    own = LoopbackBroker(tmp_path / "broker", ["v1"])
    try:
        logs = tmp_path / "logs"
        write(logs / "a", 0, 120)
        maker = take(start, own)
        status_wait = ship(start, own, "v1", logs, "--resend-after", "2")
        status_until(logs, lambda status: status["records"]["stored"] == 120)
        stopped(maker)  # the stream is there, and nobody takes from it
        write(logs / "b", 120, 200)
        status_until(logs, lambda status: status["records"]["sent"] == 200)
        own.kill(forget=True)
        own.start()
        ingest = take(start, own)
        found = status_until(logs, lambda status: status["records"]["stored"] == 200)
        assert found["records"]["resent"] >= 80
        stopped(status_wait)
        stopped(ingest)
    finally:
        own.close()


def test_only_what_is_stored_frees_the_disk(start: Start, broker: LoopbackBroker, write: Write, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "a", 0, 300)
    everything = sum(path.stat().st_size for path in segment_paths(logs / "a"))
    assert 100_000 < everything < 200_000
    maker = take(start, broker)
    agent = ship(start, broker, "v2", logs, "--max-disk", "200kB")
    status_until(logs, lambda status: status["records"]["stored"] == 300)
    write(logs / "b", 0, 400)
    write(logs / "c", 0, 400)

    def settled(status: dict[str, Any]) -> bool:
        counts = status["records"]
        return bool(counts["found"] == counts["stored"] + counts["discarded"] == 1100 and status["disk_bytes"] <= 200_000)

    found = status_until(logs, settled)
    stopped(maker)
    stopped(agent)
    assert found["records"]["found"] == 1100
    archived = sum(1 for path in (tmp_path / "archive" / "v2").iterdir() for _ in read_log(path, allow_damaged=True))
    assert archived + found["records"]["discarded"] >= 1100  # what is gone is stored, or was counted
    assert sum(path.stat().st_size for path in logs.rglob("*.mcap")) <= 200_000


def test_what_was_given_up_is_counted_and_named(start: Start, broker: LoopbackBroker, write: Write, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "a", 0, 400)
    write(logs / "b", 0, 400)
    away = start("uplink", logs, "--to", f"nats://127.0.0.1:{free_port()}", *tls(broker.vehicles["v3"]), "--max-disk", "100kB", "--json")
    found = status_until(logs, lambda status: status["records"]["discarded"] > 0 and status["state"] == "DEGRADED")
    assert found["disk_bytes"] <= 100_000
    assert "no answer" in found["reasons"][0]
    assert found["records"]["found"] == 800
    final = stopped(away)
    named = sum(int(text.split()[2]) for text in final["discards"])
    assert named == final["records"]["discarded"] > 0
    assert final["records"]["discarded"] + sum(1 for path in logs.glob("*/*.mcap") for _ in read_log(path)) == 800


def test_a_damaged_packet_is_set_aside_and_the_rest_goes_on(start: Start, broker: LoopbackBroker, write: Write, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "a", 0, 10, size=10**6)
    (path,) = segment_paths(logs / "a")
    packet = list(read_log(path))[4].packet
    data = bytearray(path.read_bytes())
    data[data.index(packet) + len(packet) - 3] ^= 1
    path.write_bytes(data)
    ingest = take(start, broker)
    found = ended(ship(start, broker, "v4", logs, "--drain"))
    assert found["records"]["stored"] == 10
    assert stopped(ingest)["quarantined"] >= 1
    (there,) = (tmp_path / "archive" / "v4").iterdir()
    assert [record.sequence for record in read_log(there, allow_damaged=True)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    (why,) = (tmp_path / "archive" / "quarantine" / "v4").rglob("*-4.json")
    assert "CRC" in why.read_text() or "checksum" in why.read_text()


def test_packets_of_another_bundle_are_set_aside_and_named(
    start: Start, broker: LoopbackBroker, write: Write, tiny_folder: Path, tmp_path: Path
) -> None:
    """An ingest that knows the built-in bundle alone, then one that knows the vehicle's."""
    logs = tmp_path / "logs"
    write(logs / "a", 0, 30)
    ingest = take(start, broker, "--bundle", str(default_bundle()))
    agent = ship(start, broker, "v6", logs)
    found = status_until(logs, lambda status: status["records"]["stored"] == 30 and status["state"] == "DEGRADED")
    assert "which the archive was not given (--bundle); they are set aside" in " ".join(found["reasons"])
    ingest.terminate()
    out, err = ingest.communicate(timeout=60)
    counts = json.loads(out)
    assert (counts["stored"], counts["parked"], counts["quarantined"]) == (0, 30, 0)
    assert len([line for line in err.splitlines() if "v6 sends packets of bundle" in line]) == 1
    here, archive = read_log(logs / "a"), tmp_path / "archive"
    there = read_log(archive / "quarantine" / "v6" / here.metadata["recording"])
    assert [r.packet for r in there] == [r.packet for r in here]
    again = take(start, broker, "--bundle", str(default_bundle()), "--bundle", str(tiny_folder))
    write(logs / "b", 30, 40)
    status_until(logs, lambda status: status["records"]["stored"] == 40 and status["state"] == "READY")
    stopped(agent)
    counts = stopped(again)
    assert (counts["stored"], counts["parked"]) == (10, 0)


def test_a_full_broker_is_no_loss(start: Start, write: Write, tmp_path: Path) -> None:
    own = LoopbackBroker(tmp_path / "broker", ["v1"])
    try:
        logs = tmp_path / "logs"
        write(logs / "a", 0, 400)
        words = [
            "ingest",
            "--from",
            own.url,
            "--archive",
            "archive",
            "--flush",
            "0.2",
            "--ack-wait",
            "1",
            "--stream-size",
            "100kB",
            "--json",
        ]
        maker = start(*words, *tls(own.ingest))
        agent = ship(start, own, "v1", logs)
        status_until(logs, lambda status: status["records"]["sent"] > 0)
        stopped(maker)
        write(logs / "b", 0, 400)
        found = status_until(logs, lambda status: status["state"] == "DEGRADED")
        assert "maximum bytes exceeded" in found["reasons"][0]
        ingest = start(*words, *tls(own.ingest))
        found = status_until(logs, lambda status: status["records"]["stored"] == 800 and status["state"] == "READY")
        stopped(agent)
        stopped(ingest)
    finally:
        own.close()


def one_line(process: subprocess.Popen[str], *words: str) -> None:
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 2), err
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err, err


def test_who_is_not_known_is_refused_in_one_line(start: Start, broker: LoopbackBroker, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    strangers = Certificates(tmp_path / "strangers")
    stranger, expired = strangers.issue("v1"), broker.certificates.issue("v1-old", days=-1)
    nobody = broker.certificates.issue("nobody")

    def agent(who: Credentials, *more: str, url: str = broker.url) -> subprocess.Popen[str]:
        return start("uplink", logs, "--to", url, *tls(who), *more)

    one_line(agent(stranger), "certificate is not accepted", str(stranger.ca))  # its CA is another one than the broker's
    one_line(agent(Credentials(nobody.ca, stranger.certificate, stranger.key)), "does not accept the certificate")
    one_line(agent(expired), "expired on", "get a new one")
    one_line(agent(nobody), "does not know this certificate's name")
    one_line(agent(Credentials(nobody.ca, nobody.certificate, stranger.key)), "cannot be used")
    one_line(start("uplink", logs, "--to", broker.url), "--ca, --cert, --key: missing")
    one_line(start("uplink", logs, "--to", broker.url, "--insecure-loopback", "--vehicle", "v1"), "demands TLS")
    one_line(start("uplink", logs, "--to", "nats://example.org", "--insecure-loopback", "--vehicle", "v1"), "127.0.0.1 alone")
    one_line(start("uplink", logs, "--to", "nats://me:secret@127.0.0.1", *tls(nobody)), "no password")
    one_line(start("ingest", "--from", broker.url, "--archive", "a", *tls(broker.vehicles["v1"])), "PK_LOG")
    one_line(start("uplink", tmp_path / "none", "--to", broker.url, *tls(nobody)), "is no folder")


def test_nobody_talks_a_vehicle_out_of_tls(start: Start, broker: LoopbackBroker, tmp_path: Path) -> None:
    """A server that says it needs no TLS, as somebody in between would."""
    heard = b""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        server.settimeout(30)
        (tmp_path / "logs").mkdir()
        agent = start("uplink", tmp_path / "logs", "--to", f"nats://127.0.0.1:{server.getsockname()[1]}", *tls(broker.vehicles["v1"]))
        client, _ = server.accept()
        with client:
            client.settimeout(2)
            with contextlib.suppress(OSError):
                client.sendall(b'INFO {"server_id":"x","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576}\r\n')
                while data := client.recv(4096):
                    heard += data
        status_until(tmp_path / "logs", lambda status: "no TLS" in " ".join(status["reasons"]))
        agent.terminate()
    assert heard[:1] == b"\x16"  # a TLS handshake, and nothing before it
    assert b"CONNECT" not in heard


def test_a_vehicle_speaks_for_itself_alone(broker: LoopbackBroker) -> None:
    """With the certificate of v1, and the broker's own client, nothing goes out as v2, and nothing of v2 is heard."""
    import nats

    said: list[str] = []

    async def work() -> None:
        async def error_of(error: Exception) -> None:
            said.append(str(error))

        context = broker.vehicles["v1"].context()
        client = await nats.connect(broker.url, tls=context, error_cb=error_of, allow_reconnect=False, inbox_prefix="_INBOX.v1")
        for subject in ("pk.v2.log", "pk.v1.stored", "$JS.API.STREAM.DELETE.PK_LOG", "$JS.API.STREAM.PURGE.PK_LOG"):
            await client.publish(subject, b"x")
        for subject in ("pk.v2.stored", "pk.>", "_INBOX.v2.>", "pk.v1.log"):
            await client.subscribe(subject)
        await client.flush()
        await asyncio.sleep(0.5)
        await client.close()

    asyncio.run(work())
    assert len([text for text in said if "permissions violation" in text.lower()]) == 8, said


def test_a_new_certificate_needs_no_restart(start: Start, broker: LoopbackBroker, write: Write, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "a", 0, 5)
    soon = broker.certificates.issue("v9", days=3)
    ingest = take(start, broker)
    agent = start("uplink", logs, "--to", broker.url, *tls(soon), "--json")
    status_until(logs, lambda status: status["records"]["stored"] == 5)
    found = status_until(logs, lambda status: status["state"] == "DEGRADED")
    assert "expires on" in found["reasons"][0]
    broker.certificates.issue("v9", days=90)
    os.utime(soon.certificate, ns=(1, 1))
    status_until(logs, lambda status: status["state"] == "READY")
    stopped(agent)
    stopped(ingest)


def test_a_closed_terminal_and_ctrl_c_end_it_cleanly(start: Start, broker: LoopbackBroker, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in (signal.SIGINT, signal.SIGHUP):
        agent = ship(start, broker, "v5", logs)
        status_until(logs, lambda status: bool(status["records"]))
        agent.send_signal(number)
        assert ended(agent)["records"]["found"] == 0
        (logs / ".uplink" / "status.json").unlink()
