"""Whatever a file holds: every reader behind the real command line, fed files of which a few bytes or values were changed.

Nothing ends in exit 70 or a traceback, nothing hangs, nothing takes 500 MB. Files of a bundle are changed with the manifest made to fit,
or the checksums would answer for every reader behind them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.yard import Walk

pytest.importorskip("torch", reason="needs the export extra: its readers are among those that are tried")

B = ("--bundle", "bundle")
RUN = ("run", "clip.avi", "--out", "o", "--no-overlay", "--no-sheet", *B)
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "bundle/manifest.json": (("inspect", "bundle"), RUN, ("doctor", *B)),
    "bundle/encoder.onnx": (("inspect", "bundle"), (*RUN, "--no-selftest")),
    "bundle/head_segmentation.onnx": (RUN,),
    "bundle/entropy.pcem": (("encode", "clip.avi", "-o", "o.mcap", *B),),
    "bundle/selftest/frames.npy": (("doctor", *B),),
    "log.mcap": (("inspect", "log.mcap"), ("replay", "log.mcap", *B), ("decode", "log.mcap", "-o", "o", *B)),
    "packet.pcpk": (("inspect", "packet.pcpk"), ("decode", "packet.pcpk", "-o", "o", *B)),
    "done/frames.jsonl": (("replay", "done/packets.mcap", *B),),
    "done/report.json": (("profile", "compare", "done/report.json", "done/report.json"),),
    "bag.mcap": (("bag", "info", "bag.mcap"), ("bag", "compress", "bag.mcap", "o.mcap", "--all", *B)),
    "one.bag": (("bag", "info", "one.bag"), ("bag", "compress", "one.bag", "o", "--all", *B)),
    "rosbag/metadata.yaml": (("bag", "info", "rosbag"),),
    "picture.png": (("encode", "picture.png", "-o", "o.pcpk", *B), ("run", "picture.png", "--out", "o", *B)),
    "clip.avi": (("encode", "clip.avi", "-o", "o.mcap", *B),),
    "head.onnx": (("export", "bundle", "--head", "x=head.onnx:array", "--out", "o"),),
    "camvid/val_labels/0.png": (("evaluate", "segmentation", "--bundle", "bundle", "--data", "camvid:camvid:val", "--limit", "1"),),
    "pictures/0.png": (("restore", "compress", "pictures", "o", "--codec", "jpeg:q30"),),
    "config.yaml": (("train", "codec", "--config", "config.yaml", "--out", "o", "--print-config"),),
    "budget.yaml": (("profile", "bundle", "clip.avi", "--frames", "10", "--warmup", "0", "--budget", "budget.yaml", "--out", "o"),),
}
SPLICES = (
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"null",
    b"{}",
    b"[",
    b'"',
    b"\\u0000",
    b"..",
    b"/",
    b"\xff" * 8,
    b"\0" * 16,
    b"9" * 400,
    b"\xef\xbb\xbf",
)
ODD: tuple[Any, ...] = (None, 0, -1, 2**63, 2**70, 1e308, float("nan"), float("inf"), "", [], {}, [[]], "\ud800", "a" * 10_000, True)
ODD += ("../x", [1] * 1000, {"a": {}})


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON document are."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from places(value, (*path, key))


def other_values(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with one or two of its values replaced or taken out."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2))):
        found = list(places(document))
        *way, last = rng.choice(found)
        at = document
        for key in way:
            at = at[key]
        if rng.random() < 0.2:
            del at[last]
        else:
            at[last] = rng.choice(ODD)
    return json.dumps(document).encode()


def other_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, pieces cut, doubled, overwritten, or replaced by what parsers stumble over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at, long = rng.randrange(len(out) + 1), rng.choice((1, 2, 4, 8, 64, 1024))
        kind = rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + long] = rng.randbytes(len(out[at : at + long]))
        elif kind == 2:
            del out[at : at + long]
        elif kind == 3:
            out[at:at] = out[at : at + long]
        else:
            out[at : at + rng.randrange(9)] = rng.choice(SPLICES)
    return bytes(out)


def spoil(yard: Path, name: str, rng: random.Random) -> None:
    path = yard / name
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.6:
        data = other_values(data, rng)
    elif path.suffix == ".jsonl" and rng.random() < 0.6:
        lines = data.splitlines()
        k = rng.randrange(len(lines))
        lines[k] = other_values(lines[k], rng)
        data = b"".join(line + b"\n" for line in lines)
    else:
        data = other_bytes(data, rng)
    path.write_bytes(data)
    if name.startswith("bundle/") and path.name != "manifest.json":
        manifest = json.loads((yard / "bundle/manifest.json").read_text())
        manifest["files"][name.removeprefix("bundle/")] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (yard / "bundle/manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("examples", [80, pytest.param(6000, marks=pytest.mark.long)])
def test_any_contents(walk: Walk, examples: int) -> None:
    @settings(
        max_examples=examples, derandomize=examples < 1000, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(sorted(READERS)), st.integers(0, 2**32))
    def tried(name: str, seed: int) -> None:
        rng = random.Random(seed)
        words = list(rng.choice(READERS[name]))
        wrong = walk(words, change=lambda yard: spoil(yard, name, rng))
        assert not wrong, f"{name} by seed {seed}, percodec {words}: {wrong}"

    tried()
