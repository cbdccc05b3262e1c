"""Ray, to work on: the cluster of RAY_ADDRESS, or one of this machine alone. Its work is `runtime.serve`'s and `export.fleet`'s.

Ray says nothing of itself to anybody, and where it is started here it listens on loopback alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from percodec.sdk.errors import BackendError

_LOG = logging.getLogger("percodec.ray")


def ray_module() -> Any:
    """Ray, quiet. Raises `BackendError` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # its default is to report to its maker
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else a thread that asks after the end begins a cluster of its own
    if not joins():
        # Where it is told that there are no other machines it listens on loopback; an address of 127.0.0.1 it would take for another.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise BackendError(f"a Ray cluster needs {error.name or 'ray'}; install with: pip install 'percodec[ray]'") from error
    return ray


def joins() -> bool:
    """Whether there is a cluster to join, by RAY_ADDRESS."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start(cpus: int = 0) -> Callable[[], None]:
    """Join the cluster of RAY_ADDRESS, or start one here with `cpus` (0: all). Returns what ends it, or leaves it.

    Raises `BackendError` where that cannot be done.
    """
    ray = ray_module()
    _leave_stdout_alone(ray)
    if ray.is_initialized():
        return lambda: None
    try:
        if joins():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            # "local": without an address it would join any cluster that runs on this machine.
            number = cpus or os.cpu_count()
            ray.init("local", num_cpus=number, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"the cluster of RAY_ADDRESS={os.environ['RAY_ADDRESS']}" if joins() else "Ray on this machine"
        raise BackendError(f"{where} cannot be had ({str(error).strip().splitlines()[0][:200]})") from error
    return lambda: ray.shutdown()


def _leave_stdout_alone(ray: Any) -> None:
    """Ray prints what went wrong in its processes on stdout, where our lines of JSON are; it has no switch for that."""

    def say(data: dict[str, Any], *rest: object, **more: object) -> None:
        _LOG.warning("Ray: %s", " ".join(map(str, data.get("lines", ())))[:300])

    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = say


__all__ = ["joins", "ray_module", "start"]
