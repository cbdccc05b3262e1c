"""The server as a whole: who is let in, how much may wait, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import percodec_command, quiet_environment
from support.processes import children
from support.serving import Serving, serving

from percodec.runtime.serve.predictor import Predictor, Tensor
from percodec.runtime.serve.requests import Limits, Work
from percodec.runtime.serve.tls import Tls
from percodec.sdk.cli import main

Start = Callable[..., "tuple[subprocess.Popen[str], dict[str, Any]]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(BUNDLE, ...): the command as a process, and what it says when it listens."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        command = percodec_command("serve", *words, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json", "--no-selftest")
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=quiet_environment(),
        )
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        return process, json.loads(line)

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ask(address: str, packets: list[bytes], model: str = "tiny", tls: dict[str, Any] | None = None, **more: Any) -> Any:
    client_of = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient")
    with client_of.InferenceServerClient(address, **(tls or {})) as client:
        given = client_of.InferInput("packet", [len(packets)], "BYTES")
        given.set_data_from_numpy(np.array(packets, object))
        return client.infer(model, [given], **more)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Semaphore, threading.Event]]:
    """(counts the requests that are in work, what they wait for)."""
    begun, go, answer = threading.Semaphore(0), threading.Event(), Predictor.answer

    def waiting(self: Predictor, work: Work, gone: Callable[[], bool] = lambda: False) -> list[Tensor]:
        begun.release()
        assert go.wait(60)
        return answer(self, work, gone)

    monkeypatch.setattr(Predictor, "answer", waiting)
    yield begun, go
    go.set()


def in_threads(count: int, call: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    """Calls at the same time; what they return or raise."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def test_what_is_too_much_is_sent_away_and_the_rest_is_answered(bundle_folder: Path, packets: list[bytes], slow: Any) -> None:
    _begun, go = slow
    with serving({"tiny": bundle_folder}, Limits(packets=2, frames=4), workers=1) as server:
        threads, found = in_threads(6, lambda: ask(server.grpc, packets[:1]))
        while len([one for one in found if isinstance(one, Exception)]) < 2:
            time.sleep(0.01)
        assert server.engine.frames == 4
        go.set()
        for thread in threads:
            thread.join(60)
        refused = [str(one) for one in found if isinstance(one, Exception)]
        assert len(refused) == 2
        assert all("RESOURCE_EXHAUSTED" in text and "at most 4 may" in text for text in refused)
        assert ask(server.grpc, packets[:2]).as_numpy("frame_id").tolist() == [10, 11]


def test_a_deadline_is_kept_and_frees_the_worker(bundle_folder: Path, packets: list[bytes], slow: Any) -> None:
    _begun, go = slow
    with serving({"tiny": bundle_folder}, Limits(packets=2, frames=4), workers=1) as server:
        for how in ({"client_timeout": 0.5}, {"timeout": 500_000}):
            threads, found = in_threads(1, lambda how=how: ask(server.grpc, packets[:1], **how))  # type: ignore[misc]
            threads[0].join(60)
            assert "eadline" in str(found[0]).lower() or "no answer within 0.5 s" in str(found[0])
        go.set()
        assert ask(server.grpc, packets[:1]).as_numpy("frame_id").tolist() == [10]


def test_what_has_begun_is_answered_when_the_server_ends(bundle_folder: Path, packets: list[bytes], slow: Any) -> None:
    _begun, go = slow
    with serving({"tiny": bundle_folder}, Limits(packets=2, frames=8, drain_s=60), workers=1) as server:
        threads, found = in_threads(3, lambda: ask(server.grpc, packets[:1]))
        while server.engine.frames < 3:
            time.sleep(0.01)
        draining = server.begin(server.server.drain())
        while server.server.desk.ready:
            time.sleep(0.01)
        late = in_threads(1, lambda: ask(server.grpc, packets[:1], client_timeout=20))
        late[0][0].join(60)
        assert isinstance(late[1][0], Exception)
        go.set()
        draining.result(60)
        for thread in threads:
            thread.join(60)
        assert [one.as_numpy("frame_id").tolist() for one in found] == [[10]] * 3


