"""Vehicle computers by name: what they can build and run, and the traps people fell into.

A table, not code that asks the machine: `percodec build` chooses by it on the workstation, `percodec doctor` judges by it on the vehicle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from percodec.sdk.errors import UsageError

Version = tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """One device. `capability`: CUDA compute capability, "" for a CPU. Version ranges: first and last that are known to work."""

    name: str
    what: str
    flavour: str
    capability: str = ""
    jetpack: str = ""
    tensorrt: tuple[Version, Version] = ((0,), (0,))
    cuda: str = ""
    opsets: tuple[int, int] = (19, 20)
    fp8: bool = False
    dla: bool = False
    integrated: bool = False
    python: str = "3.10 and later"
    notes: tuple[str, ...] = field(default=())

    @property
    def precisions(self) -> tuple[str, ...]:
        """What can be asked for here."""
        if self.flavour == "ort":
            return ("fp32", "fp16", "int8")
        return ("fp32", "fp16", "int8", "int8+fp16", *(("fp8+fp16",) if self.fp8 else ()))


_RTX: tuple[Version, Version] = ((1, 2), (1, 99))
_NO_SMALL_INT8 = "INT8 is not a given win: build its FP16 twin and compare"
_LIST = (
    Target("host", "this CPU, ONNX Runtime", "ort", opsets=(17, 23)),
    Target(
        "orin-jp6",
        "Jetson Orin, JetPack 6.1 .. 6.2.2",
        "tensorrt",
        "8.7",
        "6.1 .. 6.2.2",
        ((10, 3), (10, 7)),
        "12.6",
        dla=True,
        integrated=True,
        python="3.10",
        notes=("stays on TensorRT 10 for ever", _NO_SMALL_INT8),
    ),
    Target(
        "orin-jp7",
        "Jetson Orin, JetPack 7.2 .. 7.2.1",
        "tensorrt",
        "8.7",
        "7.2 .. 7.2.1",
        ((10, 16), (10, 99)),
        "13.2",
        integrated=True,
        python="3.12",
        notes=("no DLA in TensorRT 10.8 .. 10.16", _NO_SMALL_INT8),
    ),
    Target(
        "agx-orin-jp7",
        "Jetson AGX Orin, JetPack 7.2.2 and later",
        "tensorrt",
        "8.7",
        "7.2.2 and later",
        ((11, 4), (11, 99)),
        "13.2",
        dla=True,
        integrated=True,
        python="3.12",
        notes=("DLA is back on AGX Orin only", _NO_SMALL_INT8),
    ),
    Target(
        "thor-jp7",
        "Jetson Thor, JetPack 7.0 and later",
        "tensorrt",
        "11.0",
        "7.0 and later",
        ((10, 13), (11, 99)),
        "13.0",
        fp8=True,
        integrated=True,
        python="3.12",
    ),
    Target("hopper", "H100, H200", "tensorrt", "9.0", tensorrt=((10, 3), (11, 99)), cuda="12.6 and later", fp8=True),
    Target("rtx-ampere", "GeForce RTX 30, RTX A", "tensorrt_rtx", "8.6", tensorrt=_RTX, cuda="12.9 and later"),
    Target("rtx-ada", "GeForce RTX 40, RTX Ada", "tensorrt_rtx", "8.9", tensorrt=_RTX, cuda="12.9 and later", fp8=True),
    Target("rtx-blackwell", "GeForce RTX 50, RTX PRO", "tensorrt_rtx", "12.0", tensorrt=_RTX, cuda="12.9 and later", fp8=True),
)
TARGETS: dict[str, Target] = {t.name: t for t in _LIST}


def target(name: str) -> Target:
    """By name. Raises `UsageError` with those there are."""
    found = TARGETS.get(name)
    if found is None:
        raise UsageError(f"target {name!r} is not known; there are {', '.join(TARGETS)}")
    return found


class Facts(NamedTuple):
    """What a machine says of itself; empty where it says nothing."""

    flavour: str = ""
    version: Version = ()
    capability: str = ""
    cuda: Version = ()
    jetpack: Version = ()
    dla_cores: int = 0
    isolated_venv: bool = False
    from_pypi: bool = False


class Trap(NamedTuple):
    """Something that goes wrong on machines with certain facts, and what to do."""

    name: str
    applies: Callable[[Facts], bool]
    what: str
    fix: str
    stops: bool = True  # False: worth knowing, engines run all the same


TRAPS: tuple[Trap, ...] = (
    Trap(
        "no strong typing",
        lambda f: f.flavour == "tensorrt" and bool(f.version) and f.version < (10, 0),
        "this TensorRT has no strongly typed networks (JetPack 6.0 carries 8.6)",
        "update to JetPack 6.1 or later",
    ),
    Trap(
        "Orin on a CUDA 13 build of TensorRT 10.13",
        lambda f: f.flavour == "tensorrt" and f.capability == "8.7" and f.version[:2] == (10, 13) and f.cuda[:1] == (13,),
        '"Target GPU SM 87 is not supported by this TensorRT release": that build has no code for Orin',
        "use JetPack 7.2 (TensorRT 10.16), or JetPack 6",
    ),
    Trap(
        "TensorRT 11 below JetPack 7.2.2",
        lambda f: f.flavour == "tensorrt" and f.version[:1] == (11,) and bool(f.jetpack) and f.jetpack < (7, 2, 2),
        "TensorRT 11 does not support this JetPack",
        "update to JetPack 7.2.2 or later, or use the TensorRT that came with this one",
    ),
    Trap(
        "TensorRT from PyPI on a Jetson",
        lambda f: f.flavour == "tensorrt" and bool(f.jetpack) and f.from_pypi,
        "a TensorRT from PyPI hides JetPack's, which alone matches the driver and has DLA",
        "pip uninstall tensorrt; make the environment with --system-site-packages",
    ),
    Trap(
        "isolated environment on a Jetson",
        lambda f: f.isolated_venv and bool(f.jetpack) and not f.flavour,
        "JetPack's TensorRT is outside this virtual environment",
        "python3 -m venv --system-site-packages .venv",
    ),
    Trap(
        "TensorRT-RTX on an unsupported GPU",
        lambda f: f.flavour == "tensorrt_rtx" and f.capability in ("8.7", "9.0", "10.0", "11.0"),
        "TensorRT-RTX has no code for this GPU (it is for GeForce and RTX boards)",
        "use TensorRT: JetPack's on a Jetson, the PyPI package elsewhere",
    ),
    Trap(
        "INT8 on Turing with TensorRT-RTX",
        lambda f: f.flavour == "tensorrt_rtx" and f.capability == "7.5",
        "Q/DQ networks do not build for Turing there",
        "build fp16",
    ),
    Trap(
        "no DLA in this TensorRT",
        lambda f: f.flavour == "tensorrt" and f.capability == "8.7" and (10, 8) <= f.version < (11, 4),
        "TensorRT 10.8 .. 10.16 cannot use Orin's deep-learning accelerators",
        "engines run on the GPU; JetPack 6 or, on AGX Orin, 7.2.2 has DLA",
        stops=False,
    ),
)


def traps(facts: Facts) -> list[Trap]:
    """Those a machine with these facts is in."""
    return [t for t in TRAPS if t.applies(facts)]


def version_tuple(text: str) -> Version:
    """ "10.13.3.9.post1" -> (10, 13, 3, 9)."""
    numbers = []
    for word in text.split("."):
        if not word.isdecimal():
            break
        numbers.append(int(word))
    return tuple(numbers)


__all__ = ["TARGETS", "TRAPS", "Facts", "Target", "Trap", "target", "traps", "version_tuple"]
