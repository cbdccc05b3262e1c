"""Does a bundle know what it was not made for? Frames of drives left out, the same made dark, foggy, blurred, too bright, half covered, and
pictures without a road: how many are flagged, by each candidate of a distance, beside what the head makes of them.

    python benchmarks/familiarity.py [--record] [--bundle DIR] [--quick]

Usual: one CamVid drive and half of IDD Lite's; the limit: a second drive and a quarter; judged on the third and the last quarter, never
seen by the distance. The head of the built-in bundle was trained on all three CamVid drives and on IDD Lite. Needs PERCODEC_DATA.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import record
from numpy.typing import NDArray

from percodec.export.data.files import fitted
from percodec.runtime import Session
from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.images import read_image
from percodec.sdk.bundle import Bundle
from percodec.sdk.familiarity import BEYOND, Familiarity, band_pixels, features, kinds_of
from percodec.sdk.machine import machine_info
from percodec.sdk.types import Frame

Picture = NDArray[np.uint8]
SEVERITIES = (0.25, 0.5, 0.75, 1.0)
DRIVES = ("0016E5", "0001TP", "0006R0")
FOLDS = (("0016E5", "0001TP", "0006R0"), ("0016E5", "0006R0", "0001TP"))
IDD_OF_CAMVID = np.array([6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2], np.uint8)  # sums of classes: the table in the data's README
WRONG = 0.6  # pixel accuracy below which a frame has to be flagged


def night(picture: Picture, severity: float) -> Picture:
    """Darker with a curve, bluish, noisy."""
    light = (picture / np.float32(255)) ** (1 + 1.5 * severity) * (1 - 0.85 * severity) * np.array([0.8, 0.85, 1.0], np.float32) ** severity
    noise = np.random.default_rng(5).normal(0, 0.02 + 0.03 * severity, picture.shape)
    return (np.clip(light + noise, 0, 1) * 255).astype(np.uint8)


def fog(picture: Picture, severity: float) -> Picture:
    """Grey that thickens towards the top of the picture, where things are far."""
    height = picture.shape[0]
    depth = np.clip(1 - (np.arange(height) / height) ** 1.5, 0, 1)[:, None, None]
    clear = np.exp(-3 * severity * (0.25 + depth))
    return (picture * clear + np.array([200, 203, 206]) * (1 - clear)).astype(np.uint8)


def blur(picture: Picture, severity: float) -> Picture:
    """Gaussian, sigma 3 to 10 pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1 + 9 * severity), np.uint8)


def glare(picture: Picture, severity: float) -> Picture:
    """Exposed 2 to 5 times too long."""
    return np.clip(picture * (1 + 4 * severity) + 40 * severity, 0, 255).astype(np.uint8)


def covered(picture: Picture, severity: float) -> Picture:
    """A dark left part, 32 to 70 % of the width."""
    out = picture.copy()
    out[:, : int(picture.shape[1] * (0.2 + 0.5 * severity))] = (18, 16, 15)
    return out


KINDS: dict[str, Callable[[Picture, float], Picture]] = {"night": night, "fog": fog, "blur": blur, "glare": glare, "covered": covered}


@dataclass
class Row:
    """One frame: where it is from, what was done to it, and what encoder and head made of it. `accuracy`: NaN without labels."""

    group: str
    kind: str
    severity: float
    symbols: Picture
    pixels: NDArray[np.int64]
    accuracy: float


def frames(data: Path, quick: bool) -> Iterator[tuple[str, str, float, Path, Path | None]]:
    """(group, kind, severity, picture, label) of everything that is looked at."""
    every = 6 if quick else 1
    camvid = sorted((data / "camvid" / "train").glob("*.png"))
    for path in camvid[::every]:
        yield path.name[:6], "plain", 0, path, data / "camvid" / "train_labels" / path.name
    for path in sorted((data / "idd_lite" / "train").glob("*.jpg"))[:: 12 if quick else 1]:
        yield f"idd {path.name.split('_')[0]}", "plain", 0, path, data / "idd_lite" / "train_labels" / f"{path.stem}.png"
    for kind, severity in itertools.product(KINDS, SEVERITIES):
        for path in camvid[:: 60 if quick else 9]:
            yield path.name[:6], kind, severity, path, data / "camvid" / "train_labels" / path.name
    strangers = [*sorted((data / "imagenet_small").glob("*"))[:: 20 if quick else 3], *sorted((data / "kodak").glob("*.png"))[::every]]
    for path in strangers:
        yield "photographs", "no road", 1, path, None


