"""Whatever is sent: an answer of the protocol that says what was wrong, and a good client that does not notice."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.serving import Serving

from percodec.runtime.serve import http_front
from percodec.runtime.serve.messages import message
from percodec.runtime.serve.requests import bytes_of

INFER = "/v2/models/rich/infer"
JSON = {"Content-Type": "application/json"}


def http_post(server: Serving, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> tuple[int, bytes]:
    host, _, port = server.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def grpc_call(server: Serving, body: bytes, method: str = "ModelInfer") -> tuple[str, str]:
    """(status, what it says)."""
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        try:
            channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(body, timeout=60)
        except grpc.RpcError as error:
            return error.code().name, error.details()  # type: ignore[attr-defined]
    return "OK", ""


def request_of(packets: list[bytes], **changed: Any) -> dict[str, Any]:
    data = [base64.b64encode(packet).decode() for packet in packets]
    one = {"name": "packet", "datatype": "BYTES", "shape": [len(packets)], "data": data}
    return {"inputs": [{**one, **{key[3:]: value for key, value in changed.items() if key.startswith("in_")}}]} | {
        key: value for key, value in changed.items() if not key.startswith("in_")
    }


def altered(packet: bytes, place: int = 60) -> bytes:
    return packet[:place] + bytes([packet[place] ^ 1]) + packet[place + 1 :]


# name -> (body of an infer request in JSON, status, a part of what is said)
BAD_JSON: dict[str, Callable[[list[bytes]], tuple[Any, int, str]]] = {
    "no JSON": lambda p: (b"{", 400, "no JSON"),
    "not UTF-8": lambda p: (b"\xff\xfe", 400, "no JSON"),
    "a list": lambda p: ([], 400, "object"),
    "nested deeply": lambda p: (b"[" * 200_000, 400, "no JSON"),
    "a number of 5000 digits": lambda p: (b'{"id": ' + b"9" * 5000 + b"}", 400, "no JSON"),
    "no inputs": lambda p: ({}, 400, "inputs"),
    "two inputs": lambda p: ({"inputs": 2 * request_of(p[:1])["inputs"]}, 400, "one input"),
    "another input": lambda p: (request_of(p[:1], in_name="image"), 400, "'packet'"),
    "another datatype": lambda p: (request_of(p[:1], in_datatype="UINT8"), 400, "BYTES"),
    "no shape": lambda p: (request_of(p[:1], in_shape=None), 400, "shape"),
    "a negative shape": lambda p: (request_of(p[:1], in_shape=[-1]), 400, "shape"),
    "a shape of more": lambda p: (request_of(p[:1], in_shape=[2]), 400, "shape"),
    "a shape of 2^61": lambda p: (request_of(p[:1], in_shape=[1 << 61, 1 << 61]), 400, "shape"),
    "no packets": lambda p: (request_of([]), 400, "at least one"),
    "too many packets": lambda p: (request_of(p[:1] * 9), 413, "more than 8"),
    "no base64": lambda p: (request_of(p[:1], in_data=["***"]), 400, "base64"),
    "data that are numbers": lambda p: (request_of(p[:1], in_data=[1]), 400, "base64"),
    "an unknown output": lambda p: (request_of(p[:1], outputs=[{"name": "x"}]), 400, "no output 'x'"),
    "an output twice": lambda p: (request_of(p[:1], outputs=[{"name": "classes"}] * 2), 400, "twice"),
    "an output without a name": lambda p: (request_of(p[:1], outputs=[{}]), 400, "name"),
    "an encoding that is none": lambda p: (
        request_of(p[:1], outputs=[{"name": "labels", "parameters": {"encoding": "gif"}}]), 400, "raw or png",
    ),
    "a timeout that is text": lambda p: (request_of(p[:1], parameters={"timeout": "1"}), 400, "timeout"),
    "no time": lambda p: (request_of(p[:1], parameters={"timeout": 1}), 504, "s"),
    "an id of a page": lambda p: (request_of(p[:1], id="x" * 1000), 400, "id"),
    "an empty packet": lambda p: (request_of([b""]), 400, "packet 0"),
    "a packet cut off": lambda p: (request_of([p[0], p[1][:-3]]), 400, "packet 1"),
    "a packet altered": lambda p: (request_of([altered(p[0])]), 400, "CRC"),
    "a packet too long": lambda p: (request_of([p[0] + bytes(60_000)]), 400, "at most"),
    "no packet": lambda p: (request_of([b"GIF89a" * 20]), 400, "packet 0"),
    "binary that is not there": lambda p: (
        {"inputs": [{"name": "packet", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 99}}]}, 400, "bytes are left",
    ),
    "another model's packet": lambda p: (request_of([p[-1]]), 400, "packet 0"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sent(packets: list[bytes], server: Serving, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Good packets, and the last of another bundle."""
    import numpy as np
    from support.tiny_bundle import make_bundle

    from percodec.sdk import PacketCodec

    other = make_bundle(tmp_path_factory.mktemp("other") / "other", gain=0.4)
    shape = other.latent_shape
    return [*packets, PacketCodec(other.entropy_model, *shape[1:]).encode(np.zeros(shape, np.uint8), 1, 1)]


