"""What this machine is: the part of a report that makes its figures mean something elsewhere."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any


def machine_info() -> dict[str, Any]:
    """CPU name, usable cores, memory in GB, architecture, kernel."""
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "arch": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str | None]:
    """Python and the packages that compute; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("percodec", "numpy", "onnxruntime", "opencv-python-headless", "opencv-python"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if not name.startswith("opencv"):
                found[name] = None
    return found


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    try:
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


__all__ = ["machine_info", "usable_cores", "versions"]
