"""profile.json for people at a terminal: plain text, at most 110 columns."""

from __future__ import annotations

from typing import Any

NOTES = {
    "fixed": "a camera's rate, newest frame wins",
    "throughput": "as fast as they are taken",
    "overload": "twice the peak rate",
}


def render(report: dict[str, Any]) -> str:
    """All backends, then the paths side by side."""
    source, bundle = report["source"], report["bundle"]
    lines = [
        f"bundle   {bundle['name']}  {bundle['digest'][:12]}  ({bundle['frame'][1]}x{bundle['frame'][0]})",
        f"source   {source['spec']}  ({source['kind']})",
        f"machine  {report['machine']['cpu']}, {report['machine']['cores']} cores, {report['machine']['memory_gb']} GB",
    ]
    for name, backend in report["backends"].items():
        lines += ["", *_backend(name, backend, report)]
    if report["paths"]:
        lines += ["", *_paths(report["paths"])]
    if unknown := _unknown(report):
        lines += ["", *unknown]
    return "\n".join(lines)


def _backend(name: str, found: dict[str, Any], report: dict[str, Any]) -> list[str]:
    precision = found["about"]["precision"]
    title = f"{name}  ({', '.join(f'{graph} {kind}' for graph, kind in precision.items())}"
    if found["device_ms"]:
        graphs = "CUDA graphs" if found["about"].get("graphs") else f"eager: {found['about'].get('eager_because')}"
        title += f"; {found['about']['gpu']}, {found['about']['provider']}, {found['about']['transfer']}, {graphs}"
    lines = [title + f")  loaded in {found['load_ms']:.0f} ms"]
    for part, note in NOTES.items():
        if part in found:
            lines += ["", *_run(part, note, found[part])]
    if found["device_ms"]:
        parts = "   ".join(f"{k} {v['p50']:.3f}" for k, v in found["device_ms"].items() if k != "compute")
        lines += ["", f"on the device, ms, median, one frame at a time: {parts}"]
    if "peak" in found:
        peak = found["peak"]
        word = f"{peak['fps']:.1f} frames/s with less than 1 % drops" if peak["below_1_percent"] else "not found: drops at every rate tried"
        lines += ["", f"peak       {word}  ({len(peak['trials'])} rates tried)"]
    if "fixed" in found:
        lines += _machine(found["fixed"]["machine"])
    return lines


def _unknown(report: dict[str, Any]) -> list[str]:
    """What this machine does not tell, once for all backends."""
    parts = [found[p]["machine"]["missing"] for found in report["backends"].values() for p in ("fixed", "throughput") if p in found]
    return [f"not known  {what}: {why}" for what, why in (parts[0] if parts else {}).items()]


def _run(part: str, note: str, run: dict[str, Any]) -> list[str]:
    rate = f" at {run['rate_fps']:g} frames/s" if run["rate_fps"] else ""
    frames = run["frames"]
    dropped = sum(frames["dropped"].values())
    why = f" ({', '.join(f'{n} {reason}' for reason, n in frames['dropped'].items())})" if dropped else ""
    lines = [
        f"{part}{rate}: {note}",
        f"  {'stage':<12}{'p50':>9}{'p90':>9}{'p95':>9}{'p99':>9}{'p99.9':>9}{'max':>9}{'cv':>7}   ms",
    ]
    rows = {k: v for k, v in run["stages_ms"].items() if k != "age" and v["count"]}
    if run["rate_fps"]:  # without a rate a frame's age is how long it queued: it says nothing
        rows["end to end"] = run["end_to_end_ms"]
    for name, f in rows.items():
        if f["count"]:
            times = "".join(f"{f[p]:>9.2f}" for p in ("p50", "p90", "p95", "p99", "p99.9", "max"))
            lines.append(f"  {name:<12}{times}{f['cv']:>7.2f}")
    total = run["end_to_end_ms"]
    if "deadline" in total:
        share = total["missed"] / max(1, frames["captured"])
        lines.append(f"  deadline    {total['deadline']:.1f} ms missed by {total['missed']} of {frames['captured']} frames ({share:.1%})")
    lines.append(
        f"  frames      {frames['captured']} captured = {frames['predicted']} predicted + {dropped} dropped{why}"
        + (f"   jitter {total['jitter']:.2f} ms" if "jitter" in total else "")
    )
    memory = run["memory"]
    text = f"  speed       {run['fps']:.1f} frames/s   {run['cpu']['ms_per_frame']:.1f} CPU ms per frame on {run['cpu']['cores']:.2f} cores"
    if "overlap" in run and not run["rate_fps"]:
        text += f"   overlap {run['overlap']['efficiency']:.2f} of 1/{run['overlap']['slowest_stage']}"
    lines.append(text)
    device = f"   device {memory['device_mb']['max']:.0f} MB" if "device_mb" in memory else ""
    growth = memory["growth_bytes_per_frame"]
    lines.append(f"  memory      RSS {memory['rss_mb']['max']:.0f} MB, {growth:+.0f} B per frame{device}")
    return lines


def _machine(found: dict[str, Any]) -> list[str]:
    lines = []
    readings = {k: v for k, v in found["readings"].items() if not k.startswith(("memory_", "load_", "fan_"))}
    if readings:
        lines.append("machine    " + "   ".join(f"{k} {v['mean']:.4g}" for k, v in list(readings.items())[:6]))
    if found["energy_per_frame_j"] is not None:
        lines.append(f"energy     {found['energy_per_frame_j']:.3f} J per frame ({found['energy_of']})")
    if found["throttling"]:
        lines.append(f"throttled  {', '.join(found['throttling'])}")
    return lines


def _paths(found: dict[str, Any]) -> list[str]:
    lines = [
        f"paths side by side, {found['frames']} frames in turn (RGB network {found['rgb']})",
        f"  {'path':<18}{'p50':>9}{'p99':>9}{'CPU ms':>9}{'ratio':>8}   steps, median ms",
    ]
    for name, path in found["paths"].items():
        steps = "  ".join(f"{step} {f['p50']:.2f}" for step, f in path["steps_ms"].items())
        total = path["total_ms"]
        figures = f"{total['p50']:>9.2f}{total['p99']:>9.2f}{path['cpu_ms_per_frame']:>9.1f}{path['ratio']:>8.2f}"
        lines.append(f"  {name:<18}{figures}   {steps}   ({path['precision']})")
    return lines


__all__ = ["render"]
