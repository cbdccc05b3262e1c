"""Builds what the GPU tests stand on: the fake driver, and pycuda from source where pip has only that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PYCUDA = "pycuda==2026.1"


def build_driver(folder: Path) -> Path:
    """libcuda.so.1 in `folder`, and libcuda.so beside it to link against."""
    folder.mkdir(exist_ok=True)
    library = folder / "libcuda.so.1"
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *options, "-o", str(library), str(HERE / "fake_cuda.cpp"), "-ldl", "-pthread"], check=True)
    (folder / "libcuda.so").symlink_to(library.name)
    return library


def cuda_toolkit() -> Path | None:
    """A CUDA toolkit's folder, as far as pycuda needs it: cuda.h."""
    nvcc = shutil.which("nvcc")
    for place in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", nvcc and Path(nvcc).resolve().parents[1]):
        if place and (Path(place) / "include" / "cuda.h").exists():
            return Path(place)
    return None


def pycuda_path(folder: Path, driver: Path) -> tuple[list[str], str]:
    """Folders to put on PYTHONPATH so that pycuda can be imported over the fake driver, or why that cannot be had here."""
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; raise SystemExit(u.find_spec('pycuda') is None)"], check=False
    )
    if found.returncode == 0:
        return [], ""
    toolkit = cuda_toolkit()
    if toolkit is None:
        return [], "pycuda has no wheels and is built from source; that needs a CUDA toolkit (cuda.h), and there is none"
    # Kept between runs: the build takes more than a minute.
    place = Path(os.environ.get("PERCODEC_TEST_CACHE", ROOT / "build")) / f"pycuda-{sys.version_info[0]}{sys.version_info[1]}"
    if not (place / "pycuda").is_dir():
        why = _build_pycuda(folder, place, toolkit, driver)
        if why:
            return [], why
    return [str(place)], ""


def _build_pycuda(folder: Path, place: Path, toolkit: Path, driver: Path) -> str:
    tools = folder / "tools"

    def run(words: list[object], cwd: Path = ROOT, **more: str) -> str:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True, check=False)
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        return "" if done.returncode == 0 else " ".join(last) or f"exit code {done.returncode}"

    # pip runs from the root: PIP_CONSTRAINT may name the constraints relative to it.
    why = run(["-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "-d", folder, PYCUDA])
    archive = next(folder.glob("pycuda-*.tar.gz"), None)  # pip may fail after the download, at the package's metadata
    if archive is None:
        return f"{PYCUDA} cannot be downloaded: {why}"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
    source = next(p for p in folder.iterdir() if p.is_dir() and p.name.startswith("pycuda-"))
    if why := run(["-m", "pip", "install", "-q", "--target", tools, "setuptools", "wheel", "numpy"]):
        return f"the build tools cannot be had: {why}"
    configure = ["configure.py", f"--cuda-root={toolkit}", f"--cudadrv-lib-dir={driver.parent}", "--no-cuda-enable-curand"]
    if why := run(configure, source, PYTHONPATH=str(tools)) or run(
        ["-m", "pip", "install", "-q", "--no-build-isolation", "--target", place, source], PYTHONPATH=str(tools), CFLAGS="-O0 -g0"
    ):
        shutil.rmtree(place, ignore_errors=True)
        return f"{PYCUDA} does not build with {toolkit}: {why}"
    return ""


__all__ = ["build_driver", "cuda_toolkit", "pycuda_path"]