def look(session: Session, data: Path, quick: bool) -> list[Row]:
    """Encode and predict everything."""
    height, width = session.bundle.frame_height, session.bundle.frame_width
    rows, preprocess = [], Preprocessor(height, width, session.bundle.fit)
    for group, kind, severity, path, label in frames(data, quick):
        picture = np.empty((height, width, 3), np.uint8)
        preprocess(Frame(read_image(path), 0, 0), picture)
        latent = session.encode(KINDS[kind](picture, severity) if kind in KINDS else picture)
        prediction = session.predict(latent)
        accuracy = float("nan")
        if label is not None:
            truth = fitted(cv2.imread(str(label), cv2.IMREAD_GRAYSCALE), height, width, labels=True)
            said, known = (IDD_OF_CAMVID[prediction.labels], truth < 7) if group.startswith("idd") else (prediction.labels, truth < 11)
            accuracy = float((said == truth)[known].mean())
        pixels = band_pixels(prediction.labels, len(session.bundle.labels))
        rows.append(Row(group, kind, severity, latent.symbols, pixels, accuracy))
        if sys.stderr.isatty() and len(rows) % 20 == 0:
            print(f"\r{len(rows)} frames", end="", file=sys.stderr)
    return rows


def candidates(rows: list[Row], bundle: Bundle) -> dict[str, NDArray[np.float64]]:
    """Features [N,F] of each candidate. The cost is of the symbols in bits, by an order-0 table of the usual frames, in `judge`."""
    whole = np.array([features(row.symbols, bundle.levels, row.pixels, bundle.offsets) for row in rows])
    kinds, of_classes = kinds_of(bundle.levels, bundle.offsets), rows[0].pixels.size
    parts = 3 if bundle.offsets else 1
    symbols, classes = whole[:, : whole.shape[1] - of_classes], whole[:, whole.shape[1] - of_classes :]
    once, halves = symbols[:, : symbols.shape[1] // parts], symbols[:, symbols.shape[1] // parts :]
    split = once.reshape(len(rows), -1, kinds + 2)
    together = np.sqrt(np.square(classes).reshape(len(rows), -1, len(bundle.labels)).mean(1))
    return {
        "shares of levels": split[:, :, :kinds].reshape(len(rows), -1),
        "equal neighbours": split[:, :, kinds:].reshape(len(rows), -1),
        "levels and neighbours": once,
        "shares of classes": together,
        "levels, neighbours and classes": np.concatenate([once, together], 1),
        "halves of the latent": halves,
        "classes by quarters": classes,
        "all (ships)": whole,
    }


def distances(name: str, found: NDArray[np.float64], usual: NDArray[np.bool_], limits: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """[N], 1.0 at the limit: the largest that any of `limits` asks for."""
    if name == "code length":
        p = (found[usual] ** 2).mean(0) + 1e-6
        raw = -(found**2 @ np.log2(p))
        limit = max(float(np.quantile(raw[of], 1 - BEYOND)) for of in limits)
        return raw / limit
    rest = 1 + (found.shape[1] - 1) % 3  # any features will do: of one level, three for each channel, and the rest as of classes
    made = [Familiarity.fit(found[usual], found[of], 1, rest) for of in limits]
    chosen = max(made, key=lambda one: one.limit)
    return np.array([chosen.distance_of(row) for row in found])


def part_of(group: str) -> int:
    """0 and 1: usual, 2: limit, 3: judged; by drive of IDD Lite."""
    found = re.fullmatch(r"idd (\d+)", group)
    return -1 if found is None else (int(found[1]) * 2654435761 >> 8) % 4


def judge(rows: list[Row], bundle: Bundle) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Candidates, over both folds; and the shipped one, by kind."""
    group, kind = np.array([row.group for row in rows]), np.array([row.kind for row in rows])
    severity, accuracy = np.array([row.severity for row in rows]), np.array([row.accuracy for row in rows])
    part = np.array([part_of(row.group) for row in rows])
    plain, good = kind == "plain", ~(accuracy < WRONG)
    must = ((accuracy < WRONG) & ~plain) | (kind == "no road")
    known = candidates(rows, bundle)
    known = {"code length": known["shares of levels"], **known}
    table, kinds = [], []
    for name, found in known.items():
        folds = []
        for usual, limit, test in FOLDS:
            fit = plain & ((group == usual) | (part == 0) | (part == 1))
            score = distances(name, found, fit, [plain & (group == limit), plain & good & (part == 2)])
            folds.append(score)
            ours, theirs = plain & (group == test), plain & good & (part == 3)
            table.append(
                {
                    "candidate": name, "usual": usual, "limit from": limit, "judged on": test,
                    "false alarms": _share(score[ours]), "frames": int(ours.sum()), "IDD false alarms": _share(score[theirs]),
                    "IDD frames": int(theirs.sum()), "flagged": _share(score[must]), "of": int(must.sum()),
                    "AUROC": _auroc(score[must], score[ours | theirs]),
                }
            )  # fmt: skip
        if name == "all (ships)":
            usual_scores = [score[plain & ((group == fold[2]) | ((part == 3) & good))] for score, fold in zip(folds, FOLDS, strict=True)]
            for one in [*KINDS, "no road", "plain"]:
                for s in SEVERITIES if one in KINDS else (None,):
                    here = (kind == one) & ((severity == s) if s is not None else True) & ((part == 3) | (part == -1))
                    need = here & must
                    kinds.append(
                        {
                            "kind": "IDD Lite, judged" if one == "plain" else one, "severity": s,
                            "frames": int((here & (part == 3)).sum() if one == "plain" else here.sum()),
                            "pixel accuracy": _mean(accuracy[here & (part == 3)] if one == "plain" else accuracy[here]),
                            "must be flagged": int((here & (accuracy < WRONG)).sum() if one == "plain" else need.sum()),
                            "of these flagged": _mean([_share(f[here & (accuracy < WRONG) if one == "plain" else need]) for f in folds]),
                            "flagged": _mean([_share(f[here & (part == 3)] if one == "plain" else f[here]) for f in folds]),
                            "AUROC": _mean([_auroc(f[need], u) for f, u in zip(folds, usual_scores, strict=True)]),
                        }
                    )  # fmt: skip
    return table, kinds


def cost(session: Session, rows: list[Row]) -> dict[str, float]:
    """CPU time of one distance, median, in ms; beside encode and predict."""
    bundle = session.bundle
    plain = [features(row.symbols, bundle.levels, row.pixels, bundle.offsets) for row in rows if row.kind == "plain"]
    usual = Familiarity.fit(plain[::2], plain[1::2], bundle.levels, len(bundle.labels), "segmentation", bundle.offsets)
    found: dict[str, float] = {}
    picture = np.zeros((session.bundle.frame_height, session.bundle.frame_width, 3), np.uint8)
    latent = session.encode(picture)
    steps: dict[str, Callable[[], object]] = {"distance": lambda: usual.distance(rows[0].symbols, rows[0].pixels)}
    steps |= {"encode": lambda: session.encode(picture), "predict": lambda: session.predict(latent)}
    for name, step in steps.items():
        times = []
        for _ in range(200 if name == "distance" else 15):
            begin = time.process_time_ns()
            step()
            times.append((time.process_time_ns() - begin) / 1e6)
        found[f"{name} ms"] = round(float(np.median(times)), 4)
    return found


def _share(scores: NDArray[np.float64]) -> float | None:
    return round(float((scores > 1).mean()), 4) if scores.size else None


def _auroc(far: NDArray[np.float64], near: NDArray[np.float64]) -> float | None:
    return round(float((far[:, None] > near[None]).mean()), 4) if far.size and near.size else None


def _mean(values: Any) -> float | None:
    known = np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)
    return round(float(known.mean()), 4) if known.size else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the built-in one")
    parser.add_argument("--quick", action="store_true", help="a sixth of the frames")
    record.add_arguments(parser)
    args = parser.parse_args()
    data = Path(os.environ.get("PERCODEC_DATA", ""))
    if not (data / "camvid").is_dir():
        sys.exit("familiarity: needs real pictures; set PERCODEC_DATA to the folder that holds camvid/, idd_lite/ and imagenet_small/")
    with Session.open(args.bundle, backend="ort:fp32") as session:
        rows = look(session, data, args.quick)
        table, kinds = judge(rows, session.bundle)
        times = cost(session, rows)
        about = {"name": session.bundle.name, "digest": session.bundle.digest}
    for line in [*table, *kinds, times]:
        print("  ".join(f"{key} {value}" for key, value in line.items()))
    result = {
        "command": " ".join(["python benchmarks/familiarity.py", *(["--quick"] if args.quick else [])]),
        "date": datetime.date.today().isoformat(),
        "machine": machine_info(),
        "bundle": about,
        "frames": len(rows),
        "candidates": table,
        "kinds": kinds,
        "cost": times,
    }
    record.write_result(args, "familiarity", result)


if __name__ == "__main__":
    main()