def test_the_command_answers_and_ends_with_counts(start: Start, bundle_folder: Path, packets: list[bytes]) -> None:
    process, said = start(f"front={bundle_folder}", bundle_folder)
    assert set(said["models"]) == {"front", "tiny"}
    assert ask(said["grpc"], packets[:3], "front").as_numpy("frame_id").tolist() == [10, 11, 12]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == {"requests": 1, "frames": 3, "refused": 0}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("cryptography", reason="needs cryptography, to make certificates")
    from percodec.runtime.uplink.loopback import Certificates

    return Certificates(tmp_path_factory.mktemp("ours")), Certificates(tmp_path_factory.mktemp("strangers"))


def test_with_mtls_only_its_own_clients_are_answered(bundle_folder: Path, packets: list[bytes], certificates: Any) -> None:
    ours, strangers = certificates
    host = ours.issue("server", hosts=["127.0.0.1"])
    client, stranger = ours.issue("client"), strangers.issue("client")
    with serving({"tiny": bundle_folder}, tls=Tls(host.certificate, host.key, host.ca)) as server:

        def curl(*words: object) -> int:
            url = f"https://{server.http}/v1/predict/tiny"
            command = ["curl", "-sS", "--max-time", "60", "--cacert", host.ca, *words, "--data-binary", "@-", url]
            done = subprocess.run([*map(str, command)], input=packets[0], capture_output=True, check=False)
            return done.returncode

        def triton(who: Any) -> Any:
            files = {"root_certificates": str(host.ca)}
            if who is not None:
                files |= {"private_key": str(who.key), "certificate_chain": str(who.certificate)}
            return ask(server.grpc, packets[:1], tls={"ssl": True, **files}, client_timeout=20)

        assert curl("--cert", client.certificate, "--key", client.key) == 0
        assert triton(client).as_numpy("frame_id").tolist() == [10]
        for who in (None, stranger):
            assert curl(*(() if who is None else ("--cert", who.certificate, "--key", who.key))) != 0
            with pytest.raises(Exception, match=r"UNAVAILABLE|DEADLINE|Deadline"):
                triton(who)
        with pytest.raises(Exception, match=r"UNAVAILABLE|DEADLINE|Deadline"):
            ask(server.grpc, packets[:1], client_timeout=5)
        assert triton(client).as_numpy("frame_id").tolist() == [10]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere"], "nowhere"),
        (["--grpc", "0.0.0.0:0"], "--tls-cert and --tls-key, or --plaintext"),
        (["--http", "example"], "write HOST:PORT"),
        (["--http", "127.0.0.1:99999"], "write HOST:PORT"),
        (["--grpc", "none", "--http", "none"], "leave one of them"),
        (["--tls-cert", "x"], "go together"),
        (["--client-ca", "x"], "needs --tls-cert"),
        (["--tls-cert", "x", "--tls-key", "y"], "not a certificate and its key"),
        (["--workers", "0"], "--workers"),
        (["--queue", "1"], "--queue"),
        (["--heads", "none"], "has no head"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) in (1, 2)
    said = capsys.readouterr().err
    assert text in said
    assert said.startswith("percodec: error: ")


def test_two_bundles_of_one_name_want_names(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(bundle_folder), str(bundle_folder)]) == 2
    assert "two bundles are called tiny" in capsys.readouterr().err


def test_an_address_that_is_taken_is_named(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving({"tiny": bundle_folder}) as server:
        for protocol in ("grpc", "http"):
            other = {"grpc": "http", "http": "grpc"}[protocol]
            words = [f"--{protocol}", getattr(server, protocol), f"--{other}", "none", "--no-selftest"]
            assert main(["serve", str(bundle_folder), *words]) == 2
            assert f"--{protocol} {getattr(server, protocol)}: cannot be bound" in capsys.readouterr().err


def test_processes_begin_while_it_answers(server: Serving) -> None:
    codes: list[int] = []
    before, done = children(), threading.Event()

    def ask() -> None:
        import grpc

        with grpc.insecure_channel(server.grpc) as channel:
            alive = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            while not done.is_set():
                alive(b"", timeout=60)

    def begin() -> None:  # a function to run before the program makes it a fork(), as Ray has it
        while len(codes) < 200 and not done.is_set():
            codes.append(subprocess.run(["true"], preexec_fn=lambda: None, check=False).returncode)

    asking, beginning = [threading.Thread(target=ask) for _ in range(2)], threading.Thread(target=begin)
    for thread in (*asking, beginning):
        thread.start()
    beginning.join(60)
    done.set()
    while beginning.is_alive():  # one stands still before its program
        for pid in children() - before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        beginning.join(0.1)
    for thread in asking:
        thread.join()
    assert codes == [0] * 200
