"""`percodec run --backend tensorrt` from a bundle on disk: engines found by this device, checked, run, logged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import engine_bytes
from tiny_bundle import make_bundle

from percodec.runtime.engines.cuda_open import shared_cuda
from percodec.runtime.engines.open import graph_specs, open_slots
from percodec.runtime.run.live import run_live
from percodec.runtime.run.settings import RunSettings
from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, write_engine
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import BackendError, EngineError

PROVIDER = os.environ["PERCODEC_PROVIDER"]
CAMERA = CameraFormat.from_text("nv12:128x96")


@pytest.fixture
def device(driver: Any) -> Any:
    """A fresh driver and a fresh shared device; networks that pass on the picture's brightness."""
    shared_cuda.cache_clear()
    driver.trt.compute = lambda name, given: {"symbols": int(given.max()) * 5 // 255, "labels": int(given[0]) % 3}.get(name, int(given[0]))
    yield driver
    shared_cuda.cache_clear()


def build(
    folder: Path, *, target: str = "orin-jp6", precision: str = "fp16", version: str = "10.3.0", graphs: tuple[str, ...] = ()
) -> Bundle:
    """The tiny bundle with fake engines, recorded as `percodec build` would."""
    bundle = Bundle.open(folder) if folder.exists() else make_bundle(folder)
    for graph in graphs or ("encoder", "head_segmentation"):
        taken, given = graph_specs(bundle, graph)
        source = "0" * 64 if graph == CAMERA.graph else hashlib.sha256(bundle.graph(graph)).hexdigest()
        key = EngineKey(
            bundle.digest, graph, source, "0" * 64, precision, target, "tensorrt", version, "8.7", "12.6", ("STRONGLY_TYPED",), ("fixed",)
        )
        write_engine(bundle.path, key, engine_bytes(taken, *given), {"layers": 1})
    return bundle


def run(folder: Path, bundle: Path, **more: Any) -> Any:
    settings = RunSettings(
        "synthetic://road?frames=12&seed=1", folder, bundle, backend="tensorrt", provider=PROVIDER, overlay=False, sheet=False,
        selftest=False, **more,
    )  # fmt: skip
    return run_live(settings)


def test_run_on_a_gpu(device, tmp_path):
    build(tmp_path / "tiny")
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
    build(tmp_path / "tiny", precision="fp16")
    bundle = build(tmp_path / "tiny", precision="int8+fp16")
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
    bundle = build(tmp_path / "tiny", version="10.2.0")
    with pytest.raises(EngineError, match=r"version '10\.3\.0' here, '10\.2\.0' in the engine"):
        open_slots(bundle, backend="tensorrt", provider=PROVIDER)


def test_fi09_a_backend_that_is_not_there_is_no_other_backend(device, tmp_path):
    bundle = build(tmp_path / "tiny")
    for backend, why in (("tensorrt_rtx", r"tensorrt_rtx|compute capability 8\.7"), ("cuda", "unknown backend 'cuda'")):
        with pytest.raises(BackendError, match=why):
            open_slots(bundle, backend=backend, provider=PROVIDER)
    shared_cuda.cache_clear()
    device.fail("cuDevicePrimaryCtxRetain", 100)
    with pytest.raises(BackendError, match=r"driver|cuDevice"):
        run(tmp_path / "out", tmp_path / "tiny")


def test_a_cameras_pictures_are_prepared_on_the_device(device, tmp_path):
    bundle = build(tmp_path / "tiny", graphs=("encoder", "head_segmentation", CAMERA.graph))
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
