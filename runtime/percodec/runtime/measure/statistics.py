"""What a list of times says, in the words of trtexec and of real-time reviews. Pure functions of arrays; milliseconds in and out.

Percentiles are nearest-rank, as trtexec's: a value that really happened. `jitter` is the mean absolute difference of one frame's time to
the next one's (RFC 3550 takes the same quantity, smoothed); `cv` the coefficient of variation, standard deviation over mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percodec.runtime.pipeline.timing import PERCENTILES, Spans


def percentile(values: NDArray[np.float64], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` percent do not exceed. `values` must not be empty."""
    return float(np.percentile(values, share, method="inverted_cdf"))


def distribution(values: ArrayLike) -> dict[str, Any]:
    """count, min, mean, max, p50 .. p99.9, cv; `{"count": 0}` of nothing."""
    data = np.asarray(values, np.float64)
    if data.size == 0:
        return {"count": 0}
    mean = float(data.mean())
    out = {"count": int(data.size), "min": float(data.min()), "mean": mean, "max": float(data.max())}
    out |= {f"p{share:g}": percentile(data, share) for share in PERCENTILES}
    out["cv"] = float(data.std()) / mean if mean > 0 else 0.0
    return {name: value if name == "count" else round(value, 4) for name, value in out.items()}


def end_to_end(ages: ArrayLike, deadline_ms: float | None, captured: int) -> dict[str, Any]:
    """Capture timestamp to result. A frame misses its deadline when its result comes too late or never."""
    data = np.asarray(ages, np.float64)
    out = distribution(data)
    if data.size:
        out["jitter"] = round(float(np.abs(np.diff(data)).mean()) if data.size > 1 else 0.0, 4)
    if deadline_ms is not None:
        out |= {"deadline": deadline_ms, "missed": int((data > deadline_ms).sum()) + max(0, captured - int(data.size))}
    return out


def slowest_stage(stages: dict[str, dict[str, Any]], workers: int, device_ms: float | None = None) -> tuple[str, float]:
    """The stage that bounds the throughput, and its time per frame: several workers share theirs; a device works on one frame at a time."""
    per_frame = {
        name: figures["mean"] / (workers if name == "predict" else 1)
        for name, figures in stages.items()
        if name not in ("age", "capture", "compute") and figures["count"] and not (device_ms is not None and name in ("encode", "predict"))
    }
    if device_ms is not None:
        per_frame["device"] = device_ms
    name = max(per_frame, key=lambda n: per_frame[n])
    return name, per_frame[name]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least squares, y per x; 0 for fewer than three points."""
    if len(x) < 3 or max(x) == min(x):
        return 0.0
    return float(np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)[0])


def trtexec(stages: dict[str, dict[str, Any]], run: dict[str, Any], device: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    """The run in trtexec's own words; its latency is upload + compute + download, without any waiting, which end-to-end has.

    On a CPU there is nothing to enqueue and nothing to copy: those are None.
    """
    words = {
        "min": "min",
        "max": "max",
        "mean": "mean",
        "median": "p50",
        "percentile(90%)": "p90",
        "percentile(95%)": "p95",
        "percentile(99%)": "p99",
    }

    def of(figures: dict[str, Any] | None) -> dict[str, float] | None:
        return {word: figures[name] for word, name in words.items()} if figures and figures["count"] else None

    compute = device["compute"] if device else stages.get("compute")
    return {
        "Throughput (qps)": run["fps"],
        "Latency (ms)": of(device["latency"] if device else compute),
        "End-to-End (ms)": of(run["end_to_end_ms"]),
        "Enqueue Time (ms)": of(stages.get("encode")) if device else None,
        "H2D Latency (ms)": of(device["h2d"]) if device else None,
        "GPU Compute Time (ms)": of(compute) if device else None,
        "CPU Compute Time (ms)": None if device else of(compute),
        "D2H Latency (ms)": of(device["d2h"]) if device else None,
        "Total Host Walltime (s)": run["seconds"],
    }


def queries(spans: dict[str, Spans]) -> list[dict[str, float]]:
    """One entry per predicted frame with trtexec --exportTimes' names, milliseconds since the first frame."""
    names = {"encode": "Enq", "predict": "Compute"}
    ages = spans.get("age")
    if ages is None or not len(ages.frame):
        return []
    zero = int(ages.begin_ns.min())
    at = {stage: {int(f): k for k, f in enumerate(s.frame)} for stage, s in spans.items()}
    out = []
    for k, frame in enumerate(ages.frame):
        entry: dict[str, float] = {"frame": int(frame), "latencyMs": 0.0, "endToEndMs": round(float(ages.ms[k]), 4)}
        for stage, word in names.items():
            index = at.get(stage, {}).get(int(frame))
            if index is not None:
                begin, end = int(spans[stage].begin_ns[index]), int(spans[stage].end_ns[index])
                entry[f"start{word}Ms"], entry[f"end{word}Ms"] = round((begin - zero) / 1e6, 4), round((end - zero) / 1e6, 4)
                entry["latencyMs"] = round(entry["latencyMs"] + (end - begin) / 1e6, 4)
        out.append(entry)
    return out


__all__ = ["distribution", "end_to_end", "percentile", "queries", "slope", "slowest_stage", "trtexec"]