@pytest.fixture(autouse=True)
def good_client(server: Serving, packets: list[bytes]) -> Any:
    """Nothing waits for ever, and who asks well is answered as before."""
    status, before = http_post(server, "/v1/predict/rich", packets[0])
    assert status == 200
    yield
    assert http_post(server, "/v1/predict/rich", packets[0]) == (200, before)
    end = time.monotonic() + 30
    while server.engine.frames and time.monotonic() < end:
        time.sleep(0.01)
    assert server.engine.frames == 0


def test_there_are_thirty_kinds() -> None:
    assert len(BAD_JSON) >= 30


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_requests_in_json(kind: str, server: Serving, sent: list[bytes]) -> None:
    body, status, text = BAD_JSON[kind](sent)
    found, said = http_post(server, INFER, body if isinstance(body, bytes) else json.dumps(body).encode(), JSON)
    assert found == status, said
    assert text in json.loads(said)["error"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v2/models/none/infer", "POST", 404), ("/v2/models/rich/versions/000000000000/infer", "POST", 404),
        ("/v1/predict/none", "POST", 404),
        ("/v2/models/none", "GET", 404), ("/v2/models/rich/versions/1/ready", "GET", 404), ("/nowhere", "GET", 404), (INFER, "PUT", 405),
        ("/v1/predict/rich?picture=x", "POST", 400), ("/v1/predict/%00%ff", "POST", 404), ("/v2/models/../../x", "GET", 404),
    ],
)  # fmt: skip
def test_bad_paths(path: str, method: str, status: int, server: Serving, packets: list[bytes]) -> None:
    found, said = http_post(server, path, packets[0] if method != "GET" else b"", method=method)
    assert (found, "error" in json.loads(said)) == (status, True)


@pytest.mark.parametrize(
    ("length", "status"), [("x", 400), ("-1", 400), ("99999999", 400), ("٣", 400), ("0", 400), ("9" * 400, 400)]
)  # fmt: skip
def test_bad_lengths_of_the_json(length: str, status: int, server: Serving, packets: list[bytes]) -> None:
    body = json.dumps(request_of(packets[:1])).encode()
    assert http_post(server, INFER, body, {"Inference-Header-Content-Length": length.encode("utf-8").decode("latin-1")})[0] == status


def test_a_body_beyond_the_limit_is_refused_by_both(server: Serving) -> None:
    large = bytes(10 << 20)
    try:
        status, said = http_post(server, INFER, large)
        assert (status, "at most" in json.loads(said)["error"]) == (413, True)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it did not even read on
    assert http_post(server, INFER, gzip.compress(large), {"Content-Encoding": "gzip"})[0] in (400, 413)
    assert (
        grpc_call(server, message("ModelInferRequest")(model_name="rich", raw_input_contents=[large]).SerializeToString())[0]
        == "RESOURCE_EXHAUSTED"
    )


def grpc_request(packets: list[bytes], **more: Any) -> Any:
    request = message("ModelInferRequest")(model_name="rich", **more)
    request.inputs.add(name="packet", datatype="BYTES", shape=[len(packets)])
    request.raw_input_contents.append(bytes_of(packets))
    return request


