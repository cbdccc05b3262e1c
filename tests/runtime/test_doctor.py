"""The TensorRT part of `percodec doctor`, on facts of machines that are not here."""

from __future__ import annotations

from pathlib import Path

from percodec.runtime.commands.doctor import examine, render, tensorrt_checks
from percodec.sdk.targets import Facts


def test_a_jetson_is_described_in_one_line() -> None:
    checks = tensorrt_checks([Facts("tensorrt", (10, 3, 0), "8.7", (12, 6), (6, 2, 0), dla_cores=2)])
    assert [(c.name, c.status) for c in checks] == [("tensorrt", "ok"), ("tensorrt-rtx", "missing")]
    assert checks[0].detail == (
        "10.3.0, CUDA 12.6, compute capability 8.7, 2 DLA cores, opset 19 and 20, targets orin-jp6, orin-jp7, agx-orin-jp7"
    )


def test_a_trap_that_stops_fails_and_one_that_does_not_only_tells() -> None:
    stopped = tensorrt_checks([Facts("tensorrt", (10, 13, 3), "8.7", (13, 0))])
    text = render(stopped)
    assert [c.status for c in stopped if c.name == "trap"] == ["fail", "missing"]
    assert "Target GPU SM 87 is not supported" in text
    assert "-> use JetPack 7.2" in text
    assert "not ready: trap" in text
    lacking = tensorrt_checks([Facts("tensorrt", (10, 16, 2), "8.7", (13, 2), (7, 2, 0))])
    assert [c.status for c in lacking if c.name == "trap"] == ["missing"]
    assert "not ready" not in render(lacking)


def test_without_tensorrt_an_isolated_environment_on_a_jetson_is_told() -> None:
    checks = tensorrt_checks([Facts(capability="8.7", jetpack=(6, 2, 0), isolated_venv=True)])
    assert [c.status for c in checks] == ["missing", "missing", "fail"]
    assert checks[-1].fix == "python3 -m venv --system-site-packages .venv"


def test_a_bundle_without_a_head_passes_its_self_test() -> None:
    bundle = Path(__file__).parents[2] / "benchmarks/bundles/block-0.33"
    checks = {check.name: check for check in examine(bundle)}
    assert checks["self-test"].status == "ok", checks["self-test"]
    assert "labels" not in checks["self-test"].detail
