"""What stands on the synthetic road: each thing painted as a flat, textured figure with its exact label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BUILDING, POLE, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = 1, 2, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class Canvas:
    """`image` float32 [H,W,3], `labels` uint8 [H,W], `texture` float32 [256,256]."""

    image: Array
    labels: Array
    texture: Array


@dataclass(frozen=True)
class Patch:
    """A rectangle of the canvas with figure coordinates: u across and v up, metres, origin at the figure's foot."""

    image: Array
    labels: Array
    u: Array
    v: Array
    fog: Array
    haze: float

    def fill(self, mask: Array, colour: Any, label: int | None) -> None:
        """Paint `colour` ([3] or [h,w,3]) where `mask`; label None keeps what is below (a shadow, say)."""
        colour = np.asarray(colour, np.float32) * (1 - self.haze) + self.fog * self.haze
        np.copyto(self.image, colour.astype(np.float32), where=mask[..., None])
        if label is not None:
            self.labels[mask] = label

    def box(self, u0: float, u1: float, v0: float, v1: float) -> Array:
        return (self.u >= u0) & (self.u < u1) & (self.v >= v0) & (self.v < v1)

    def disc(self, u: float, v: float, ru: float, rv: float) -> Array:
        return ((self.u - u) / ru) ** 2 + ((self.v - v) / rv) ** 2 < 1


def paint(canvas: Canvas, kind: str, seed: int, ends: Array, fog: Array, haze: float, t: float) -> None:
    """Paint one thing. `ends`: [[x, pixels per metre, ground y]] of its near and far end."""
    rng = np.random.default_rng(seed)
    if kind in ("building", "fence"):
        _wall(canvas, kind, rng, ends, fog, haze)
        return
    width, height, figure = _FIGURES[kind]
    x, scale, ground = ends[0]
    rows, columns = canvas.labels.shape
    x0, x1 = int(max(0, x - width * scale)), int(min(columns, x + width * scale + 1))
    y0, y1 = int(max(0, ground - height * scale)), int(min(rows, ground + 0.25 * scale + 1))
    if x1 <= x0 or y1 <= y0:
        return
    u = (np.arange(x0, x1, dtype=np.float32)[None, :] + 0.5 - x) / scale
    v = (ground - np.arange(y0, y1, dtype=np.float32)[:, None] - 0.5) / scale
    u, v = np.broadcast_arrays(u.astype(np.float32), v.astype(np.float32))
    figure(Patch(canvas.image[y0:y1, x0:x1], canvas.labels[y0:y1, x0:x1], u, v, fog, haze), rng, canvas.texture, scale, t)


def _wall(canvas: Canvas, kind: str, rng: np.random.Generator, ends: Array, fog: Array, haze: float) -> None:
    """A plane along the road, between its near and far end; 1/z is linear across the screen."""
    rows, columns = canvas.labels.shape
    (xa, sa, _), (xb, sb, _) = ends
    lo, hi = int(max(0, np.floor(min(xa, xb)))), int(min(columns, np.ceil(max(xa, xb)) + 1))
    if hi <= lo:
        return
    x = np.arange(lo, hi, dtype=np.float32)
    t = np.clip((x - xa) / (xb - xa) if abs(xb - xa) > 0.5 else np.zeros_like(x), 0, 1)
    scale = (sa + (sb - sa) * t).astype(np.float32)  # pixels per metre of each column
    ground = (ends[0, 2] + (ends[1, 2] - ends[0, 2]) * t).astype(np.float32)
    along = 8.0 * (sa / scale - 1) / (sa / sb - 1) if abs(sa / sb - 1) > 1e-3 else np.zeros_like(scale)
    height = rng.uniform(5, 18) if kind == "building" else rng.uniform(0.9, 1.8)
    top = int(max(0, np.floor((ground - height * scale).min())))
    bottom = int(min(rows, np.ceil(ground.max()) + 1))
    if bottom <= top:
        return
    v = (ground - np.arange(top, bottom, dtype=np.float32)[:, None]) / scale
    inside = (v >= 0) & (v < height)
    patch = Patch(canvas.image[top:bottom, lo:hi], canvas.labels[top:bottom, lo:hi], np.broadcast_to(along, v.shape), v, fog, haze)
    shade = 0.82 if xa < columns / 2 else 1.0
    if kind == "fence":
        colour = np.array([(150, 140, 120), (70, 80, 75), (105, 82, 62)][rng.integers(3)], np.float32) * shade
        solid = rng.random() < 0.5
        bars = (np.mod(patch.u, 0.5) < 0.16) | (v > height - 0.14) | (np.abs(v - 0.35) < 0.08)
        patch.fill(inside if solid else inside & (bars | (scale < 26)), colour, FENCE)
        patch.fill(inside & (np.mod(patch.u, 2.0) < 0.12), colour * 0.6, FENCE)
        return
    brick = [(150, 98, 80), (176, 150, 120), (196, 190, 178), (122, 112, 104), (205, 196, 160), (108, 88, 84)][rng.integers(6)]
    colour = np.array(brick, np.float32) * shade * rng.uniform(0.75, 1.15)
    grain = canvas.texture[(v * 9).astype(np.int32) & 255, (patch.u * 9).astype(np.int32) & 255]
    patch.fill(inside, colour + grain[..., None] * 7, BUILDING)
    storey, bay = rng.uniform(2.7, 3.4), rng.uniform(1.6, 3.2)
    fu, fv = np.mod(patch.u, bay) / bay, np.mod(v - 0.5, storey) / storey
    window = inside & (fu > 0.25) & (fu < 0.72) & (fv > 0.3) & (fv < 0.8) & (v < height - 0.8)
    frame = inside & (fu > 0.21) & (fu < 0.76) & (fv > 0.26) & (fv < 0.84) & (v < height - 0.7)
    patch.fill(frame, np.minimum(colour * 1.25, 240), BUILDING)
    patch.fill(window, np.array(rng.uniform(35, 90) + np.array([0, 6, 16]), np.float32), BUILDING)
    if rng.random() < 0.5:  # a shop front
        sign = np.array(rng.uniform(30, 220, 3), np.float32)
        patch.fill(inside & (v < 3.2) & (v > 2.6), sign, BUILDING)
        patch.fill(inside & (v < 2.5) & (v > 0.5) & (np.mod(patch.u, 2.6) < 2.2), (58, 62, 70), BUILDING)
    patch.fill(inside & (v > height - 0.35), colour * 0.6, BUILDING)
    patch.fill(inside & (v < 0.35), colour * 0.65, BUILDING)


