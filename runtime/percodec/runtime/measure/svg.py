"""Three plain charts as SVG text, so that a report drawn on the vehicle needs no plotting library and opens anywhere, offline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 260, 64, 16, 12, 40
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#8c564b", "#222222")


def lines(
    series: dict[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str, marks: dict[str, float] | None = None
) -> str:
    """One polyline per series; `marks`: named horizontal levels."""
    xs = np.concatenate([np.asarray(x, float) for x, _ in series.values()] or [np.zeros(1)])
    ys = np.concatenate([np.asarray(y, float) for _, y in series.values()] + [np.array(list((marks or {}).values()), float)])
    frame = _Frame(
        (float(xs.min(initial=0)), float(xs.max(initial=1))),
        (min(0.0, float(ys.min(initial=0))), float(ys.max(initial=1)) * (1.2 if len(series) > 1 else 1.05)),
    )
    out = []
    for k, (name, (x, y)) in enumerate(series.items()):
        px, py = _thin(np.asarray(x, float), np.asarray(y, float))
        points = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in zip(px, py, strict=True))
        stroke = f'fill="none" stroke="{PALETTE[k % len(PALETTE)]}" stroke-width="1.2"'
        out.append(f'<polyline {stroke} points="{points}"><title>{escape(name)}</title></polyline>')
    out += [_level(frame, value, name) for name, value in (marks or {}).items()]
    return frame.draw(out, x_label, y_label, list(series))


def histogram(values: Sequence[float], x_label: str, marks: dict[str, float] | None = None, bins: int = 80) -> str:
    """Counts of `values`; `marks`: named vertical positions (percentiles, a deadline). The last bin holds everything above p99.9."""
    data = np.asarray(values, float)
    low, high = float(data.min()), float(np.percentile(data, 99.9))
    high = high if high > low else low + 1e-6
    counts, edges = np.histogram(np.minimum(data, high), bins=bins, range=(low, high))
    frame = _Frame((low, high), (0.0, float(counts.max()) * 1.1))
    out = []
    for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True):
        if n:
            out.append(
                f'<rect x="{frame.x(a):.1f}" y="{frame.y(n):.1f}" width="{max(0.5, frame.x(b) - frame.x(a) - 0.5):.1f}" '
                f'height="{frame.y(0) - frame.y(n):.1f}" fill="{PALETTE[0]}"><title>{a:.3g} .. {b:.3g}: {n}</title></rect>'
            )
    for name, value in (marks or {}).items():
        if low <= value <= high:
            x = frame.x(value)
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{frame.y(0):.1f}" stroke="#d55e00" stroke-dasharray="4 3"/>')
            out.append(f'<text x="{x + 3:.1f}" y="{TOP + 10}" fill="#d55e00">{escape(name)}</text>')
    return frame.draw(out, x_label, "frames", [])


def gantt(spans: Sequence[tuple[str, int, float, float]], rows: Sequence[str], x_label: str) -> str:
    """Who worked on which frame when: (row, frame, begin, end). A frame keeps its colour from row to row."""
    used = [r for r in rows if any(s[0] == r for s in spans)]
    end = max((s[3] for s in spans), default=1.0)
    height = TOP + BOTTOM + 26 * max(1, len(used))
    frame = _Frame((0.0, end), (0.0, 1.0), height, left=96)
    out = []
    for row, number, begin, stop in spans:
        y = TOP + 26 * used.index(row) + 3
        out.append(
            f'<rect x="{frame.x(begin):.1f}" y="{y}" width="{max(0.8, frame.x(stop) - frame.x(begin)):.1f}" height="20" rx="2" '
            f'fill="{PALETTE[number % len(PALETTE)]}"><title>frame {number} {escape(row)}: {stop - begin:.3f} ms</title></rect>'
        )
    out += [f'<text x="88" y="{TOP + 26 * k + 17}" text-anchor="end">{escape(r)}</text>' for k, r in enumerate(used)]
    return frame.draw(out, x_label, "", [], y_ticks=False)


class _Frame:
    """Data coordinates to pixels, and the axes around them."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float], height: int = HEIGHT, left: int = LEFT) -> None:
        self.xs = xs if xs[1] > xs[0] else (xs[0], xs[0] + 1)
        self.ys = ys if ys[1] > ys[0] else (ys[0], ys[0] + 1)
        self.height, self.left = height, left

    def x(self, value: float) -> float:
        return self.left + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (WIDTH - self.left - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (self.height - TOP - BOTTOM)

    def draw(self, body: list[str], x_label: str, y_label: str, legend: list[str], y_ticks: bool = True) -> str:
        base = self.height - BOTTOM
        font = 'role="img" font-family="system-ui, sans-serif" font-size="11"'
        out = [f'<svg viewBox="0 0 {WIDTH} {self.height}" xmlns="http://www.w3.org/2000/svg" {font}>']
        for tick in _ticks(*self.xs):
            x = self.x(tick)
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{base}" stroke="#eee"/>')
            out.append(f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle" fill="#555">{tick:g}</text>')
        for tick in _ticks(*self.ys) if y_ticks else []:
            y = self.y(tick)
            out.append(f'<line x1="{self.left}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
            out.append(f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:g}</text>')
        out += body
        out.append(f'<line x1="{self.left}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}" stroke="#333"/>')
        out.append(f'<text x="{(self.left + WIDTH - RIGHT) / 2}" y="{self.height - 8}" text-anchor="middle">{escape(x_label)}</text>')
        if y_label:
            middle = (TOP + base) / 2
            out.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>')
        x = self.left + 8
        for k, name in enumerate(legend if len(legend) > 1 else []):
            out.append(f'<rect x="{x}" y="{TOP + 2}" width="10" height="10" fill="{PALETTE[k % len(PALETTE)]}"/>')
            out.append(f'<text x="{x + 14}" y="{TOP + 11}">{escape(name)}</text>')
            x += 26 + 7 * len(name)
        return "".join([*out, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = np.ceil(low / step)
    return [float(round((first + k) * step, 12)) for k in range(int((high - first * step) / step) + 1)]


def _thin(x: np.ndarray, y: np.ndarray, most: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of every stretch, so that a spike stays visible."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most // 2)
    keep = np.unique(np.concatenate([[p[np.argmin(y[p])], p[np.argmax(y[p])]] for p in parts]))
    return x[keep], y[keep]


def _level(frame: _Frame, value: float, name: str) -> str:
    y = frame.y(value)
    return (
        f'<line x1="{frame.left}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d55e00" stroke-dasharray="4 3"/>'
        f'<text x="{WIDTH - RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end" fill="#d55e00">{escape(name)}</text>'
    )


__all__ = ["PALETTE", "gantt", "histogram", "lines"]
