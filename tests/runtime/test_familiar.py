"""Scenes that a bundle was not made for: not valid, counted, in lines, report and health; from export to run, replay and a session."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.command import Percodec
from support.once import Once
from support.tiny_bundle import frames

from percodec.runtime import Session
from percodec.runtime.pipeline.plausibility import UNFAMILIAR
from percodec.sdk.cli import main
from percodec.sdk.errors import UsageError


def pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    for k, picture in enumerate(frames(count, seed=seed)):
        cv2.imwrite(str(folder / f"{k:03}.png"), picture[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def watchful(bundle_folder: Path, once: Once) -> Path:
    """The tiny bundle, told what is usual as a user would."""

    def make(folder: Path) -> None:
        usual, others = pictures(folder / "usual", 80, 0), pictures(folder / "others", 40, 0)
        words = ["export", str(bundle_folder), "--familiar", f"{usual}@0:60", "--familiar-limit", str(usual) + "@40:80"]
        assert main([*words, "--familiar-limit", str(others), "--out", str(folder / "bundle"), "--name", "watchful"]) == 0

    return once("watchful", make) / "bundle"


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten usual frames, ten of noise, five usual ones."""
    folder = tmp_path_factory.mktemp("drive") / "pictures"
    pictures(folder, 25, 0)
    rng = np.random.default_rng(1)
    for k in range(10, 20):
        cv2.imwrite(str(folder / f"{k:03}.png"), rng.integers(0, 256, (64, 96, 3), np.uint8))
    return folder


def run(percodec: Percodec, bundle: Path, drive: Path, out: Path, *words: str) -> tuple[list[dict[str, object]], dict[str, object], str]:
    done = percodec("run", drive, "--bundle", bundle, "--out", out, "--no-overlay", "--no-sheet", *words, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    return lines, json.loads((out / "report.json").read_text()), done.stdout


def test_frames_of_another_kind_are_not_valid(percodec: Percodec, watchful: Path, drive: Path, tmp_path: Path) -> None:
    lines, report, said = run(percodec, watchful, drive, tmp_path / "out")
    far = [k for k, line in enumerate(lines) if line["unfamiliarity"] > 1]  # type: ignore[operator]
    assert far == list(range(10, 20))
    assert [k for k, line in enumerate(lines) if not line["valid"]] == far
    assert {lines[k]["why"] for k in far} == {UNFAMILIAR}
    assert (report["frames"]["unfamiliar"], report["frames"]["invalid"]) == (10, 10)  # type: ignore[index]
    assert "10 of an unfamiliar scene" in said
    done = percodec("replay", tmp_path / "out" / "packets.mcap", "--bundle", watchful, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_model_card_says_what_is_usual(watchful: Path) -> None:
    card = (watchful / "MODEL_CARD.md").read_text()
    assert re.search(r"^- usual: `\S+/usual@0:60`, 60 frames$", card, re.MULTILINE)
    assert re.search(r"^- limit: `\S+/others`, 40 frames, \d\.\d+$", card, re.MULTILINE)


def test_they_stay_valid_where_that_is_asked_for(percodec: Percodec, watchful: Path, drive: Path, tmp_path: Path) -> None:
    lines, report, _ = run(percodec, watchful, drive, tmp_path / "out", "--allow-unfamiliar")
    assert all(line["valid"] for line in lines)
    assert (report["frames"]["unfamiliar"], report["frames"]["invalid"]) == (10, 0)  # type: ignore[index]
    assert report["options"]["allow_unfamiliar"] is True  # type: ignore[index]


def test_health_says_so_while_it_lasts(percodec: Percodec, watchful: Path, drive: Path, tmp_path: Path) -> None:
    _, report, _ = run(percodec, watchful, drive, tmp_path / "out", "--realtime", "--policy", "block")
    changes = report["health"]["changes"]  # type: ignore[index]
    assert any("unfamiliar scene" in change["reasons"].values() for change in changes), changes
    assert "unfamiliar scene" not in changes[-1]["reasons"].values()


def test_a_bundle_that_cannot_tell_says_nothing(percodec: Percodec, bundle_folder: Path, drive: Path, tmp_path: Path) -> None:
    lines, report, _ = run(percodec, bundle_folder, drive, tmp_path / "out")
    assert not any("unfamiliarity" in line for line in lines)
    assert report["frames"]["unfamiliar"] is None  # type: ignore[index]


def test_a_session_tells(watchful: Path, bundle_folder: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 96, 3), np.uint8)
    with Session.open(watchful) as session:
        for picture, far in ((frames(1)[0], False), (noise, True)):
            latent = session.encode(picture)
            found = session.unfamiliarity(latent, session.predict(latent))
            assert found is not None
            assert (found > 1) is far
        with pytest.raises(UsageError, match="needs the prediction of its head segmentation"):
            session.unfamiliarity(latent)
    with Session.open(bundle_folder) as session:
        assert session.unfamiliarity(session.encode(noise)) is None


def test_what_cannot_be_learned_from_is_refused(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = pictures(tmp_path / "few", 8, 0)
    for words, said in (
        (["--familiar", str(few)], "go together"),
        (["--familiar", str(few), "--familiar-limit", str(few)], "at least 32 frames"),
        (["--familiar", f"{few}@3:4", "--familiar-limit", str(few)], "--familiar"),
        (["--familiar", str(tmp_path / "none"), "--familiar-limit", str(few)], "none"),
    ):
        code = main(["export", str(bundle_folder), *words, "--out", str(tmp_path / "out")])
        assert code in (1, 2)
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
