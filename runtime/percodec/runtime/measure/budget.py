"""A profile against a budget, and against another profile.

budget.yaml, every key optional, all limits for the run at a camera's rate unless said otherwise:

    latency_ms: {p50: 40, p99: 80, max: 200}     end to end
    jitter_ms: 5
    drops_percent: 1
    missed_deadlines_percent: 1
    throughput_fps: 25                           at least, at full speed
    peak_fps: 25                                 at least
    rss_mb: 400
    device_mb: 500
    growth_bytes_per_frame: 64
    energy_per_frame_j: 0.5
    backends: {tensorrt: {latency_ms: {p99: 20}}}   instead of the above, for that backend
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from percodec.sdk.errors import UsageError
from percodec.sdk.files import read_file
from percodec.sdk.yaml_text import read_yaml

Figure = Callable[[dict[str, Any]], float | None]
_LATENCIES = ("p50", "p90", "p95", "p99", "p99.9", "max")


def _get(*path: str) -> Figure:
    def find(found: dict[str, Any]) -> float | None:
        for name in path:
            if not isinstance(found, dict) or found.get(name) is None:
                return None
            found = found[name]
        return float(found)  # type: ignore[arg-type]

    return find


def _drops(found: dict[str, Any]) -> float | None:
    frames = found.get("fixed", {}).get("frames")
    return 100 * sum(frames["dropped"].values()) / max(1, frames["captured"]) if frames else None


def _missed(found: dict[str, Any]) -> float | None:
    fixed = found.get("fixed", {})
    missed = fixed.get("end_to_end_ms", {}).get("missed")
    return None if missed is None else 100 * missed / max(1, fixed["frames"]["captured"])


# Name in a budget -> (figure of one backend, whether more is better).
FIGURES: dict[str, tuple[Figure, bool]] = {
    **{f"latency_ms.{p}": (_get("fixed", "end_to_end_ms", p), False) for p in _LATENCIES},
    "jitter_ms": (_get("fixed", "end_to_end_ms", "jitter"), False),
    "drops_percent": (_drops, False),
    "missed_deadlines_percent": (_missed, False),
    "throughput_fps": (_get("throughput", "fps"), True),
    "peak_fps": (_get("peak", "fps"), True),
    "rss_mb": (_get("fixed", "memory", "rss_mb", "max"), False),
    "device_mb": (_get("fixed", "memory", "device_mb", "max"), False),
    "growth_bytes_per_frame": (_get("throughput", "memory", "growth_bytes_per_frame"), False),
    "cpu_ms_per_frame": (_get("throughput", "cpu", "ms_per_frame"), False),
    "energy_per_frame_j": (_get("fixed", "machine", "energy_per_frame_j"), False),
}


def read_budget(path: Path) -> dict[str, Any]:
    """Checked: known names, numbers. Raises `UsageError` naming the line's key."""
    try:
        found = read_yaml(read_file(path, 1 << 20).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not YAML ({error})") from error
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{path}: a budget is a list of name: limit, for example `drops_percent: 1`")
    special = found.pop("backends", {})
    if not isinstance(special, dict) or not all(isinstance(v, dict) for v in special.values()):
        raise UsageError(f"{path}: backends must map a backend to its own limits")
    return {"": _limits(path, found), **{str(name): _limits(path, limits) for name, limits in special.items()}}


def over_budget(report: dict[str, Any], budget: dict[str, Any]) -> list[str]:
    """One line per limit that is broken or cannot be judged."""
    broken = []
    for name, found in report["backends"].items():
        for key, limit in budget.get(name, budget[""]).items():
            figure, more = FIGURES[key]
            value = figure(found)
            if value is None:
                broken.append(f"{name}: {key} was not measured, the budget asks for {'at least' if more else 'at most'} {limit:g}")
            elif value < limit if more else value > limit:
                broken.append(f"{name}: {key} is {value:.4g}, the budget asks for {'at least' if more else 'at most'} {limit:g}")
    return broken


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Figure by figure for the backends both have; `better`: None within 2 %."""
    rows = []
    for name in (n for n in before["backends"] if n in after["backends"]):
        for key, (figure, more) in FIGURES.items():
            a, b = figure(before["backends"][name]), figure(after["backends"][name])
            if a is None or b is None:
                continue
            change = (b - a) / a if a else None
            level = abs(b - a) < 1e-9 if change is None else abs(change) < 0.02
            rows.append(
                {"backend": name, "figure": key, "before": a, "after": b, "change": change, "better": None if level else (b > a) == more}
            )
    return rows


def render_comparison(rows: list[dict[str, Any]]) -> str:
    """A table."""
    lines = [f"{'backend':<14}{'figure':<28}{'before':>12}{'after':>12}{'change':>10}"]
    for row in rows:
        change = "" if row["change"] is None else f"{row['change']:+.1%}"
        word = {True: "  better", False: "  worse", None: ""}[row["better"]]
        lines.append(f"{row['backend']:<14}{row['figure']:<28}{row['before']:>12.4g}{row['after']:>12.4g}{change:>10}{word}")
    return "\n".join(lines)


def _limits(path: Path, found: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, Any] = {}
    for key, value in found.items():
        flat |= {f"{key}.{inner}": limit for inner, limit in value.items()} if isinstance(value, dict) else {str(key): value}
    for key, limit in flat.items():
        if key not in FIGURES:
            raise UsageError(f"{path}: {key}: unknown; a budget knows {', '.join(FIGURES)}")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit != limit:
            raise UsageError(f"{path}: {key}: must be a number, not {limit!r}")
    return {key: float(limit) for key, limit in flat.items()}


__all__ = ["FIGURES", "compare", "over_budget", "read_budget", "render_comparison"]
