"""profile.html: one file, no script, no network; and the same spans as a Chrome / Perfetto trace."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from percodec.runtime.measure.svg import gantt, histogram, lines
from percodec.runtime.measure.text import NOTES, render
from percodec.runtime.pipeline.pipeline import STAGES
from percodec.runtime.pipeline.timing import Spans

GANTT_FRAMES = 8
_ROWS = tuple(s for s in STAGES if s != "age")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #1a1a1a; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd; } h3 { font-size: 1em; }
p.what { color: #555; margin-top: 0.2em; } svg { width: 100%; height: auto; display: block; margin: 0.5em 0 1.2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: 2px 10px; text-align: right; }
th { border-bottom: 1px solid #999; font-weight: 600; } td:first-child, th:first-child { text-align: left; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 1em 0; }
.tile { border: 1px solid #ddd; border-radius: 6px; padding: 8px 14px; }
.tile b { display: block; font-size: 1.35em; } .tile span { color: #555; font-size: 0.85em; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 12px; }
"""


def html(report: dict[str, Any], spans: dict[str, dict[str, dict[str, Spans]]]) -> str:
    """The whole report."""
    bundle, machine = report["bundle"], report["machine"]
    size, cpu = f"{bundle['frame'][1]}x{bundle['frame'][0]}", escape(str(machine["cpu"]))
    what = f"{escape(report['source']['spec'])}, {size}, {cpu}, {machine['cores']} cores, {report['date']}"
    body = [f"<h1>Profile of {escape(bundle['name'])}</h1>", f"<p class=what>{what}</p>"]
    for name, found in report["backends"].items():
        body += _backend(name, found, spans.get(name, {}))
    if report["paths"]:
        body += _paths(report["paths"])
    body += ["<h2>As text</h2>", f"<pre>{escape(render(report))}</pre>"]
    title = f"percodec profile: {escape(bundle['name'])}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f"{head}<body>{''.join(body)}</body></html>\n"


def trace(spans: dict[str, dict[str, dict[str, Spans]]]) -> str:
    """Chrome trace event format (JSON object form): one process per backend and part, one thread per stage, microseconds."""
    events: list[dict[str, Any]] = []
    runs = [(f"{backend} {part}", found) for backend, parts in spans.items() for part, found in parts.items()]
    for pid, (name, found) in enumerate(runs, 1):
        events.append({"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}})
        zero = min((int(s.begin_ns.min()) for s in found.values() if len(s.frame)), default=0)
        for tid, stage in enumerate(_ROWS):
            if stage not in found:
                continue
            events.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": stage}})
            rows = zip(found[stage].frame.tolist(), found[stage].begin_ns.tolist(), found[stage].end_ns.tolist(), strict=True)
            for frame, begin, end in rows:
                at, long = (begin - zero) / 1000, (end - begin) / 1000
                events.append(
                    {"name": stage, "cat": "percodec", "ph": "X", "pid": pid, "tid": tid, "ts": at, "dur": long, "args": {"frame": frame}}
                )
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":"))


