"""`report.json` and the table on the terminal: two views of one dictionary.

Units: milliseconds, frames per second, bits per pixel at the bundle's frame size, kB = 1000 bytes, MB = 10^6 bytes. Rates per second and
per minute are at the source's own frame rate when it has one (a file is processed faster than it was filmed), else at the measured one.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import Counts
from percodec.runtime.pipeline.timing import peak_rss_bytes
from percodec.sdk.bundle import Bundle
from percodec.sdk.clock import ClockAnchor
from percodec.sdk.machine import machine_info, versions
from percodec.sdk.text import shown

FORMAT = "percodec-report"

_STAGE_NOTES = {
    "capture": "read and decode the next frame",
    "preprocess": "fit to the bundle's frame",
    "encode": "image -> latent",
    "predict": "latent -> predictions",
    "code": "latent -> packet (rANS)",
    "log": "packet -> disk",
    "record": "JSON line",
    "view": "overlay video",
    "age": "frame in -> prediction out",
}


def build_report(
    pipeline: Pipeline,
    counts: Counts,
    bundle: Bundle,
    info: SourceInfo,
    *,
    outcome: str,
    options: dict[str, Any],
    files: dict[str, Any],
    selftest: dict[str, Any] | None,
    health: dict[str, Any] | None = None,
    anchors: Sequence[ClockAnchor] = (),
) -> dict[str, Any]:
    """Everything known about a run that ended. `outcome`: "complete", "stopped" or "error: ...". `anchors`: its beginning and its end."""
    seconds = max(0, pipeline.last_prediction_ns - pipeline.first_capture_ns) / 1e9 if counts.predicted else 0.0
    fps = counts.predicted / seconds if seconds else 0.0
    return {
        "format": FORMAT,
        "version": [1, 0],
        "outcome": shown(outcome),
        "bundle": {
            "name": bundle.name,
            "digest": bundle.digest,
            "frame": [bundle.frame_height, bundle.frame_width],
            **({"notes": [shown(note) for note in bundle.notes]} if bundle.notes else {}),
        },
        "source": {
            "spec": shown(info.spec),
            "kind": info.kind,
            "width": info.width,
            "height": info.height,
            "fps": info.fps,
            "frames": info.frames,
            "notes": [shown(note) for note in info.notes],
        },
        "options": options,
        "frames": {
            "captured": counts.captured,
            "predicted": counts.predicted,
            "dropped": counts.dropped,
            "balanced": counts.balanced,
            "invalid": counts.invalid,
            "unfamiliar": counts.unfamiliar if bundle.familiarity is not None else None,
            "coded": counts.coded,
            "coding_dropped": counts.coding_dropped,
            "logged": counts.logged,
            "acknowledged": counts.recorded,
            "viewed": counts.viewed,
            "view_dropped": counts.view_dropped,
        },
        "stages_ms": {name: timing.as_dict() for name, timing in pipeline.profiler.timings().items()},
        "throughput": {"fps": round(fps, 2), "seconds": round(seconds, 3)},
        "rate": rate_figures(counts.packet_bytes, counts.coded, bundle, info.fps or fps),
        "clock": {"timestamps": "monotonic" if info.live else "media", "anchors": [anchor.as_dict() for anchor in anchors]},
        "memory": {"peak_rss_mb": round(peak_rss_bytes() / 1e6, 1)},
        "selftest": selftest,
        "health": health,
        "files": files,
        "machine": machine_info(),
        "versions": versions(),
    }


def rate_figures(packet_bytes: int, packets: int, bundle: Bundle, fps: float) -> dict[str, float | None]:
    """Coded bytes (whole packets, headers included) as bpp, kB per frame, kbit/s and MB per minute at `fps`."""
    if packets == 0:
        return {"bpp": None, "kb_per_frame": None, "kbit_per_s": None, "mb_per_min": None, "at_fps": None}
    each = packet_bytes / packets
    return {
        "bpp": round(8 * each / (bundle.frame_height * bundle.frame_width), 5),
        "kb_per_frame": round(each / 1000, 3),
        "kbit_per_s": round(8 * each * fps / 1000, 1),
        "mb_per_min": round(60 * each * fps / 1e6, 3),
        "at_fps": round(fps, 2),
    }


def render_table(report: dict[str, Any]) -> str:
    """The report for people: plain text, at most 100 columns."""
    bundle, source, frames, rate = report["bundle"], report["source"], report["frames"], report["rate"]
    size = f"{source['width']}x{source['height']}" if source["width"] else "size unknown"
    lines = [
        f"source   {source['spec']}  ({source['kind']}, {size})",
        *(f"         {note}" for note in source.get("notes", ())),
        f"bundle   {bundle['name']}  {bundle['digest'][:12]}  ({bundle['frame'][1]}x{bundle['frame'][0]})",
        *(line for note in bundle.get("notes", ()) for line in wrap(note, 90, initial_indent=" " * 9, subsequent_indent=" " * 9)),
        f"machine  {report['machine']['cpu']}, {report['machine']['cores']} cores, {report['machine']['memory_gb']} GB",
        "",
        f"{'stage':<12}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}  ms",
    ]
    for name, t in report["stages_ms"].items():
        lines.append(f"{name:<12}{t['p50']:>9.2f}{t['p90']:>9.2f}{t['p99']:>9.2f}{t['max']:>9.2f}  {_STAGE_NOTES.get(name, '')}")
    dropped = sum(frames["dropped"].values())
    why = ", ".join(f"{count} {name}" for name, count in frames["dropped"].items())
    lines += [
        "",
        f"frames   {frames['captured']} captured = {frames['predicted']} predicted + {dropped} dropped" + (f" ({why})" if why else ""),
        f"         {frames['coded']} coded, {frames['logged']} logged, {frames['acknowledged']} acknowledged"
        + (f", {frames['coding_dropped']} not coded" if frames["coding_dropped"] else "")
        + (f", {frames['view_dropped']} not drawn" if frames["view_dropped"] else "")
        + (f", {frames['invalid']} not valid" if frames["invalid"] else "")
        + (f", {frames['unfamiliar']} of an unfamiliar scene" if frames.get("unfamiliar") else ""),
        f"speed    {report['throughput']['fps']:.1f} fps over {report['throughput']['seconds']:.1f} s",
    ]
    if rate["bpp"] is not None:
        lines.append(
            f"rate     {rate['bpp']:.3f} bpp   {rate['kb_per_frame']:.2f} kB/frame   {rate['kbit_per_s']:.0f} kbit/s   "
            f"{rate['mb_per_min']:.2f} MB/min  (at {rate['at_fps']:g} fps)"
        )
        missed = (report["options"].get("rate") or {}).get("missed")
        lines += [f"         {missed}"] if missed else []
    lines.append(f"memory   {report['memory']['peak_rss_mb']:.0f} MB peak")
    test = report["selftest"]
    if test is not None:
        differ, agree = test["symbol_disagreement"], test["label_agreement"]
        labels = "" if agree is None else f", {agree:.3%} labels agree"
        lines.append(f"selftest {test['vectors']} vectors, {differ:.3%} symbols differ{labels}")
    health = report.get("health")
    if health is not None and health["changes"]:
        restarts = f", {health['restarts']} restarts of the engines" if health["restarts"] else ""
        lines.append(f"health   {health['state']} at the end, {len(health['changes'])} changes{restarts}")
    if report["outcome"] != "complete":
        lines.append(f"outcome  {report['outcome']}")
    return "\n".join(lines)


__all__ = ["FORMAT", "build_report", "rate_figures", "render_table"]
