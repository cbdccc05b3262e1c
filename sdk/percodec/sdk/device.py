"""What this machine says of itself, for targets and traps: read from files and package metadata, nothing is loaded or run on a GPU."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from percodec.sdk.targets import Facts, Version, version_tuple

_TEGRA = {"tegra234": "8.7", "tegra264": "11.0"}  # Orin, Thor
_L4T_JETPACK = {(36, 3): (6, 0), (36, 4): (6, 1), (36, 5): (6, 2), (38, 2): (7, 0), (38, 4): (7, 1), (39, 2): (7, 2)}


def facts(root: Path = Path("/")) -> list[Facts]:
    """One entry per installed TensorRT flavour; without any, one that says where this is. `root`: for tests on recorded machines."""
    where = Facts(
        capability=capability(root),
        cuda=cuda(root),
        jetpack=jetpack(root),
        dla_cores=dla_cores(root),
        isolated_venv=sys.prefix != sys.base_prefix and not _system_site_packages(),
    )
    found = []
    for flavour in ("tensorrt", "tensorrt_rtx"):
        if find_spec(flavour) is None:
            continue
        version, from_pypi, package_cuda = package(flavour)
        found.append(where._replace(flavour=flavour, version=version, from_pypi=from_pypi, cuda=package_cuda or where.cuda))
    return found or [where]


def package(flavour: str) -> tuple[Version, bool, Version]:
    """(version, from PyPI, CUDA major of a PyPI package) of an installed flavour, without importing it."""
    names = sorted({n.lower().replace("-", "_") for n in importlib.metadata.packages_distributions().get(flavour, [])})
    version: Version = ()
    for name in names:
        version = max(version, version_tuple(importlib.metadata.version(name)))
    major = next((n.partition("_cu")[2][:2] for n in names if "_cu" in n), "")
    return version, bool(major), (int(major),) if major else ()


def capability(root: Path = Path("/")) -> str:
    """CUDA compute capability: of the chip on a Jetson, by nvidia-smi elsewhere; "" without a GPU."""
    try:
        words = (root / "proc/device-tree/compatible").read_bytes().decode("ascii", "replace")
    except OSError:
        words = ""
    chip = re.search(r"tegra\d+", words)
    if chip:
        return _TEGRA.get(chip[0], "")
    tool = shutil.which("nvidia-smi") if root == Path("/") else None
    if tool is None:
        return ""
    try:
        done = subprocess.run(
            [tool, "--query-gpu=compute_cap", "--format=csv,noheader"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"^\s*(\d+\.\d+)", done.stdout)
    return found[1] if found else ""


def jetpack(root: Path = Path("/")) -> Version:
    """From the L4T release file, () where this is no Jetson. The third number is the L4T revision's where JetPack follows it."""
    try:
        text = (root / "etc/nv_tegra_release").read_text(errors="replace")
    except OSError:
        return ()
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+)\.(\d+)", text)
    if not found:
        return ()
    major, minor, patch = (int(g) for g in found.groups())
    return (*_L4T_JETPACK.get((major, minor), (0, 0)), patch)


def cuda(root: Path = Path("/")) -> Version:
    """Of the toolkit in /usr/local/cuda, () without one."""
    try:
        text = (root / "usr/local/cuda/version.json").read_text(errors="replace")
    except OSError:
        return ()
    found = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', text)
    return version_tuple(found[1])[:2] if found else ()


def dla_cores(root: Path = Path("/")) -> int:
    """Deep-learning accelerators that the device tree names."""
    return len({p.name for p in (root / "sys/class/nvhost-nvdla").glob("*")} or set((root / "dev").glob("nvhost-ctrl-nvdla*")))


def _system_site_packages() -> bool:
    try:
        text = (Path(sys.prefix) / "pyvenv.cfg").read_text(errors="replace")
    except OSError:
        return True
    return re.search(r"include-system-site-packages\s*=\s*true", text, re.IGNORECASE) is not None


__all__ = ["capability", "cuda", "dla_cores", "facts", "jetpack", "package"]
