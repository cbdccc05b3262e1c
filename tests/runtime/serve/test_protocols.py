"""Unmodified clients get exactly what `Session` says."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.serving import Serving, serving

from percodec.runtime import Session
from percodec.runtime.serve.messages import message
from percodec.sdk import Latent
from percodec.sdk.cli import main

Triton = tuple[Any, Any]


def ask(triton: Triton, packets: list[bytes], *outputs: Any, model: str = "rich", **more: Any) -> Any:
    module, client = triton
    given = module.InferInput("packet", [len(packets)], "BYTES")
    given.set_data_from_numpy(np.array(packets, object))
    wanted = [module.InferRequestedOutput(one) if isinstance(one, str) else one for one in outputs]
    return client.infer(model, [given], outputs=wanted or None, **more)


def test_every_output_is_what_the_session_says(triton: Triton, session: Session, latents: list[Latent], packets: list[bytes]) -> None:
    names = ("frame_id", "timestamp_ns", "classes", "labels", "probabilities", "depth.depth", "depth.mean", "latent")
    found = ask(triton, packets, *names)
    said = {head: [session.predict(latent, head) for latent in latents] for head in session.heads}
    labels = np.stack([one.labels for one in said["segmentation"]])
    assert found.as_numpy("frame_id").tolist() == [latent.frame_id for latent in latents]
    assert found.as_numpy("timestamp_ns").tolist() == [latent.timestamp_ns for latent in latents]
    np.testing.assert_array_equal(found.as_numpy("latent"), np.stack([latent.symbols for latent in latents]))
    np.testing.assert_array_equal(found.as_numpy("labels"), labels)
    assert found.as_numpy("labels").dtype == np.uint8
    counts = [[int((one == k).sum()) for k in range(3)] for one in labels]
    assert found.as_numpy("classes").tolist() == counts
    assert found.as_numpy("classes").dtype == np.uint32
    np.testing.assert_array_equal(found.as_numpy("probabilities"), np.stack([one.probs for one in said["light"]]))
    for name in ("depth", "mean"):
        np.testing.assert_array_equal(found.as_numpy(f"depth.{name}"), np.stack([one.outputs[name] for one in said["depth"]]))


def test_pictures_come_as_png_and_raw(triton: Triton, session: Session, latents: list[Latent], packets: list[bytes]) -> None:
    module = triton[0]
    picture = session.decode(latents[0])
    found = ask(triton, packets[:2], "reconstruction", "overlay")
    read = cv2.imdecode(np.frombuffer(found.as_numpy("reconstruction")[0], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[:, :, ::-1], picture)
    assert cv2.imdecode(np.frombuffer(found.as_numpy("overlay")[1], np.uint8), cv2.IMREAD_COLOR).shape[0] > picture.shape[0]
    if module.__name__.endswith("http"):  # the gRPC client has no parameters of outputs
        return
    raw = module.InferRequestedOutput("reconstruction")
    raw._output.parameters["encoding"].string_param = "raw"
    png = module.InferRequestedOutput("labels")
    png._output.parameters["encoding"].string_param = "png"
    found = ask(triton, packets[:1], raw, png)
    np.testing.assert_array_equal(found.as_numpy("reconstruction")[0], picture)
    ids = cv2.imdecode(np.frombuffer(found.as_numpy("labels")[0], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ids, session.predict(latents[0]).labels)


def test_who_names_no_outputs_gets_the_small_ones(triton: Triton, packets: list[bytes]) -> None:
    found = ask(triton, packets[:1])
    assert [found.as_numpy(name) is not None for name in ("classes", "probabilities", "labels", "latent")] == [True, True, False, False]


def test_a_run_of_a_stream_is_answered_from_its_key_packet_on(triton: Triton, session: Session, latents: list[Latent]) -> None:
    from tritonclient.utils import InferenceServerException

    stream = session.stream(key_every=100)
    run = [stream.pack(latent) for latent in latents]
    np.testing.assert_array_equal(ask(triton, run, "latent").as_numpy("latent"), np.stack([latent.symbols for latent in latents]))
    for part, place in ((run[1:3], "packet 0"), ([run[0], run[2]], "packet 1")):
        with pytest.raises(InferenceServerException, match=f"{place}: .*send the whole run in one request, from its key packet on"):
            ask(triton, part)


def test_metadata_and_health(triton: Triton, server: Serving, session: Session) -> None:
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("rich", session.bundle.digest[:12])
    found = client.get_model_metadata("rich")
    found = found if isinstance(found, dict) else json.loads(_json_of(found))
    assert found["versions"] == [session.bundle.digest[:12]]
    assert {"name": "packet", "datatype": "BYTES", "shape": ["-1"]} in [
        {**one, "shape": [str(s) for s in one["shape"]]} for one in found["inputs"]
    ]
    assert "labels" in {one["name"] for one in found["outputs"]}
    assert client.get_server_metadata()


def _json_of(found: Any) -> str:
    from google.protobuf.json_format import MessageToJson

    return str(MessageToJson(found))


def test_a_version_pins_the_bundle(triton: Triton, session: Session, packets: list[bytes]) -> None:
    from tritonclient.utils import InferenceServerException

    assert ask(triton, packets[:1], model_version=session.bundle.digest[:12])
    with pytest.raises(InferenceServerException, match="is here in version"):
        ask(triton, packets[:1], model_version="000000000000")


def test_grpc_metadata_tells_the_digest(server: Serving, session: Session) -> None:
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        request = message("ModelMetadataRequest")(name="rich").SerializeToString()
        found = message("ModelMetadataResponse").FromString(call(request, timeout=30))
    assert found.properties["digest"] == session.bundle.digest
    assert found.properties["latent_shape"] == "x".join(map(str, session.latent_shape))
    assert found.properties["classes.segmentation"] == "Sky,Building,Road"


def test_our_messages_are_the_protocols() -> None:
    theirs = pytest.importorskip("tritonclient.grpc.service_pb2", reason="needs tritonclient")
    compared = 0

    def compare(ours: Any, other: Any) -> None:
        nonlocal compared
        for field in other.fields:
            here = ours.fields_by_name[field.name]
            same = (here.number, here.type, here.is_repeated) == (field.number, field.type, field.is_repeated)
            assert same, f"{other.full_name}.{field.name}"
            compared += 1
        for nested in other.nested_types:
            compare(ours.nested_types_by_name[nested.name], nested)

    names = "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer"
    for name in names.split():
        for kind in ("Request", "Response"):
            compare(message(f"{name}{kind}").DESCRIPTOR, getattr(theirs, f"{name}{kind}").DESCRIPTOR)
    for name in ("InferParameter", "InferTensorContents"):
        compare(message(name).DESCRIPTOR, getattr(theirs, name).DESCRIPTOR)
    assert compared > 60


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[bytes, dict[str, str]]:
    request = urllib.request.Request(url, body, headers or {}, method="POST")
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read(), dict(response.headers)


def test_json_alone_is_enough(server: Serving, session: Session, latents: list[Latent], packets: list[bytes]) -> None:
    data = [base64.b64encode(packet).decode() for packet in packets[:2]]
    outputs = [
        {"name": "classes"},
        {"name": "labels", "parameters": {"encoding": "png"}},
        {"name": "latent", "parameters": {"binary_data": True}},
    ]
    request = {"id": "7", "inputs": [{"name": "packet", "datatype": "BYTES", "shape": [2], "data": data}], "outputs": outputs}
    body, headers = post(f"http://{server.http}/v2/models/rich/infer", json.dumps(request).encode())
    length = int(headers["Inference-Header-Content-Length"])
    found = json.loads(body[:length])
    assert (found["id"], found["parameters"]["digest"]) == ("7", session.bundle.digest)
    classes, labels, latent = found["outputs"]
    assert sum(classes["data"]) == 2 * 64 * 96
    png = cv2.imdecode(np.frombuffer(base64.b64decode(labels["data"][1]), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(png, session.predict(latents[1]).labels)
    assert body[length:] == latents[0].symbols.tobytes() + latents[1].symbols.tobytes()
    assert latent["parameters"]["binary_data_size"] == len(body) - length


def curl(*words: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(["curl", "-sS", "--fail-with-body", "--max-time", "60", *words], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_curl_gets_a_summary_and_pictures(server: Serving, session: Session, latents: list[Latent], packets: list[bytes]) -> None:
    url = f"http://{server.http}/v1/predict/rich"
    found = json.loads(curl("--data-binary", "@-", url, data=packets[3]))
    labels = session.predict(latents[3]).labels
    names = ("Sky", "Building", "Road")
    shares = {names[k]: round(float((labels == k).mean()), 4) for k in range(3) if (labels == k).any()}
    assert found["classes"] == shares
    assert (found["frame_id"], found["timestamp_ns"], found["digest"]) == (13, 10**15 + 3, session.bundle.digest)
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    png = curl("-H", "Accept: image/png", "--data-binary", "@-", url, data=packets[3])
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), labels)
    drawn = curl("-H", "Accept: image/png", "--data-binary", "@-", f"{url}?picture=overlay", data=packets[3])
    assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR) is not None


def test_metrics_count_what_was_asked(server: Serving, packets: list[bytes]) -> None:
    def value(name: str) -> float:
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)

    answered = 'percodec_serve_requests_total{model="tiny",outcome="answered",protocol="http"}'
    before, frames = value(answered), value('percodec_serve_frames_total{model="tiny"}')
    post(f"http://{server.http}/v1/predict/tiny", packets[0])
    assert value(answered) == before + 1
    assert value('percodec_serve_frames_total{model="tiny"}') == frames + 1


def test_a_bundle_that_knows_what_is_usual_says_so_of_each_frame(bundle_folder: Path, tmp_path: Path) -> None:
    words = ["--familiar", "synthetic://road?frames=60&seed=1", "--familiar-limit", "synthetic://road?frames=60&seed=2"]
    assert main(["export", str(bundle_folder), *words, "--out", str(tmp_path / "watchful"), "--name", "watchful"]) == 0
    with serving({"watchful": tmp_path / "watchful"}, workers=1) as server, Session.open(tmp_path / "watchful") as session:
        latent = Latent(np.zeros(session.latent_shape, np.uint8), 1, 2)
        found = json.loads(post(f"http://{server.http}/v1/predict/watchful", session.pack(latent))[0])
        said = session.unfamiliarity(latent, session.predict(latent))
        assert said is not None
        assert said > 1, "nothing but black is no road"
        assert found["unfamiliarity"] == pytest.approx(said, rel=1e-3)
