"""One shape for every evaluation: a JSON file, tables, plots, and one HTML page that needs no network.

{"schema": "percodec.evaluation/1", "kind": "rd", "command": ..., "date": ..., "machine": ..., "versions": ..., "data": ...,
 "rows": [{...}, ...], "notes": [...]}
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from percodec.sdk.files import write_whole

SCHEMA = "percodec.evaluation/1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
Row = dict[str, Any]


def report(kind: str, command: str, data: dict[str, Any], rows: Sequence[Row], notes: Sequence[str] = ()) -> dict[str, Any]:
    """The result of one evaluation, ready for `json`."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "data": data,
        "rows": list(rows),
        "notes": list(notes),
    }


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return {"cpu": found[1].strip() if found else cpu, "cores": os.cpu_count() or 1, "system": platform.system(), "gpu": _gpu()}


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # where nothing has needed torch, nothing ran on its GPU
    return str(torch.cuda.get_device_name(0)) if torch is not None and torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in ("percodec", "torch", "onnxruntime", "numpy", "pillow", "pillow-heif"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def cell(value: Any) -> str:
    """A value as people read it: four digits that matter, thousands apart, the first twelve characters of a digest."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    text = str(value)
    return text[:12] if _DIGEST.fullmatch(text) else text


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every key with a plain value, in order of appearance."""
    return list(dict.fromkeys(k for row in rows for k, v in row.items() if not isinstance(v, dict | list)))


def render_table(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Aligned text for a terminal."""
    names = list(columns or columns_of(rows))
    table = [names, *([cell(row.get(c)) for c in names] for row in rows)]
    widths = [max(len(line[k]) for line in table) for k in range(len(names))]
    right = [all(isinstance(row.get(c), int | float | None) for row in rows) for c in names]
    lines = [
        "  ".join(text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)).rstrip() for line in table
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]]) + "\n"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>percodec evaluate {{ r.kind }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
 h1 { font-size: 1.5rem; font-weight: 600 } table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
 th, td { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #e5e5e5; white-space: nowrap }
 th { font-weight: 600; border-bottom: 2px solid #999 } td.n, th.n { text-align: right } img { max-width: 100%; margin: 1rem 0 }
 dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; color: #555 } dd { margin: 0 }
 .scroll { overflow-x: auto } code { font-size: .9em }
</style></head><body>
<h1>{{ title }}</h1>
{% for f in figures %}<img alt="{{ f.name }}" src="data:image/png;base64,{{ f.data }}">{% endfor %}
<div class="scroll"><table><tr>{% for c in columns %}<th class="{{ c.css }}">{{ c.name }}</th>{% endfor %}</tr>
{% for line in lines %}<tr>{% for text in line %}<td class="{{ columns[loop.index0].css }}">{{ text }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% for note in r.notes %}<p>{{ note }}</p>{% endfor %}
<dl><dt>data</dt><dd>{{ data }}</dd><dt>command</dt><dd><code>{{ r.command }}</code></dd><dt>date</dt><dd>{{ r.date }}</dd>
<dt>machine</dt><dd>{{ r.machine.cpu }}, {{ r.machine.cores }} cores{% if r.machine.gpu %}, {{ r.machine.gpu }}{% endif %}</dd>
<dt>versions</dt><dd>{{ versions }}</dd></dl>
</body></html>
"""

TITLES = {
    "rd": "Rate and distortion",
    "segmentation": "Segmentation",
    "classification": "Classification",
    "storage": "Storage",
    "compute": "Compute",
    "verify": "Precision",
}


def write_report(result: dict[str, Any], folder: Path, figures: Sequence[Path] = ()) -> list[Path]:
    """`<kind>.json` and `<kind>.html` in `folder`, figures inside the page. Returns what was written."""
    from jinja2 import Environment

    folder.mkdir(parents=True, exist_ok=True)
    rows, names = result["rows"], columns_of(result["rows"])
    numeric = {c for c in names if all(isinstance(row.get(c), int | float | None) for row in rows)}
    page = Environment(autoescape=True).from_string(_PAGE)
    html = page.render(
        r=result,
        title=TITLES.get(result["kind"], result["kind"]),
        figures=[{"name": f.stem, "data": base64.b64encode(f.read_bytes()).decode()} for f in figures],
        columns=[{"name": c.replace("_", " "), "css": "n" if c in numeric else ""} for c in names],
        lines=[[cell(row.get(c)) for c in names] for row in rows],
        data=", ".join(f"{k}: {cell(v)}" for k, v in result["data"].items()),
        versions=", ".join(f"{k} {v}" for k, v in result["versions"].items()),
    )
    paths = [folder / f"{result['kind']}.json", folder / f"{result['kind']}.html"]
    write_whole(paths[0], (json.dumps(result, indent=1) + "\n").encode())
    write_whole(paths[1], html.encode())
    return paths


__all__ = ["SCHEMA", "cell", "columns_of", "machine", "render_table", "report", "versions", "write_report"]
