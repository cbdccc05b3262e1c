"""The table of targets, and each trap on facts recorded from machines that were in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from percodec.sdk import device
from percodec.sdk.device import facts
from percodec.sdk.errors import UsageError
from percodec.sdk.targets import TARGETS, TRAPS, Facts, target, traps, version_tuple

# What machines said of themselves: in the trap, and beside it.
RECORDED = {
    "no strong typing": (
        Facts("tensorrt", (8, 6, 2), "8.7", (12, 2), (6, 0, 0)),
        Facts("tensorrt", (10, 3, 0), "8.7", (12, 6), (6, 1, 0)),
    ),
    "Orin on a CUDA 13 build of TensorRT 10.13": (
        Facts("tensorrt", (10, 13, 3), "8.7", (13, 0), ()),
        Facts("tensorrt", (10, 13, 3), "11.0", (13, 0), (7, 0, 0)),
    ),
    "TensorRT 11 below JetPack 7.2.2": (
        Facts("tensorrt", (11, 2, 1), "11.0", (13, 0), (7, 1, 0)),
        Facts("tensorrt", (11, 4, 1), "8.7", (13, 2), (7, 2, 2)),
    ),
    "TensorRT from PyPI on a Jetson": (
        Facts("tensorrt", (10, 3, 0), "8.7", (12,), (6, 2, 0), from_pypi=True),
        Facts("tensorrt", (10, 3, 0), "8.9", (12,), (), from_pypi=True),
    ),
    "isolated environment on a Jetson": (
        Facts(capability="8.7", jetpack=(6, 1, 0), isolated_venv=True),
        Facts(capability="8.7", jetpack=(6, 1, 0)),
    ),
    "TensorRT-RTX on an unsupported GPU": (
        Facts("tensorrt_rtx", (1, 7, 1), "9.0", (13,)),
        Facts("tensorrt_rtx", (1, 7, 1), "8.9", (13,)),
    ),
    "INT8 on Turing with TensorRT-RTX": (
        Facts("tensorrt_rtx", (1, 7, 1), "7.5", (13,)),
        Facts("tensorrt_rtx", (1, 7, 1), "8.6", (13,)),
    ),
    "no DLA in this TensorRT": (
        Facts("tensorrt", (10, 16, 2), "8.7", (13, 2), (7, 2, 0)),
        Facts("tensorrt", (10, 3, 0), "8.7", (12, 6), (6, 2, 0)),
    ),
}


@pytest.mark.parametrize("name", [t.name for t in TRAPS])
def test_each_trap_is_found_and_its_neighbour_is_not(name):
    inside, outside = RECORDED[name]
    trap = next(t for t in traps(inside) if t.name == name)
    assert trap.what
    assert trap.fix
    assert name not in [t.name for t in traps(outside)]


def test_a_healthy_machine_is_in_none():
    assert traps(Facts("tensorrt", (10, 3, 0), "8.7", (12, 6), (6, 2, 0), dla_cores=2)) == []
    assert traps(Facts("tensorrt_rtx", (1, 7, 1), "8.9", (13,))) == []
    assert traps(Facts()) == []


@pytest.mark.parametrize("one", TARGETS.values(), ids=lambda t: t.name)
def test_targets_are_whole(one):
    assert target(one.name) is one
    assert one.opsets[0] <= 20 <= one.opsets[1], "what we export with"
    if one.flavour == "ort":
        assert not one.capability
        return
    assert version_tuple(one.capability) >= (8, 6)
    assert (10, 3) <= one.tensorrt[0] <= one.tensorrt[1] or one.flavour == "tensorrt_rtx"
    assert one.fp8 == (version_tuple(one.capability) >= (8, 9)), "FP8 begins at 8.9"
    assert ("fp8+fp16" in one.precisions) == one.fp8
    assert one.integrated == bool(one.jetpack)


def test_unknown_targets_name_the_known():
    with pytest.raises(UsageError, match="there are host, orin-jp6, orin-jp7"):
        target("orin")


ORIN = {
    "proc/device-tree/compatible": b"nvidia,p3737-0000+p3701-0005\x00nvidia,tegra234\x00",
    "etc/nv_tegra_release": b"# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "usr/local/cuda/version.json": b'{"cuda" : {"name" : "CUDA SDK", "version" : "12.6.68"}}',
    "dev/nvhost-ctrl-nvdla0": b"",
    "dev/nvhost-ctrl-nvdla1": b"",
}


def machine(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_jetson_is_recognised(tmp_path):
    root = machine(tmp_path, ORIN)
    (found,) = {f._replace(flavour="", version=(), from_pypi=False, cuda=device.cuda(root), isolated_venv=False) for f in facts(root)}
    assert found == Facts(capability="8.7", cuda=(12, 6), jetpack=(6, 1, 3), dla_cores=2)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("R36 (release), REVISION: 3.0", (6, 0, 0)),
        ("R38 (release), REVISION: 2.0", (7, 0, 0)),
        ("R39 (release), REVISION: 2.1", (7, 2, 1)),
        ("?", ()),
    ],
)
def test_jetpack_follows_from_the_release_file(tmp_path, release, expected):
    assert device.jetpack(machine(tmp_path, {"etc/nv_tegra_release": f"# {release}, GCID: 1".encode()})) == expected


def test_a_machine_without_anything_says_nothing(tmp_path):
    for found in facts(tmp_path):
        assert (found.capability, found.jetpack, found.dla_cores) == ("", (), 0)
    broken = {name: b"\xff\xfe broken" for name in ORIN if not name.startswith("dev")}
    assert device.capability(machine(tmp_path, broken)) == ""
    assert device.jetpack(tmp_path) == ()
    assert device.cuda(tmp_path) == ()


@pytest.mark.parametrize(("text", "numbers"), [("10.13.3.9.post1", (10, 13, 3, 9)), ("1.7", (1, 7)), ("", ()), ("x", ())])
def test_versions(text, numbers):
    assert version_tuple(text) == numbers
