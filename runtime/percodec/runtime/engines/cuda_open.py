"""One device through one provider: asked for by name, or the first of `PROVIDERS` that is installed; there is no fallback after that."""

from __future__ import annotations

import functools
import importlib

from percodec.runtime.engines.cuda import Cuda
from percodec.sdk.errors import BackendError, reason

PROVIDERS = ("cuda-python", "pycuda")


def open_cuda(provider: str | None = None, device: int = 0) -> Cuda:
    """Device `device` through `provider`, or the first one installed. Raises `BackendError` saying what is missing."""
    if provider is not None and provider not in PROVIDERS:
        raise BackendError(f"unknown CUDA provider {provider!r}; known: {', '.join(PROVIDERS)}")
    missing = []
    for name in (provider,) if provider else PROVIDERS:
        try:
            if name == "pycuda":
                from percodec.runtime.engines.cuda_pycuda import PyCuda

                return PyCuda(device)
            from percodec.runtime.engines.cuda_python import CudaPython

            return CudaPython(device)
        except ImportError as error:
            package = {"cuda-python": "cuda-bindings", "pycuda": "pycuda"}[str(name)]
            missing.append(f"{name}: {reason(error)} (pip install {package})")
    raise BackendError("no CUDA provider can be used: " + "; ".join(missing))


@functools.cache
def shared_cuda(provider: str | None = None, device: int = 0) -> Cuda:
    """The process's device, opened once: cameras, engines and tools share its context. Raises like `open_cuda`."""
    return open_cuda(provider, device)


def check_provider(name: str) -> str:
    """ "" when a provider can be imported, else why not. Starts no context."""
    module = {"cuda-python": "cuda.bindings.driver", "pycuda": "pycuda.driver"}[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"{module} cannot be imported ({reason(error)})"
    return ""


__all__ = ["PROVIDERS", "check_provider", "open_cuda", "shared_cuda"]
