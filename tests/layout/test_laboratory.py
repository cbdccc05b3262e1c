"""The laboratory's page, results and bundles tell the same story, and every command it names is one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import main

ROOT = Path(__file__).resolve().parents[2]
RESULTS, BUNDLES = ROOT / "benchmarks" / "results", sorted((ROOT / "benchmarks" / "bundles").glob("lab-*"))
MACHINE = re.compile(r"\W/(?:" + "|".join(["work", "tmp", "root", "home"]) + ")/")


def results(name: str) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(RESULTS.glob(f"lab_{name}-*.json"))]


@pytest.mark.skipif(not BUNDLES, reason="the laboratory's bundles are not made yet: benchmarks/lab_results.py makes them")
def test_there_is_a_bundle_per_operating_point():
    assert [b.name for b in BUNDLES] == ["lab-0.0983", "lab-0.330", "lab-0.635"]


@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: p.name)
def test_bundles_are_small_whole_and_nobodys(path):
    assert sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) <= 30e6
    bundle = Bundle.open(path)
    heads = {g for g in bundle.manifest["graphs"] if g.startswith("head_")}
    segmentation = {"head_segmentation", "head_segmentation_resnet50", "head_segmentation_cresnet39"}
    assert heads == segmentation | {"head_classification", "head_classification_resnet50"}
    assert not MACHINE.search(json.dumps(bundle.manifest))


@pytest.mark.parametrize(("kind", "metric", "count"), [("segmentation", "miou", 9), ("classification", "map", 6)])
def test_table_rows_are_their_bundles(kind, metric, count):
    bundles = {b.name: Bundle.open(b).manifest["metrics"] for b in BUNDLES}
    for result in results(kind):
        rows = [r for r in result["rows"] if "graph" in r]
        assert len(rows) == count
        for row in rows:
            assert row[metric] == pytest.approx(bundles[row["bundle"]]["heads"][row["graph"]][metric], abs=1e-4)
            assert row["bpp"] == pytest.approx(bundles[row["bundle"]]["bpp_coded"], abs=1e-6)


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
def test_tables_are_complete(kind):
    found_files = results(kind)
    if not found_files:
        pytest.skip("the laboratory's tables are not measured yet: benchmarks/lab_results.py measures them")
    (result,) = found_files
    found = {(r["network"].removesuffix("-d"), r["trained_on"], r["input"], r["point"]) for r in result["rows"]}
    assert ("resnet50", "original", "original", "") in found
    for point in ("0.635", "0.330", "0.0983"):
        for network, reads in (("resnet50", "decoded"), ("cresnet39", "latent"), ("cresnet51", "latent")):
            assert (network, reads, reads, point) in found
        for shown in ("decoded", "jpeg", "resize"):
            assert ("resnet50", "original", shown, point) in found
    assert all(r["drop"] is not None for r in result["rows"])


def test_every_run_of_the_laboratory_is_a_command_that_parses(capsys):
    pytest.importorskip("torch", reason="needs the export extra")
    script = ROOT / "benchmarks" / "lab_train.py"
    done = subprocess.run([sys.executable, str(script), "--list"], capture_output=True, text=True, check=True)
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(commands) > 30
    names = [Path(words[words.index("--out") + 1]).name for words in commands]
    for words in commands:
        assert main([*words[1:], "--print-config"]) == 0
        config = json.loads(capsys.readouterr().out)
        assert config["task"] == words[2]
        for flag in ("--codec", "--trunk", "--head"):
            if flag in words:
                needed = Path(words[words.index(flag) + 1]).parent.name
                assert names.index(needed) < names.index(Path(words[words.index("--out") + 1]).name)
