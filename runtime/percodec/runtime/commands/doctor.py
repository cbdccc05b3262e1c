"""`percodec doctor`: what this machine can run, what it cannot, and how to change that. Looks, never loads GPU libraries."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percodec.runtime.capture.opencv import build_supports, opencv
from percodec.runtime.commands.arguments import bundle_path
from percodec.runtime.engines.cuda_open import check_provider
from percodec.runtime.engines.onnxruntime import onnxruntime
from percodec.runtime.engines.open import open_engine
from percodec.runtime.engines.selftest import run_selftest
from percodec.runtime.session import open_bundle
from percodec.sdk.device import facts
from percodec.sdk.errors import PercodecError
from percodec.sdk.machine import machine_info, versions
from percodec.sdk.targets import TARGETS, Facts, traps
from percodec.sdk.text import printable


@dataclass(frozen=True)
class Check:
    """One line. `status`: "ok", "missing" (optional, absent) or "fail" (needed, not working)."""

    name: str
    status: str
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def examine(bundle_path: Path) -> list[Check]:
    """All checks, needed ones first. The CPU path works when none of them has status "fail"."""
    machine, found = machine_info(), versions()
    checks = [
        _python(),
        Check("cpu", "ok", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['arch']}"),
        Check("numpy", "ok", str(found["numpy"])),
    ]
    checks += [_onnxruntime(), _opencv(), *_bundle(bundle_path)]
    checks += [_gstreamer(), _cameras()]
    checks += tensorrt_checks(facts())
    checks += _providers()
    device = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-gpu").exists() or Path("/dev/nvmap").exists()
    checks.append(Check("nvidia gpu", "ok" if device else "missing", "device found" if device else "no device; everything runs on the CPU"))
    return checks


def render(checks: list[Check]) -> str:
    """Aligned lines and a verdict."""
    lines = []
    for check in checks:
        lines.append(f"{check.status:<8} {check.name:<13} {check.detail}")
        if check.fix and check.status != "ok":
            lines.append(f"{'':<22} -> {check.fix}")
    failed = [check.name for check in checks if check.status == "fail"]
    lines.append("")
    lines.append(f"not ready: {', '.join(failed)}" if failed else "ready: the CPU path works; try `percodec demo`")
    return "\n".join(lines)


def tensorrt_checks(found: list[Facts]) -> list[Check]:
    """One line per TensorRT flavour, and one per trap this machine is in."""
    how = {
        "tensorrt": "Jetson: comes with JetPack; elsewhere: pip install tensorrt (needs an NVIDIA GPU)",
        "tensorrt_rtx": "pip install tensorrt-rtx (needs an NVIDIA GPU to run engines)",
    }
    checks = []
    for flavour, fix in how.items():
        mine = next((f for f in found if f.flavour == flavour), None)
        if mine is None:
            checks.append(Check(flavour.replace("_", "-"), "missing", "not installed; not needed on the CPU", fix))
            continue
        fits = [t.name for t in TARGETS.values() if t.flavour == flavour and t.capability == mine.capability]
        words = [
            ".".join(map(str, mine.version)),
            f"CUDA {'.'.join(map(str, mine.cuda))}" if mine.cuda else "",
            f"compute capability {mine.capability}" if mine.capability else "no GPU seen",
            f"{mine.dla_cores} DLA cores" if mine.dla_cores else "no DLA",
            "opset 19 and 20",
            f"targets {', '.join(fits)}" if fits else "",
        ]
        checks.append(Check(flavour.replace("_", "-"), "ok", ", ".join(w for w in words if w)))
    for mine in found:
        checks += [Check("trap", "fail" if t.stops else "missing", f"{t.name}: {t.what}", t.fix) for t in traps(mine)]
    return checks


def _providers() -> list[Check]:
    words = {
        "cuda-python": ("CUDA graphs, stream priorities; the first choice", "pip install percodec[cuda]"),
        "pycuda": (
            "its memory and context; graphs and stream priorities, which it lacks, through the driver library",
            "pip install percodec[pycuda] (builds from source, needs the CUDA toolkit)",
        ),
    }
    checks = []
    for name, (what, fix) in words.items():
        why = check_provider(name)
        checks.append(Check(name, "missing" if why else "ok", f"{why}; not needed on the CPU" if why else what, fix if why else ""))
    return checks


def _python() -> Check:
    text = ".".join(map(str, sys.version_info[:3]))
    return Check("python", "ok", text) if sys.version_info >= (3, 10) else Check("python", "fail", text, "use Python 3.10 or newer")


def _onnxruntime() -> Check:
    try:
        ort = onnxruntime()
    except PercodecError as error:
        return Check("onnxruntime", "fail", str(error), "pip install percodec[ort]")
    return Check("onnxruntime", "ok", f"{ort.__version__} ({', '.join(ort.get_available_providers())})")


def _opencv() -> Check:
    try:
        cv2 = opencv()
        video = "video files" if build_supports("FFMPEG") else "no video files (built without FFMPEG)"
        camera = "V4L2 cameras" if build_supports("v4l/v4l2") else "no V4L2 cameras"
        return Check("opencv", "ok", f"{cv2.__version__} ({video}, {camera})")
    except PercodecError as error:
        return Check("opencv", "fail", str(error), "pip install percodec[ort]")


def _gstreamer() -> Check:
    try:
        if build_supports("GStreamer"):
            return Check("gstreamer", "ok", "gstreamer:// sources work")
    except PercodecError:
        pass
    return Check("gstreamer", "missing", "this OpenCV was built without it", "use JetPack's or the distribution's python3-opencv")


def _cameras() -> Check:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if devices:
        return Check("cameras", "ok", ", ".join(devices))
    return Check("cameras", "missing", "no /dev/video* device", "plug one in; in a container pass --device /dev/video0")


def _bundle(path: Path) -> list[Check]:
    try:
        bundle = open_bundle(path)
        checks = [
            Check("bundle", "ok", f"{bundle.name} {bundle.digest[:12]}, {bundle.frame_width}x{bundle.frame_height}, every file as declared")
        ]
        checks += [Check("bundle", "ok", note) for note in bundle.notes]
    except PercodecError as error:
        return [Check("bundle", "fail", str(error), "reinstall percodec, or name a bundle with --bundle")]
    try:
        encoder = open_engine(bundle, "encoder")
        head = open_engine(bundle, "head_segmentation") if "head_segmentation" in bundle.manifest["graphs"] else None
        test = run_selftest(bundle, encoder, head)
        shares = f"{test.symbol_disagreement:.3%} symbols differ"
        shares += "" if test.label_agreement is None else f", {test.label_agreement:.3%} labels agree"
        detail = f"{encoder.precision}, {test.vectors} vectors: {shares}"
        checks.append(Check("self-test", "ok", detail))
    except PercodecError as error:
        checks.append(Check("self-test", "fail", str(error), "this machine computes something else than the bundle says; do not use it"))
    return checks


def configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to check (default: the built-in road)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def doctor(args: argparse.Namespace) -> int:
    checks = examine(bundle_path(args))
    print(json.dumps([check.as_dict() for check in checks], indent=2) if args.json else printable(render(checks)))
    return 1 if any(check.status == "fail" for check in checks) else 0


__all__ = ["Check", "configure_doctor", "doctor", "examine", "render", "tensorrt_checks"]
