"""What a data set, and a camera, shrink to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from percodec.export.data.files import IMAGE_SUFFIXES, pictures_in, read_rgb
from percodec.export.evaluate.any_size import BundleAtAnySize, crop8
from percodec.export.evaluate.rd import measure
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import DataError

Advance = Callable[[int, int], None]


def measure_storage(
    folder: Path,
    bundles: list[Bundle],
    total_gb: float | None = None,
    fps: float = 10.0,
    camera: tuple[int, int] = (1920, 1080),
    limit: int | None = None,
    advance: Advance = lambda done, of: None,
) -> list[dict[str, Any]]:
    """One row for the pictures as they are, one per bundle: bytes, ratio to the files, bits per pixel, PSNR, MS-SSIM.

    `total_gb`: what a set of that size would shrink to at the same ratio. A camera of `camera` (width, height) at `fps` writes
    `mb_per_minute` and `kbit_per_s`. Raises `DataError` for a folder without pictures.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of pictures")
    paths = pictures_in(folder, [], below=True)[:limit]
    if not paths:
        raise DataError(f"no pictures in {folder} or below; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}")
    ours = [BundleAtAnySize(b) for b in bundles]
    stored = np.array([p.stat().st_size for p in paths], float)
    pixels = np.zeros(len(paths))
    packets = np.zeros((len(ours), len(paths)))
    quality: list[list[dict[str, float]]] = [[] for _ in ours]
    for k, path in enumerate(paths):
        picture = crop8(read_rgb(path))
        pixels[k] = picture.shape[0] * picture.shape[1]
        for b, one in enumerate(ours):
            packet, restored = one.round_trip(picture)
            packets[b, k] = len(packet)
            if min(picture.shape[:2]) >= 11:
                quality[b].append(measure(picture, restored))
        advance(k + 1, len(paths))

    def row(name: str, sizes: Any, found: list[dict[str, float]]) -> dict[str, Any]:
        bpp = float(sizes.sum() * 8 / pixels.sum())
        rate = bpp * camera[0] * camera[1] * fps
        out = {
            "stored_as": name,
            "pictures": len(paths),
            "megabytes": float(sizes.sum() / 1e6),
            "ratio": float(stored.sum() / sizes.sum()),
            "bpp": bpp,
            "kbit_per_s": rate / 1e3,
            "mb_per_minute": rate * 60 / 8e6,
        }
        if total_gb is not None:
            out["gb_of_total"] = float(total_gb * sizes.sum() / stored.sum())
        for key in ("psnr_db", "ms_ssim"):
            out[key] = float(np.mean([f[key] for f in found])) if found else None
        return out

    rows = [row("files as they are", stored, [])]
    return rows + [row(one.bundle.name, packets[b], quality[b]) for b, one in enumerate(ours)]


__all__ = ["measure_storage"]