def _backend(name: str, found: dict[str, Any], spans: dict[str, dict[str, Spans]]) -> list[str]:
    body = [f"<h2>{escape(name)}</h2>", _tiles(found)]
    fixed = found.get("fixed")
    if fixed and "fixed" in spans and "age" in spans["fixed"]:
        ages = spans["fixed"]["age"]
        total = fixed["end_to_end_ms"]
        marks = {p: total[p] for p in ("p50", "p99")}
        deadline = {"deadline": total["deadline"]} if "deadline" in total else {}
        body += [
            f"<h3>End to end at {fixed['rate_fps'] or fixed['fps']:g} frames/s</h3>",
            "<p class=what>From the moment a frame is due at the camera to its prediction; frames by latency.</p>",
            histogram(ages.ms.tolist(), "ms", marks | deadline),
            "<p class=what>The same, frame by frame: a stall shows as a comb.</p>",
            lines({"end to end": (ages.frame.tolist(), ages.ms.tolist())}, "frame", "ms", deadline),
        ]
    if "throughput" in spans and {"encode", "predict"} <= set(spans["throughput"]):
        body += [
            "<h3>Who works when</h3>",
            f"<p class=what>While {GANTT_FRAMES} frames of the run at full speed were predicted; a frame keeps its colour.</p>",
            gantt(*_excerpt(spans["throughput"])),
        ]
    if fixed:
        curve = {part: found[part]["memory"]["curve"] for part in NOTES if part in found}
        body += [
            "<h3>Memory</h3>",
            "<p class=what>Resident set of the process over the frames of each part.</p>",
            lines({part: ([r[1] for r in rows], [r[2] for r in rows]) for part, rows in curve.items()}, "frames", "MB"),
        ]
    if "peak" in found:
        trials = sorted(found["peak"]["trials"], key=lambda t: float(t["fps"]))
        body += [
            "<h3>Drops over rate</h3>",
            "<p class=what>The search for the highest rate with less than 1 % drops.</p>",
            lines({"drops": ([t["fps"] for t in trials], [100 * t["drop_share"] for t in trials])}, "frames/s", "% dropped", {"1 %": 1.0}),
        ]
    return body


def _excerpt(spans: dict[str, Spans]) -> tuple[list[tuple[str, int, float, float]], tuple[str, ...], str]:
    """What every stage did while a few frames of the middle went from the encoder to their prediction; ms."""
    encode, predict = spans["encode"], spans["predict"]
    first = max(0, len(encode.frame) // 2 - GANTT_FRAMES // 2)
    last = min(first + GANTT_FRAMES, len(predict.frame)) - 1
    zero, end = int(encode.begin_ns[first]), int(predict.end_ns[last])
    rows = [
        (stage, int(f), (max(b, zero) - zero) / 1e6, (min(e, end) - zero) / 1e6)
        for stage in _ROWS
        if stage in spans
        for f, b, e in zip(spans[stage].frame.tolist(), spans[stage].begin_ns.tolist(), spans[stage].end_ns.tolist(), strict=True)
        if e > zero and b < end
    ]
    return rows, _ROWS, "ms"


def _tiles(found: dict[str, Any]) -> str:
    tiles: list[tuple[str, str]] = []
    if "fixed" in found:
        total, frames = found["fixed"]["end_to_end_ms"], found["fixed"]["frames"]
        if total["count"]:
            tiles += [(f"{total['p50']:.1f} ms", "median, end to end"), (f"{total['p99']:.1f} ms", "p99, end to end")]
        tiles.append((f"{sum(frames['dropped'].values())} of {frames['captured']}", "frames dropped"))
        tiles.append((f"{found['fixed']['memory']['rss_mb']['max']:.0f} MB", "resident memory"))
    if "throughput" in found:
        tiles.append((f"{found['throughput']['fps']:.1f} /s", "frames at full speed"))
        tiles.append((f"{found['throughput']['overlap']['efficiency']:.2f}", f"of 1 / {found['throughput']['overlap']['slowest_stage']}"))
    if "peak" in found:
        tiles.append((f"{found['peak']['fps']:.1f} /s", "peak rate, under 1 % drops"))
    return "<div class=tiles>" + "".join(f"<div class=tile><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in tiles) + "</div>"


def _paths(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, path in found["paths"].items():
        steps = "  ".join(f"{step} {figures['p50']:.2f}" for step, figures in path["steps_ms"].items())
        total = path["total_ms"]
        cells = (name, f"{total['p50']:.2f}", f"{total['p99']:.2f}", f"{path['cpu_ms_per_frame']:.1f}", f"{path['ratio']:.2f}", steps)
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "<tr><th>path</th><th>median ms</th><th>p99 ms</th><th>CPU ms</th><th>ratio</th><th>steps, median ms</th></tr>"
    return [
        "<h2>Paths side by side</h2>",
        f"<p class=what>{found['frames']} frames through each in turn; the RGB network is {escape(str(found['rgb']))}.</p>",
        f"<table>{head}{''.join(rows)}</table>",
    ]


__all__ = ["html", "trace"]
