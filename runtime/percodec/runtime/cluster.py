"""Ray, to work on: the cluster of RAY_ADDRESS, or one of this machine alone. Its work is `runtime.serve`'s and `export.fleet`'s.

Ray says nothing of itself to anybody, and where it is started here it listens on loopback alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from percodec.sdk.errors import BackendError
from percodec.sdk.machine import usable_cores

_LOG = logging.getLogger("percodec.ray")
_UNHEARD = {  # what a dashboard would show, which a cluster of ours does not have
    "RAY_enable_metrics_collection": "false",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_DASHBOARD_AGGREGATOR_AGENT_CHECK_MAIN_THREAD_LIVENESS_INTERVAL_SECONDS": "10",
}


def ray_module() -> Any:
    """Ray, quiet. Raises `BackendError` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # its default is to report to its maker
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else a thread that asks after the end begins a cluster of its own
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # the handlers of its gRPC abort some processes that it forks
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
            os.environ |= {name: value for name, value in _UNHEARD.items() if name not in os.environ}
            # "local": without an address it would join any cluster that runs on this machine.
            number = cpus or usable_cores()
            ray.init("local", num_cpus=number, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            _end_idle_helpers(ray)
    except Exception as error:  # Ray raises it as such where its node does not come up
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if not joins():
            raise BackendError(f"Ray on this machine cannot be had ({reason})") from error
        # Ray tells of a token that it misses on stderr alone.
        hint = "" if os.environ.get("RAY_AUTH_MODE") else "; where it was started with a token, set RAY_AUTH_MODE=token"
        raise BackendError(f"the cluster of RAY_ADDRESS={os.environ['RAY_ADDRESS']} cannot be had ({reason}){hint}") from error
    return lambda: ray.shutdown()


def _end_idle_helpers(ray: Any) -> None:
    """Ray starts them whatever it is told, and they take 1 % of a core: what forwards logs, serves the dashboard, adds machines."""
    node = ray._private.worker.global_worker.node
    for name in ("log_monitor", "dashboard", "monitor"):
        with contextlib.suppress(AttributeError, KeyError):  # one that another version has no more
            getattr(node, f"kill_{name}")(check_alive=False)


def _leave_stdout_alone(ray: Any) -> None:
    """Ray prints what went wrong in its processes on stdout, where our lines of JSON are; it has no switch for that."""

    def say(data: dict[str, Any], *rest: object, **more: object) -> None:
        _LOG.warning("Ray: %s", " ".join(map(str, data.get("lines", ())))[:300])

    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = say


__all__ = ["joins", "ray_module", "start"]