def _tree(p: Patch, rng: np.random.Generator, texture: Array, scale: float, t: float) -> None:
    trunk, height = rng.uniform(0.12, 0.25), rng.uniform(4.5, 9.5)
    p.fill(p.box(-trunk, trunk, 0, height * 0.6), np.array([72, 60, 48]) * rng.uniform(0.7, 1.3), TREE)
    green = np.array([rng.uniform(40, 95), rng.uniform(75, 120), rng.uniform(30, 60)], np.float32)
    if rng.random() < 0.15:
        green = np.array([rng.uniform(110, 160), rng.uniform(85, 110), 45], np.float32)
    ragged = texture[(p.v * 14).astype(np.int32) & 255, (p.u * 14 + rng.integers(256)).astype(np.int32) & 255]
    crown = np.zeros(p.u.shape, bool)
    for _ in range(5):
        u, v = rng.uniform(-1.2, 1.2), height * rng.uniform(0.5, 0.85)
        r = rng.uniform(1.0, 1.9)
        crown |= ((p.u - u) / r) ** 2 + ((p.v - v) / r) ** 2 < 1 + 0.45 * ragged
    light = 0.75 + 0.35 * np.clip((p.v - height * 0.4) / (height * 0.6), 0, 1)
    p.fill(crown, green * light[..., None] * (1 + 0.28 * ragged[..., None]), TREE)


def _pole(p: Patch, rng: np.random.Generator, texture: Array, scale: float, t: float) -> None:
    half = max(0.07, 0.8 / scale)
    height = rng.uniform(5, 8)
    colour = np.array([95, 98, 96]) * rng.uniform(0.5, 1.4)
    p.fill(p.box(-half, half, 0, height), colour, POLE)
    arm = rng.choice([-1, 1]) * 1.6
    p.fill(p.box(min(0, arm), max(0, arm), height - max(0.12, 0.8 / scale), height), colour, POLE)


def _sign(p: Patch, rng: np.random.Generator, texture: Array, scale: float, t: float) -> None:
    half = max(0.04, 0.7 / scale)
    height = rng.uniform(2.2, 3.0)
    p.fill(p.box(-half, half, 0, height), (120, 122, 120), POLE)
    kind, r = rng.integers(3), rng.uniform(0.33, 0.55)
    if kind == 0:
        p.fill(p.disc(0, height, r, r), (190, 35, 35), SIGN)
        p.fill(p.disc(0, height, r * 0.72, r * 0.72), (235, 235, 235), SIGN)
    elif kind == 1:
        inside = (p.v > height - r) & (np.abs(p.u) < (height + r - p.v) * 0.6)
        p.fill(inside & (p.v < height + r), (195, 45, 40), SIGN)
        p.fill(inside & (p.v > height - r * 0.7) & (np.abs(p.u) < (height + r * 0.5 - p.v) * 0.55), (238, 238, 230), SIGN)
    else:
        p.fill(p.box(-r * 1.3, r * 1.3, height - r, height + r), [(30, 80, 165), (25, 110, 70), (225, 190, 40)][rng.integers(3)], SIGN)
        p.fill(p.box(-r * 0.9, r * 0.9, height - r * 0.25, height + r * 0.25), (235, 235, 235), SIGN)


