"""Any head, and streams, through the commands: run, its lines and its log, replay, profile; in this process and in one of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import Percodec

from percodec.runtime import Session
from percodec.sdk.log import read_log

ROAD = "synthetic://road?frames=24&seed=5"


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def run(percodec: Percodec, bundle: Path, folder: Path, *words: object) -> Path:
    done = percodec("run", ROAD, "--bundle", bundle, "--out", folder, "--no-sheet", *words, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def drive(percodec: Percodec, rich_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(percodec, rich_bundle, tmp_path_factory.mktemp("heads") / "out", "--heads", "all", "--stream", "--key-every", 8)


def test_every_head_is_in_lines_report_and_replay(percodec: Percodec, rich_bundle: Path, drive: Path) -> None:
    lines = lines_of(drive)
    assert len(lines) == 24
    assert all(line["valid"] for line in lines)
    for line in lines:
        assert {name: head["task"] for name, head in line["heads"].items()} == {
            "segmentation": "segmentation", "light": "classification", "depth": "array",
        }  # fmt: skip
        assert abs(sum(line["heads"]["light"]["probs"].values()) - 1) < 1e-3
        assert line["heads"]["segmentation"]["crc"] == line["labels_crc"]
    report = json.loads((drive / "report.json").read_text())
    assert set(report["options"]["heads"]) == set(lines[0]["heads"])
    assert report["options"]["stream"] == {"key_every": 8}
    done = percodec("replay", drive / "packets.mcap", "--bundle", rich_bundle, "--json", cwd=drive)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["compared"], result["equal"]) == (24, True)
    assert result["heads_differ"] == {"segmentation": [], "light": [], "depth": []}


@pytest.mark.parametrize("head", ["segmentation", "light", "depth"])
def test_replay_names_the_head_that_differs(percodec: Percodec, rich_bundle: Path, drive: Path, tmp_path: Path, head: str) -> None:
    lines = lines_of(drive)
    lines[9]["heads"][head]["crc"] = "00000000"
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = percodec("replay", drive / "packets.mcap", "--against", "other.jsonl", "--bundle", rich_bundle, "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["heads_differ"] == {name: [9] if name == head else [] for name in ("segmentation", "light", "depth")}


@pytest.mark.parametrize("head", ["light", "depth"])
def test_a_run_needs_no_segmentation(percodec: Percodec, rich_bundle: Path, tmp_path: Path, head: str) -> None:
    folder = run(percodec, rich_bundle, tmp_path / "out", "--heads", head)
    assert all(set(line["heads"]) == {head} and "classes" not in line for line in lines_of(folder))
    assert (folder / "overlay.mp4").stat().st_size > 0
    done = percodec("replay", folder / "packets.mcap", "--bundle", rich_bundle, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["heads_differ"] == {head: []}


def test_engines_in_a_process_of_their_own_say_the_same(percodec: Percodec, rich_bundle: Path, drive: Path, tmp_path: Path) -> None:
    folder = run(percodec, rich_bundle, tmp_path / "out", "--heads", "all", "--isolate")
    assert [line["heads"] for line in lines_of(folder)] == [line["heads"] for line in lines_of(drive)]


def test_profile_runs_all_heads(percodec: Percodec, rich_bundle: Path, tmp_path: Path) -> None:
    words = ("--heads", "all", "--frames", 20, "--warmup", 2, "--parts", "throughput", "--json", "--out", "p")
    done = percodec("profile", rich_bundle, ROAD, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    precision = json.loads(done.stdout)["backends"]["ort"]["about"]["precision"]
    assert set(precision) == {"encoder", "segmentation", "light", "depth"}


def test_an_unknown_head_names_those_there_are(percodec: Percodec, rich_bundle: Path, tmp_path: Path) -> None:
    for words in (("run", ROAD, "--out", "out"), ("profile", rich_bundle, ROAD)):
        bundle = () if words[0] == "profile" else ("--bundle", rich_bundle)
        done = percodec(*words, *bundle, "--heads", "sky", cwd=tmp_path)
        assert done.returncode == 1
        assert "no head 'sky' (it has: segmentation" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_stream_costs_less_and_decodes_to_the_same(percodec: Percodec, rich_bundle: Path, drive: Path, tmp_path: Path) -> None:
    alone = run(percodec, rich_bundle, tmp_path / "alone", "--heads", "segmentation")
    assert [line["latent_crc"] for line in lines_of(alone)] == [line["latent_crc"] for line in lines_of(drive)]
    done = percodec("encode", ROAD, "-o", "s.mcap", "--bundle", rich_bundle, "--stream", "--key-every", 8, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [r.packet for r in read_log(tmp_path / "s.mcap")] == [r.packet for r in read_log(drive / "packets.mcap")]
    assert sum(line["packet_bytes"] for line in lines_of(drive)) < sum(line["packet_bytes"] for line in lines_of(alone))


def test_stream_without_tables_is_refused(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    for words in (("run", ROAD, "--out", "out"), ("encode", ROAD, "-o", "out.mcap")):
        done = percodec(*words, "--stream", "--bundle", bundle_folder, cwd=tmp_path)
        assert done.returncode == 1
        assert "no tables of predicted packets" in done.stderr
        assert not list(tmp_path.iterdir())


def test_a_log_cut_anywhere_decodes_up_to_the_cut(percodec: Percodec, rich_bundle: Path, drive: Path, tmp_path: Path) -> None:
    from percodec.runtime.run.logged import LoggedLatents

    whole = (drive / "packets.mcap").read_bytes()
    with Session.open(rich_bundle) as session:
        wanted = {line["frame_id"]: line["latent_crc"] for line in lines_of(drive)}
        for cut in sorted(int(c) for c in np.random.default_rng(1).integers(1500, len(whole), 20)):
            (tmp_path / "cut.mcap").write_bytes(whole[:cut])
            latents = LoggedLatents(tmp_path / "cut.mcap", session.bundle)
            found = {record.frame_id: symbols for record, symbols in latents}
            assert list(found) == list(range(len(found)))
            assert latents.log.truncated
            assert latents.lost == []
            import zlib

            assert all(f"{zlib.crc32(symbols.data):08x}" == wanted[k] for k, symbols in found.items())


def test_a_lost_packet_costs_what_follows_up_to_the_next_key(percodec: Percodec, rich_bundle: Path, drive: Path, tmp_path: Path) -> None:
    from percodec.sdk.bundle import Bundle
    from percodec.sdk.log import LogWriter

    with LogWriter(tmp_path / "gap.mcap", Bundle.open(rich_bundle)) as log:
        for record in read_log(drive / "packets.mcap"):
            if record.frame_id != 10:
                log.append(record.packet, record.frame_id, record.timestamp_ns)
    done = percodec("replay", "gap.mcap", "--bundle", rich_bundle, "--json", cwd=tmp_path)
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["lost"] == [11, 12, 13, 14, 15]
    assert result["frames"] == 24 - 6
    done = percodec("decode", "gap.mcap", "-o", "pictures", "--bundle", rich_bundle, cwd=tmp_path)
    assert done.returncode == 1
    assert "5 frames (first 11) could not be decoded" in done.stderr
    assert (tmp_path / "pictures" / "reconstruction.mp4").exists()


def test_a_packet_that_comes_twice_or_late_costs_nothing(rich_bundle: Path, drive: Path, tmp_path: Path) -> None:
    from percodec.runtime.run.logged import LoggedLatents
    from percodec.sdk.bundle import Bundle
    from percodec.sdk.log import LogWriter

    bundle = Bundle.open(rich_bundle)
    records = list(read_log(drive / "packets.mcap"))
    order = [0, 1, 1, 2, 0, 3, 4, 5, 6, 7, 8, 8, 9, 5, *range(10, 24)]  # a key and predicted packets twice; 0 and 5 late again
    with LogWriter(tmp_path / "twice.mcap", bundle) as log:
        for k in order:
            log.append(records[k].packet, records[k].frame_id, records[k].timestamp_ns)
    latents = LoggedLatents(tmp_path / "twice.mcap", bundle)
    assert [record.frame_id for record, _ in latents] == list(range(24))
    assert (latents.lost, latents.repeated) == ([], 4)
