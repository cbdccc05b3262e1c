"""Units on a Ray cluster, by Ray Data: `blocks of items -> actors that hold the unit -> results`, a few under way at a time.

The driver keeps the items' names and one block of results. An actor or a node that dies is replaced and its block is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from percodec.runtime.cluster import ray_module
from percodec.sdk.errors import BackendError

BLOCKS = 1000  # at most; what a worker takes at a time


def ray_data_module() -> Any:
    """Ray with Ray Data. Raises `BackendError` where something of it is not installed."""
    ray = ray_module()
    try:
        import ray.data
    except ImportError as error:
        raise BackendError(f"Ray Data needs {error.name or 'ray'}; install with: pip install 'percodec[ray]'") from error
    return ray


def run(unit: Callable[..., Any], items: Sequence[tuple[Any, ...]], number: int, gpus: float) -> Iterator[Any]:
    """`unit(*item)` of each, on up to `number` workers (0: as many as the cluster has CPUs, or GPUs for). Raises what a unit raises."""
    ray = ray_data_module()
    if not items:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    have = ray.cluster_resources()
    most = number or max(1, int(have.get("GPU", 0) / gpus) if gpus else int(have.get("CPU", 1)))
    rows = [{"item": _Held(item)} for item in items]
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
    done = data.map_batches(
        Actor, fn_constructor_args=(unit,), batch_size=1, batch_format="numpy", concurrency=(1, most), num_cpus=1, num_gpus=gpus
    )
    for batch in done.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for result in batch["result"]:
            if isinstance(result.value, Exception):
                raise result.value  # a full disk is a full disk wherever it is
            yield result.value


@dataclass
class _Held:
    """A value that Ray Data takes as it is, and not apart into columns."""

    value: Any


class Actor:
    """A Ray worker: a batch of one item -> a batch of one result, or of what the unit raised."""

    def __init__(self, unit: Callable[..., Any]) -> None:
        self.unit = unit

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = np.empty(len(batch["item"]), object)
        found[:] = [_Held(self._result(held.value)) for held in batch["item"]]
        return {"result": found}

    def _result(self, item: tuple[Any, ...]) -> Any:
        try:
            return self.unit(*item)
        except Exception as error:
            return error


__all__ = ["BLOCKS", "Actor", "ray_data_module", "run"]
