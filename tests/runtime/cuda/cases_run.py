"""`percodec run --backend tensorrt` from a bundle on disk: engines found by this device, checked, run, logged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cuda.arrays import DlPack, Foreign
from support.cuda.engines import CAMERA, bundle_with_engines
from support.tiny_bundle import array_graph, classification_graph, make_bundle

from percodec.runtime.engines.cuda_open import shared_cuda
from percodec.runtime.engines.open import graph_specs, open_slots
from percodec.runtime.run.live import run_live
from percodec.runtime.run.settings import RunSettings
from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import BackendError, EngineError, UsageError

PROVIDER = os.environ["PERCODEC_PROVIDER"]


@pytest.fixture
def device(driver: Any) -> Any:
    """A fresh driver and a fresh shared device; networks that pass on the picture's brightness."""
    shared_cuda.cache_clear()
    driver.trt.compute = lambda name, given: {"symbols": int(given.max()) * 5 // 255, "labels": int(given[0]) % 3}.get(name, int(given[0]))
    yield driver
    shared_cuda.cache_clear()


def run(folder: Path, bundle: Path, **more: Any) -> Any:
    settings = RunSettings(
        "synthetic://road?frames=12&seed=1", folder, bundle, backend="tensorrt", provider=PROVIDER, overlay=False, sheet=False,
        selftest=False, **more,
    )  # fmt: skip
    return run_live(settings)


def test_run_on_a_gpu(device, tmp_path):
    bundle_with_engines(tmp_path / "tiny")
    result = run(tmp_path / "out", tmp_path / "tiny")
    assert result.error is None
    frames, options = result.report["frames"], result.report["options"]
    assert frames["captured"] == frames["predicted"] == frames["logged"] == 12
    assert {k: options[k] for k in ("backend", "precision", "provider", "gpu", "capability", "transfer", "graphs")} == {
        "backend": "tensorrt", "precision": {"encoder": "fp16", "segmentation": "fp16"}, "provider": PROVIDER, "gpu": "fake GPU",
        "capability": "8.7", "transfer": "copy", "graphs": True,
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    assert [line["frame_id"] for line in lines] == list(range(12))
    assert device.violations() == []


def test_the_better_precision_is_taken_where_nobody_chose(device, tmp_path):
    bundle_with_engines(tmp_path / "tiny", precision="fp16")
    bundle = bundle_with_engines(tmp_path / "tiny", precision="int8+fp16")
    assert open_slots(bundle, backend="tensorrt", provider=PROVIDER).about["precision"]["encoder"] == "int8+fp16"
    assert open_slots(bundle, backend="tensorrt:fp16", provider=PROVIDER).about["precision"]["encoder"] == "fp16"


def test_fi02_an_engine_that_is_missing_is_not_built_here(device, tmp_path):
    bundle = make_bundle(tmp_path / "tiny")
    with pytest.raises(EngineError, match=r"holds no encoder engine for orin-jp6.*build it here: percodec build .* --target orin-jp6"):
        open_slots(bundle, backend="tensorrt", provider=PROVIDER)
    assert run_refused(tmp_path, "EngineError")
    assert not (tmp_path / "out").exists()


def run_refused(tmp_path: Path, kind: str) -> bool:
    try:
        run(tmp_path / "out", tmp_path / "tiny")
    except (EngineError, BackendError) as error:
        return type(error).__name__ == kind
    return False


def test_fi01_fi02_an_engine_of_another_version_is_refused_with_both_sides(device, tmp_path):
    bundle = bundle_with_engines(tmp_path / "tiny", version="10.2.0")
    with pytest.raises(EngineError, match=r"version '10\.3\.0' here, '10\.2\.0' in the engine"):
        open_slots(bundle, backend="tensorrt", provider=PROVIDER)


def test_fi09_a_backend_that_is_not_there_is_no_other_backend(device, tmp_path):
    bundle = bundle_with_engines(tmp_path / "tiny")
    for backend, why in (("tensorrt_rtx", r"tensorrt_rtx|compute capability 8\.7"), ("cuda", "unknown backend 'cuda'")):
        with pytest.raises(BackendError, match=why):
            open_slots(bundle, backend=backend, provider=PROVIDER)
    shared_cuda.cache_clear()
    device.fail("cuDevicePrimaryCtxRetain", 100)
    with pytest.raises(BackendError, match=r"driver|cuDevice"):
        run(tmp_path / "out", tmp_path / "tiny")


def test_a_cameras_pictures_are_prepared_on_the_device(device, tmp_path):
    bundle = bundle_with_engines(tmp_path / "tiny", graphs=("encoder", "head_segmentation", CAMERA.graph))
    made = open_slots(bundle, backend="tensorrt", provider=PROVIDER, camera=CAMERA)
    slot = made.make(1)[0]
    assert slot.source.shape == (144, 128)
    slot.source[:] = 200
    slot.encode()
    slot.ready()
    slot.predict()
    assert slot.image.shape == graph_specs(bundle, "encoder")[0].shape
    assert (slot.image == 200).all()
    assert (slot.symbols == 3).all()
    made.close()
    with pytest.raises(EngineError, match=r"holds no camera_nv12_64x48 engine.*percodec build"):
        open_slots(bundle, backend="tensorrt", provider=PROVIDER, camera=CameraFormat.from_text("nv12:64x48"))
    assert np.all(device.violations() == [])


def rich(folder: Path) -> Bundle:
    """The tiny bundle with a classification and an array head beside its segmentation, and fake engines for all."""
    from percodec.sdk.cli import main

    make_bundle(folder.with_name("plain"))
    words = []
    for name, task, graph in (("light", "classification", classification_graph()), ("depth", "array", array_graph())):
        file = folder.with_name(f"{name}.onnx")
        file.write_bytes(graph)
        words += ["--head", f"{name}={file}:{task}"]
    assert main(["export", str(folder.with_name("plain")), "--out", str(folder), *words]) == 0
    return bundle_with_engines(folder, graphs=("encoder", "head_segmentation", "head_light", "head_depth"))


def test_every_head_reads_the_latent_on_the_device(device, tmp_path):
    bundle = rich(tmp_path / "rich")
    device.trt.compute = lambda name, given: {"symbols": int(given.max()) * 5 // 255, "probs": 0.25}.get(name, int(given[0]) % 3)
    result = run(tmp_path / "out", bundle.path, heads=("all",))
    assert result.error is None
    assert result.report["frames"]["predicted"] == 12
    assert set(result.report["options"]["precision"]) == {"encoder", "segmentation", "light", "depth"}
    assert device.violations() == []
    lines = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_text().splitlines()]
    assert all(line["heads"]["light"]["probs"] == {"class 0": 0.25, "class 1": 0.25, "class 2": 0.25} for line in lines)


@pytest.mark.parametrize("how", ["__cuda_array_interface__", "__dlpack__"])
def test_a_session_takes_pictures_that_are_on_the_device(device, tmp_path, how):
    bundle = bundle_with_engines(tmp_path / "tiny")
    with Session.open(bundle, backend="tensorrt", provider=PROVIDER, selftest=False) as session:
        cuda = shared_cuda(PROVIDER)
        shape = (bundle.frame_height, bundle.frame_width, 3)
        memory, stream = cuda.allocate(int(np.prod(shape))), cuda.stream()
        for value in (51, 255, 0):
            cuda.fill(memory.device, value, memory.nbytes, stream)
            if how == "__dlpack__":
                event = cuda.event()  # a DLPack producer orders itself; this one cannot
                cuda.record(event, stream)
                cuda.synchronize(event)
            picture = DlPack(memory.device, shape) if how == "__dlpack__" else Foreign(memory.device, shape, stream=stream)
            latent = session.encode(picture)
            assert (latent.symbols == value * 5 // 255).all()
            assert (session.encode(np.full(shape, value, np.uint8)).symbols == latent.symbols).all()
            assert (session.predict(latent).labels == int(latent.symbols.flat[0]) % 3).all()
        with pytest.raises(UsageError, match="an image on the GPU: a C-contiguous uint8 array"):
            session.encode(Foreign(memory.device, (8, 8, 3)))
    assert device.violations() == []
