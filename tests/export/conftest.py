"""A tiny CamVid tree with the true layout, palette-free ids and an unlabelled border."""

import contextlib
import functools
import json

import numpy as np
import pytest

from percodec.runtime.capture.opencv import opencv
from percodec.sdk.errors import BackendError

with contextlib.suppress(BackendError):
    opencv()  # quiet, before a test module imports cv2 by itself


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny networks: a second thread only waits for the first, badly so on a busy machine."""
    torch = pytest.importorskip("torch", reason="needs the export extra")
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def one_table_of_operators():
    """torch makes the table anew for every graph it exports, which takes as long as the rest of the export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    made = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(made))
        yield


@pytest.fixture(scope="session")
def camvid(tmp_path_factory):
    image_module = pytest.importorskip("PIL.Image", reason="needs the export extra")
    from percodec.sdk.synthetic.road import RoadScene

    root = tmp_path_factory.mktemp("camvid")
    for split, count in (("train", 3), ("val", 2)):
        (root / split).mkdir()
        (root / f"{split}_labels").mkdir()
        for k in range(count):
            image, label = RoadScene(10 * count + k, 176, 240).render(0)
            label[:2] = 11
            image_module.fromarray(image).save(root / split / f"{k:03d}.png")
            image_module.fromarray(label.astype(np.uint8)).save(root / f"{split}_labels" / f"{k:03d}.png")
    return root


@pytest.fixture(scope="session")
def restorer(tmp_path_factory):
    """A small restorer with random weights, as its file."""
    from support.restoring import FACTS, wake

    from percodec.export.restore.networks import Residual
    from percodec.export.restore.restorer import KEY
    from percodec.export.restore.to_onnx import restorer_graph

    path = tmp_path_factory.mktemp("restorer") / "restorer.onnx"
    path.write_bytes(restorer_graph(wake(Residual(width=8, blocks=1)), None, {KEY: json.dumps(FACTS)}))
    return path


@pytest.fixture(scope="session")
def twin(camvid, tmp_path_factory):
    """The tiny CamVid tree as it comes back from JPEG."""
    from percodec.export.restore.mirror import mirror
    from percodec.export.restore.transforms import Compress

    out = tmp_path_factory.mktemp("twin") / "jpeg"
    mirror(camvid, out, Compress("jpeg:q10"))
    return out