def test_bad_requests_in_grpc(server: Serving, sent: list[bytes]) -> None:
    def call(request: Any, method: str = "ModelInfer") -> tuple[str, str]:
        return grpc_call(server, request if isinstance(request, bytes) else request.SerializeToString(), method)

    good = grpc_request(sent[:1])
    assert call(good)[0] == "OK"
    assert call(b"\xff" * 40) == ("INVALID_ARGUMENT", "40 bytes that are no ModelInferRequest")
    assert call(b"", "ModelStreamInfer")[0] == "UNIMPLEMENTED"
    assert call(b"")[0] == "NOT_FOUND"
    assert call(message("ModelReadyRequest")(name="none"), "ModelReady")[0] == "NOT_FOUND"
    assert call(message("ModelMetadataRequest")(name="rich", version="1"), "ModelMetadata")[0] == "NOT_FOUND"
    assert call(grpc_request(sent[:1] * 9))[0] == "RESOURCE_EXHAUSTED"
    assert "packet 1" in call(grpc_request([sent[0], altered(sent[1])]))[1]
    assert "wrong" in call(grpc_request([sent[-1]]))[1] or "tables" in call(grpc_request([sent[-1]]))[1]
    cut = grpc_request(sent[:1])
    cut.raw_input_contents[0] = cut.raw_input_contents[0][:-1]
    assert call(cut)[0] == "INVALID_ARGUMENT"
    twice = grpc_request(sent[:1])
    twice.inputs[0].contents.bytes_contents.append(sent[0])
    assert "twice" in call(twice)[1]
    several = grpc_request(sent[:1])
    several.raw_input_contents.append(b"")
    assert "2 raw contents" in call(several)[1]
    odd = grpc_request(sent[:1])
    odd.parameters["timeout"].string_param = "soon"
    assert "timeout" in call(odd)[1]
    by_contents = grpc_request(sent[:1])
    del by_contents.raw_input_contents[:]
    by_contents.inputs[0].contents.bytes_contents.append(sent[0])
    assert call(by_contents)[0] == "OK"


def test_what_is_no_http_is_dropped(server: Serving) -> None:
    host, _, port = server.http.rpartition(":")
    for data in (
        b"\x16\x03\x01\x02\x00\x01" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"A" * 100_000,
        b"\0",
    ):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                continue


def test_who_connects_and_says_nothing_is_sent_away(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_front, "_HEAD_S", 0.3)
    host, _, port = server.http.rpartition(":")
    good = http.client.HTTPConnection(host, int(port), timeout=60)
    good.request("GET", "/v2/health/live")
    good.getresponse().read()
    for data in (b"", b"POST /v1/predict/rich HTTP/1.1\r\nX: "):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(data)
            try:
                assert connection.recv(1) == b""
            except ConnectionResetError:
                continue
    good.request("GET", "/v2/health/live")  # the connection of who has asked stays
    assert good.getresponse().status == 200
    good.close()


def test_a_body_that_ends_early_is_no_request(server: Serving) -> None:
    host, _, port = server.http.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /v1/predict/rich HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")


@pytest.mark.parametrize("examples", [60, pytest.param(5000, marks=pytest.mark.long)])
def test_any_bytes(examples: int, server: Serving, sent: list[bytes]) -> None:
    """Requests of both protocols with some bytes or values changed: an answer of the protocol, never a defect."""
    length = {"Inference-Header-Content-Length": ""}

    @settings(
        max_examples=examples, derandomize=examples < 1000, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(["grpc", "json", "binary", "packet"]), st.integers(0, 2**32))
    def tried(kind: str, seed: int) -> None:
        rng = random.Random(seed)
        if kind == "grpc":
            status, said = grpc_call(server, spoiled(grpc_request(sent[:2]).SerializeToString(), rng))
            assert status in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"), said
            return
        path, headers = INFER, dict(JSON)
        if kind == "json":
            body = spoiled(json.dumps(request_of(sent[:2], outputs=[{"name": "classes"}])).encode(), rng)
        elif kind == "binary":
            tail = bytes_of(sent[:2])
            one = {"name": "packet", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(tail)}}
            head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
            body = spoiled(head, rng) + spoiled(tail, rng)
            headers = {name: str(len(head)) for name in length}
        else:
            path, body = "/v1/predict/rich", spoiled(sent[0], rng)
        status, said = http_post(server, path, body, headers)
        assert status in (200, 400, 404, 413, 504), said

    tried()


def spoiled(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, long = rng.randrange(len(out) + 1), rng.choice((1, 2, 4, 64))
        kind = rng.randrange(4)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + long] = rng.randbytes(len(out[at : at + long]))
        elif kind == 2:
            del out[at : at + long]
        else:
            out[at:at] = rng.choice((b"null", b"-1", b"9" * 400, b"\xff" * 8, b"\0" * 16, b"{}", b"[", b'"', b"1e999"))
    return bytes(out)