def _car(p: Patch, rng: np.random.Generator, texture: Array, scale: float, t: float) -> None:
    paint_colour = np.array(
        [(200, 200, 204), (40, 42, 46), (150, 30, 32), (40, 62, 120), (110, 114, 118), (228, 228, 226), (60, 85, 70)][rng.integers(7)]
    )
    colour = paint_colour * rng.uniform(0.8, 1.1)
    tall = rng.uniform(1.35, 1.55) if rng.random() < 0.8 else rng.uniform(1.8, 2.3)
    w = rng.uniform(0.84, 0.95)
    belt = 0.62 * tall
    np.multiply(p.image, 0.45, out=p.image, where=p.disc(0, 0.0, w * 1.15, 0.16)[..., None])
    for side in (-1, 1):
        p.fill(p.box(side * w * 0.78 - 0.13, side * w * 0.78 + 0.13, 0.0, 0.45), (25, 25, 27), CAR)
    p.fill(p.box(-w, w, 0.22, belt), colour * (0.8 + 0.25 * np.clip(p.v / belt, 0, 1))[..., None], CAR)
    roof = (p.v >= belt - 0.02) & (p.v < tall) & (np.abs(p.u) < w - (p.v - belt) / (tall - belt) * 0.22)
    p.fill(roof, colour * 0.95, CAR)
    glass = (p.v >= belt + 0.03) & (p.v < tall - 0.1) & (np.abs(p.u) < w - 0.1 - (p.v - belt) / (tall - belt) * 0.22)
    p.fill(glass, np.array([48, 56, 66]) + 50 * np.clip((p.v - belt) / (tall - belt), 0, 1)[..., None], CAR)
    lamp = [(190, 30, 28), (240, 240, 225)][rng.integers(2)]
    for side in (-1, 1):
        p.fill(p.box(side * w * 0.8 - 0.14, side * w * 0.8 + 0.14, belt - 0.3, belt - 0.1), lamp, CAR)
    p.fill(p.box(-0.26, 0.26, 0.38, 0.5), (225, 215, 150), CAR)
    p.fill(p.box(-w, w, 0.2, 0.3), (35, 36, 38), CAR)


def _person(p: Patch, rng: np.random.Generator, t: float, foot: float, label: int) -> None:
    top = foot + rng.uniform(1.5, 1.75)
    coat, legs = rng.uniform(25, 190, 3), rng.uniform(25, 90, 3)
    skin = np.array([205, 165, 140]) * rng.uniform(0.5, 1.1)
    stride = 0.16 * np.sin(t * 7 + rng.uniform(0, 6))
    hip = foot + 0.46 * (top - foot)
    for side in (-1, 1):
        lean = side * stride * (hip - p.v) / (hip - foot)
        p.fill((np.abs(p.u - side * 0.09 - lean) < 0.09) & (p.v > foot) & (p.v < hip + 0.05), legs, label)
    p.fill(p.disc(0, hip + 0.3, 0.25, 0.4), coat, label)
    p.fill(p.disc(0, top - 0.14, 0.12, 0.15), skin, label)
    p.fill(p.disc(0, top - 0.07, 0.12, 0.08), rng.uniform(20, 110, 3), label)


def _pedestrian(p: Patch, rng: np.random.Generator, texture: Array, scale: float, t: float) -> None:
    np.multiply(p.image, 0.6, out=p.image, where=p.disc(0, 0, 0.3, 0.07)[..., None])
    _person(p, rng, t, 0.0, PEDESTRIAN)


def _bicyclist(p: Patch, rng: np.random.Generator, texture: Array, scale: float, t: float) -> None:
    np.multiply(p.image, 0.6, out=p.image, where=p.disc(0, 0, 0.35, 0.07)[..., None])
    side = rng.random() < 0.35
    half = max(0.05, 0.8 / scale)
    if side:
        for u in (-0.52, 0.52):
            ring = np.abs(np.hypot(p.u - u, p.v - 0.34) - 0.31) < half
            p.fill(ring, (35, 35, 38), BICYCLIST)
        p.fill((np.abs(p.v - 0.62) < half) & (np.abs(p.u) < 0.5), rng.uniform(40, 200, 3), BICYCLIST)
    else:
        p.fill(p.box(-half, half, 0, 0.68), (32, 32, 36), BICYCLIST)
        p.fill(p.box(-0.28, 0.28, 0.98, 0.98 + 2 * half), (50, 50, 52), BICYCLIST)
    _person(p, rng, t, 0.28, BICYCLIST)


_FIGURES: dict[str, tuple[float, float, Any]] = {
    "tree": (3.6, 11.5, _tree),
    "pole": (1.8, 8.2, _pole),
    "sign": (0.9, 3.8, _sign),
    "car": (1.15, 2.4, _car),
    "pedestrian": (0.45, 1.9, _pedestrian),
    "bicyclist": (1.0, 2.2, _bicyclist),
}


__all__ = ["Canvas", "Patch", "paint"]
