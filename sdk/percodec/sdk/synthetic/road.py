"""`RoadScene`: a seeded, endless drive through a synthetic town, with exact labels in CamVid's classes. numpy only.

    world cells (hash of seed and position) -> things in view, far to near -> painted over ground and sky -> light, fog, noise

The same (seed, height, width, index) gives the same picture on one numpy version. Light, weather, road, houses, trees, poles,
signs, fences, cars, people and cyclists all vary with the seed; consecutive indices are 1/25 s apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.synthetic.things import Canvas, paint

FRAME_RATE = 25
CELL_M = 8.0
VIEW_M = 110.0
EYE_M = 1.45

CLASSES = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist")
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

Array = NDArray[np.float32]


class Thing(NamedTuple):
    """Something beside or on the road: metres from the road's centre line (x) and along it (z)."""

    kind: str
    x: float
    z: float
    length: float
    speed: float
    seed: int


class RoadScene:
    """One drive. `render(index)` -> (image uint8 [H,W,3] RGB, labels uint8 [H,W], class ids 0..10)."""

    def __init__(self, seed: int = 1, height: int = 360, width: int = 480) -> None:
        if height < 32 or width < 32 or height * width > 16_000_000:
            raise ValueError(f"a synthetic road needs 32x32 to 16 Mpixel, got {width}x{height}")
        self.seed, self.height, self.width = int(seed), height, width
        rng = np.random.default_rng((self.seed, 7))
        self.focal = width * rng.uniform(0.8, 1.05)
        self.horizon = height * rng.uniform(0.38, 0.5)
        self.speed = rng.uniform(6.0, 14.0)
        self.lanes = int(rng.integers(1, 3))
        self.half_road = 3.3 * self.lanes + rng.uniform(0.2, 1.2)
        self.eye_x = rng.uniform(1.2, 2.0) + 3.3 * (self.lanes - 1)
        self.pavement = rng.uniform(1.6, 3.4)
        self.curve = rng.uniform(-1, 1, 2) * (9.0, 4.0)
        self.wave = rng.uniform(70, 160, 2)
        self.phase = rng.uniform(0, 2 * np.pi, 2)
        self.town = rng.uniform(0.25, 1.0)
        self.traffic = rng.uniform(0.2, 0.9)
        self.haze = float(rng.choice([0.002, 0.006, 0.014, 0.03], p=[0.35, 0.35, 0.2, 0.1]))
        self.light = rng.uniform(0.55, 1.12)
        warm = rng.uniform(-0.08, 0.1)
        self.tint = np.array([1 + warm, 1.0, 1 - warm], np.float32)
        clear = np.array([[90, 140, 215], [190, 215, 240]], np.float32)
        grey = np.array([[178, 184, 192], [222, 225, 228]], np.float32)
        cover = rng.beta(0.8, 0.8)
        self.sky = clear * (1 - cover) + grey * cover
        self.clouds = rng.uniform(0, 40)
        self.asphalt = np.float32(rng.uniform(62, 128)) + rng.uniform(-6, 6, 3).astype(np.float32)
        self.paving = np.float32(rng.uniform(110, 185)) + np.array([8, 0, -8], np.float32) * np.float32(rng.uniform(0, 2))
        self.grass = np.array([rng.uniform(58, 105), rng.uniform(88, 135), rng.uniform(40, 70)], np.float32)
        self.verge = rng.random() < 0.45
        self.marks = rng.random() < 0.85
        noise = np.random.default_rng((self.seed, 23)).standard_normal((256, 256), np.float32)
        self.grain = noise * np.float32(rng.uniform(1.0, 4.0))
        self.texture = _fractal(rng, 256)
        self._cells: dict[int, list[Thing]] = {}

    def render(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Picture and labels at time index / 25 s."""
        t = index / FRAME_RATE
        here = self.speed * t
        canvas = Canvas(np.empty((self.height, self.width, 3), np.float32), np.zeros((self.height, self.width), np.uint8), self.texture)
        self._paint_sky(canvas, here)
        self._paint_ground(canvas, here)
        fog = self.sky[1]
        for thing, z in sorted(self._things(here, t), key=_far_first):
            near = max(z, 0.6)
            haze = 1 - np.exp(-self.haze * near)
            paint(canvas, thing.kind, thing.seed, self._project(here, thing, z), fog, float(haze), t)
        image = canvas.image * (self.tint * np.float32(self.light))
        image += self._grain(index)
        return np.clip(_soften(image), 0, 255).astype(np.uint8), canvas.labels

    # -- geometry -------------------------------------------------------------------------------------------------
    def _lateral(self, here: float, z: Any) -> Any:
        """How far the centre line at distance z lies to the right of the camera's heading, metres."""
        a, w, p = self.curve, self.wave, self.phase

        def centre(s: Any) -> Any:
            return a[0] * np.sin(s / w[0] + p[0]) + a[1] * np.sin(s / w[1] + p[1])

        slope = a[0] / w[0] * np.cos(here / w[0] + p[0]) + a[1] / w[1] * np.cos(here / w[1] + p[1])
        return centre(here + z) - centre(here) - slope * z

    def _project(self, here: float, thing: Thing, z: float) -> NDArray[np.float64]:
        """[[screen x, pixels per metre, y of the ground]] at the near and far end of a thing."""
        out = np.empty((2, 3))
        for k, distance in enumerate((z, z + thing.length)):
            d = max(distance, 0.6)
            scale = self.focal / d
            x = self.width / 2 + scale * (thing.x + float(self._lateral(here, d)) - self.eye_x)
            out[k] = x, scale, self.horizon + scale * EYE_M
        return out

    # -- what stands where ----------------------------------------------------------------------------------------
    def _things(self, here: float, t: float) -> list[tuple[Thing, float]]:
        first, last = int((here - CELL_M) // CELL_M), int((here + VIEW_M) // CELL_M)
        out = []
        for cell in range(first, last + 1):
            if cell not in self._cells:
                self._cells[cell] = self._fill(cell)
            out += [(thing, thing.z - here) for thing in self._cells[cell]]
        for k, thing in enumerate(self._vehicles()):
            passed = here if k % 2 else 0.0
            out.append((thing, float((thing.z + thing.speed * t - passed) % (VIEW_M + 10) + 3.5)))
        self._cells = {c: v for c, v in self._cells.items() if c >= first}
        return [(thing, z) for thing, z in out if z + thing.length > 1.2 and z < VIEW_M]

    def _vehicles(self) -> list[Thing]:
        """Moving cars and a cyclist: even entries go our way (distance nearly constant), odd ones come towards us."""
        rng = np.random.default_rng((self.seed, 11))
        out = []
        for k in range(int(2 + 7 * self.traffic)):
            ours = k % 2 == 0
            lane = rng.integers(self.lanes)
            x = float((1.65 + 3.3 * lane) * (1 if ours else -1) + rng.uniform(-0.3, 0.3))
            kind = "bicyclist" if ours and rng.random() < 0.3 else "car"
            if kind == "bicyclist":
                x = self.half_road - 0.6
            speed = rng.uniform(-2.0, 2.5) if ours else -rng.uniform(5, 10)
            out.append(Thing(kind, x, rng.uniform(4, VIEW_M), 0.0, speed, int(rng.integers(1 << 30))))
        return out

    def _fill(self, cell: int) -> list[Thing]:
        rng = np.random.default_rng((self.seed, 13, cell & 0xFFFFFFFF))
        z = cell * CELL_M
        out: list[Thing] = []

        def add(kind: str, x: float, dz: float = 0.0, length: float = 0.0, seed: int | None = None) -> None:
            out.append(Thing(kind, x, z + dz, length, 0.0, int(rng.integers(1 << 30)) if seed is None else seed))

        for side in (-1, 1):
            kerb = self.half_road
            edge = kerb + self.pavement
            plot = np.random.default_rng((self.seed, 17, (cell // 2) & 0xFFFFFFFF, side + 1))
            built = plot.random() < self.town
            if built:
                add("building", side * (edge + plot.uniform(0.0, 4.0)), 0.0, CELL_M, int(plot.integers(1 << 30)))
            elif plot.random() < 0.5:
                add("fence", side * (edge + 0.3), 0.0, CELL_M, int(plot.integers(1 << 30)))
            for _ in range(int(rng.poisson(0.3 if built else 1.7))):
                add("tree", side * (edge + rng.uniform(0.5, 2.0 if built else 14.0)), rng.uniform(0, CELL_M))
            if rng.random() < 0.3:
                add("pole", side * (kerb + 0.5), rng.uniform(0, CELL_M))
            if rng.random() < 0.16:
                add("sign", side * (kerb + rng.uniform(0.4, 1.2)), rng.uniform(0, CELL_M))
            if rng.random() < 0.3 * self.town + 0.06:
                add("pedestrian", side * (kerb + rng.uniform(0.4, self.pavement)), rng.uniform(0, CELL_M))
            if rng.random() < 0.06:
                add("bicyclist", side * (kerb - 0.5), rng.uniform(0, CELL_M))
            if rng.random() < 0.35 * self.traffic:
                add("car", side * (kerb - 1.0 + rng.uniform(-0.15, 0.1)), rng.uniform(0, 4))
        return out

    # -- large surfaces -------------------------------------------------------------------------------------------
    def _paint_sky(self, canvas: Canvas, here: float) -> None:
        rows = min(int(self.horizon) + 2, self.height)
        t = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
        colour = self.sky[0] * (1 - t) + self.sky[1] * t
        canvas.image[:rows] = colour[:, None, :]
        y, x = np.arange(rows)[:, None], np.arange(self.width)[None, :]
        depth = (rows + 12 - y) * 0.9
        cloud = self.texture[(depth.astype(int)) & 255, ((x * 140 // self.width) + int(here / 40)) & 255]
        canvas.image[:rows] += (np.maximum(cloud, 0) * np.float32(self.clouds))[..., None]

    def _paint_ground(self, canvas: Canvas, here: float) -> None:
        top = int(np.ceil(self.horizon + 1))
        y = np.arange(top, self.height, dtype=np.float32)[:, None]
        z = np.float32(self.focal * EYE_M) / (y - np.float32(self.horizon))
        shift = (self._lateral(here, np.minimum(z, 300)) - self.eye_x).astype(np.float32)
        x = (np.arange(self.width, dtype=np.float32)[None, :] - self.width / 2) * (z / np.float32(self.focal)) - shift
        along = z + np.float32(here % 4096)
        coarse = self.texture[(x * 3).astype(np.int32) & 255, np.broadcast_to((along * 2).astype(np.int32) & 255, x.shape)]
        fine = self.texture[(x * 21).astype(np.int32) & 255, np.broadcast_to((along * 13).astype(np.int32) & 255, x.shape)]
        fade = np.exp(-z / 18)
        rough = coarse + fine * fade
        away = np.abs(x)
        road, paved = away < self.half_road, away < self.half_road + self.pavement
        labels = np.where(road, ROAD, np.where(paved, PAVEMENT, TREE if self.verge else PAVEMENT)).astype(np.uint8)
        image = np.where(road[..., None], self.asphalt, self.paving)
        if self.verge:
            image[~paved] = self.grass
        image += (rough * np.where(road, 7, 9).astype(np.float32))[..., None]
        joint = paved & ~road & ((np.abs(along % 2.0) < 0.06) | (np.abs(away - self.half_road) < 0.14))
        image[joint & (fade > 0.25)] *= 0.84
        if self.marks:
            width = np.maximum(0.07, z * 0.0012)
            dashed = (along % 6.0) < 3.0
            line = (np.abs(x) < width) & (dashed if self.lanes == 1 else True)
            for lane in range(1, self.lanes):
                line |= (np.abs(away - 3.3 * lane) < width) & dashed
            line |= np.abs(away - (self.half_road - 0.25)) < width * 0.8
            image[line & road] = image[line & road] * 0.25 + np.float32(165)
        haze = 1 - np.exp(-self.haze * z)[..., None]
        canvas.image[top:] = image * (1 - haze) + self.sky[1] * haze
        canvas.labels[top:] = labels

    def _grain(self, index: int) -> Array:
        rng = np.random.default_rng((self.seed, 19, index & 0xFFFFFFFF))
        oy, ox = rng.integers(0, 256, 2)
        rows, columns = (np.arange(self.height) + oy) & 255, (np.arange(self.width) + ox) & 255
        grain: Array = self.grain[rows][:, columns][..., None]
        return grain


def _far_first(placed: tuple[Thing, float]) -> float:
    """Walls hide only what is beyond their far end; trees stand behind the walls of their cell."""
    thing, z = placed
    return -(z + (CELL_M + 1 if thing.kind == "tree" else thing.length))


def _fractal(rng: np.random.Generator, size: int) -> Array:
    """Tileable noise, zero mean, about -1..1, several octaves."""
    out = np.zeros((size, size), np.float32)
    for octave in range(2, 8):
        n = 1 << octave
        grid = rng.standard_normal((n, n)).astype(np.float32)
        k = size // n
        t = np.linspace(0, 1, k, endpoint=False, dtype=np.float32)
        a = np.kron(grid, np.ones((k, 1), np.float32)) * np.tile(1 - t, n)[:, None]
        a += np.kron(np.roll(grid, -1, 0), np.ones((k, 1), np.float32)) * np.tile(t, n)[:, None]
        b = np.kron(a, np.ones((1, k), np.float32)) * np.tile(1 - t, n)
        b += np.kron(np.roll(a, -1, 1), np.ones((1, k), np.float32)) * np.tile(t, n)
        out += b / (octave**0.8)
    out /= np.float32(2 * out.std())
    return out


def _soften(image: Array) -> Array:
    """A lens: [1 4 1] / 6 both ways, so that edges are as soft as a camera's."""
    rows: Array = image * np.float32(2 / 3)
    sixth = image * np.float32(1 / 6)
    rows[1:-1] += sixth[:-2]
    rows[1:-1] += sixth[2:]
    out: Array = rows * np.float32(2 / 3)
    rows *= np.float32(1 / 6)
    out[:, 1:-1] += rows[:, :-2]
    out[:, 1:-1] += rows[:, 2:]
    return out


__all__ = ["CLASSES", "FRAME_RATE", "RoadScene", "Thing"]
