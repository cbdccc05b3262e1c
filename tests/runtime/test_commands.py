"""The commands from end to end on the tiny bundle: what is logged is what was seen, and replays equal."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.command import Percodec

from percodec.sdk import Bundle, PacketCodec, read_log


@pytest.fixture(scope="module")
def run(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole `percodec run` of the 40-frame video."""
    here = tmp_path_factory.mktemp("run")
    done = percodec("run", video, "--bundle", bundle_folder, "--out", "out", cwd=here)
    assert done.returncode == 0, done.stderr
    for word in ("encode", "predict", "40 captured = 40 predicted + 0 dropped", "bpp", "peak", "p99"):
        assert word in done.stdout
    return here / "out"


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything(run: Path) -> None:
    assert {p.name for p in run.iterdir()} == {"packets.mcap", "frames.jsonl", "overlay.mp4", "contact_sheet.png", "report.json"}
    report = json.loads((run / "report.json").read_text())
    frames = report["frames"]
    assert frames["captured"] == frames["predicted"] == 40
    assert {"p50", "p90", "p99", "max"} <= set(report["stages_ms"]["predict"])
    assert report["memory"]["peak_rss_mb"] > 10
    assert report["outcome"] == "complete"
    sheet = cv2.imread(str(run / "contact_sheet.png"))
    assert min(sheet.shape[:2]) > 100
    assert sheet.std() > 10
    film = cv2.VideoCapture(str(run / "overlay.mp4"))
    assert int(film.get(cv2.CAP_PROP_FRAME_COUNT)) == 40


def test_lines_log_and_report_agree(run: Path, bundle_folder: Path) -> None:
    lines = lines_of(run)
    records = list(read_log(run / "packets.mcap"))
    assert [line["frame_id"] for line in lines] == [r.frame_id for r in records] == list(range(40))
    assert [line["packet_bytes"] for line in lines] == [len(r.packet) for r in records]
    assert all(line["valid"] and line["logged"] and line["age_ms"] >= 0 for line in lines)
    stamps = [line["timestamp_ns"] for line in lines]
    assert stamps == sorted(set(stamps)) == [r.timestamp_ns for r in records]
    bundle = Bundle.open(bundle_folder)
    bpp = 8 * sum(len(r.packet) for r in records) / 40 / (bundle.frame_height * bundle.frame_width)
    assert json.loads((run / "report.json").read_text())["rate"]["bpp"] == pytest.approx(bpp, rel=1e-3)


def test_replay_equals_the_live_run(percodec: Percodec, run: Path, bundle_folder: Path) -> None:
    done = percodec("replay", "packets.mcap", "--bundle", bundle_folder, "--json", cwd=run)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["frames"], result["compared"], result["equal"]) == (40, 40, True)


@pytest.mark.parametrize("key", ["latent_crc", "labels_crc"])
def test_replay_notices_any_difference(percodec: Percodec, run: Path, bundle_folder: Path, tmp_path: Path, key: str) -> None:
    lines = lines_of(run)
    lines[17][key] = "00000000"
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = percodec("replay", run / "packets.mcap", "--against", "other.jsonl", "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 1
    assert "frame 17" in done.stderr


def test_replay_notices_a_frame_the_log_lost(percodec: Percodec, run: Path, bundle_folder: Path, tmp_path: Path) -> None:
    line = lines_of(run)[0] | {"frame_id": 999}
    (tmp_path / "more.jsonl").write_text((run / "frames.jsonl").read_text() + json.dumps(line) + "\n")
    done = percodec("replay", run / "packets.mcap", "--against", "more.jsonl", "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 1
    assert "999" in done.stderr


def test_packets_do_not_depend_on_threads_or_repetition(
    percodec: Percodec, run: Path, bundle_folder: Path, video: Path, tmp_path: Path
) -> None:
    reference = [r.packet for r in read_log(run / "packets.mcap")]
    for k, options in enumerate((("--threads", 2), ("--workers", 2), ())):
        done = percodec("run", video, "--bundle", bundle_folder, "--out", f"o{k}", "--no-overlay", "--no-sheet", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [r.packet for r in read_log(tmp_path / f"o{k}/packets.mcap")] == reference


def test_an_image_to_a_packet_and_back(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    from support.tiny_bundle import frames

    cv2.imwrite(str(tmp_path / "a.png"), frames(1)[0][..., ::-1])
    assert percodec("encode", "a.png", "-o", "a.pcpk", "--bundle", bundle_folder, cwd=tmp_path).returncode == 0
    done = percodec("decode", "a.pcpk", "-o", "d", "--segment", "--reference", "a.png", "--json", "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["psnr_db"] > 5
    bundle = Bundle.open(bundle_folder)
    assert {p.name for p in (tmp_path / "d").iterdir()} == {"reconstruction.png", "segmentation.png"}
    assert cv2.imread(str(tmp_path / "d/reconstruction.png")).shape == (bundle.frame_height, bundle.frame_width, 3)


def test_a_log_back_to_a_video(percodec: Percodec, run: Path, bundle_folder: Path, tmp_path: Path) -> None:
    done = percodec("decode", run / "packets.mcap", "-o", "d", "--segment", "--max-frames", 6, "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    film = cv2.VideoCapture(str(tmp_path / "d/reconstruction.mp4"))
    assert int(film.get(cv2.CAP_PROP_FRAME_COUNT)) == 6


def test_a_folder_of_pictures_of_another_size(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    from support.tiny_bundle import frames

    (tmp_path / "pictures").mkdir()
    for k, image in enumerate(frames(5, 50, 130)):
        cv2.imwrite(str(tmp_path / f"pictures/{k}.jpg"), image)
    done = percodec("run", "pictures", "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(tmp_path / "percodec-out/pictures")) == 5


def test_a_demo_with_another_bundle(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    done = percodec("demo", "--frames", 20, "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "percodec-demo/overlay.mp4").stat().st_size > 1000
    again = percodec("demo", "--frames", 20, "--bundle", bundle_folder, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["frames"]["captured"] == 20


def test_doctor_says_whether_the_cpu_path_works(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    done = percodec("doctor", "--bundle", bundle_folder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert checks["onnxruntime"]["status"] == "ok"
    broken = Path(shutil.copytree(bundle_folder, tmp_path / "broken"))
    (broken / "decoder.onnx").unlink()
    assert percodec("doctor", "--bundle", broken, cwd=tmp_path).returncode == 1


def test_the_logged_latent_is_what_the_encoder_gave(run: Path, bundle_folder: Path, video: Path) -> None:
    from support.tiny_bundle import run_graph

    from percodec.runtime.capture.open import open_source
    from percodec.runtime.capture.preprocess import Preprocessor

    bundle = Bundle.open(bundle_folder)
    codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    preprocess = Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit)
    source = open_source(str(video))
    image = np.zeros((1, bundle.frame_height, bundle.frame_width, 3), np.uint8)
    for record in read_log(run / "packets.mcap"):
        frame = source.read()
        assert frame is not None
        preprocess(frame, image[0])
        assert np.array_equal(codec.decode(record.packet)[1], run_graph(bundle.graph("encoder"), image)[0])
    source.close()


def test_a_runs_folder_is_replayed_with_its_lines(percodec: Percodec, run: Path, bundle_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "o")
    segmented = percodec("run", "synthetic://road?frames=5", "--out", "s", "--log-segment", "4KiB", "--bundle", bundle_folder, cwd=tmp_path)
    assert segmented.returncode == 0, segmented.stderr
    for folder, here in ((".", tmp_path / "o"), ("o", tmp_path), ("s", tmp_path), ("s/packets", tmp_path), (".", tmp_path / "s")):
        done = percodec("replay", folder, "--json", "--bundle", bundle_folder, cwd=here)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["compared"] == result["frames"] > 0
    lines = (tmp_path / "o" / "frames.jsonl").read_text()
    (tmp_path / "o" / "frames.jsonl").write_text(re.sub(r'"latent_crc": ?"[0-9a-f]{8}"', '"latent_crc": "00000000"', lines))
    done = percodec("replay", "o", "--bundle", bundle_folder, cwd=tmp_path)
    assert done.returncode == 1
    assert "40 latents differ" in done.stdout


def test_psnr_says_of_how_many_frames_it_is(percodec: Percodec, run: Path, video: Path, bundle_folder: Path, tmp_path: Path) -> None:
    picture = cv2.VideoCapture(str(video)).read()[1]
    cv2.imwrite(str(tmp_path / "first.png"), picture)
    for reference, notes in (("first.png", ["PSNR is of 1 of 40 frames; first.png has no others"]), (video, [])):
        words = ("decode", run, "-o", "d", "--reference", reference, "--json", "--overwrite", "--bundle", bundle_folder)
        done = percodec(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["notes"] == notes


def test_a_fallback_draws_the_sheet_as_well(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    words = ("run", "synthetic://road?frames=3", "--backend", "tensorrt", "--fallback", "ort", "--out", "o", "--bundle", bundle_folder)
    done = percodec(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "contact_sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "synthetic://road?frames=1", "--out", "o", "--no-log", "--log-segment", "1MB"), "--no-log writes none"),
        (("run", "synthetic://road?frames=1", "--out", "o", "--key-every", "2"), "--key-every goes with --stream"),
        (("encode", "synthetic://road?frames=1", "-o", "a.mcap", "--key-every", "2"), "--key-every goes with --stream"),
        (("run", "synthetic://road?frames=1", "--out", "o", "--bundle", ""), "--bundle is empty"),
    ],
)
def test_what_would_have_no_effect_is_refused(percodec: Percodec, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = percodec(*words, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_the_built_in_bundle_has_a_name(percodec: Percodec, tmp_path: Path) -> None:
    done = percodec("doctor", "--bundle", "road", "--json", cwd=tmp_path)
    assert next(check for check in json.loads(done.stdout) if check["name"] == "bundle")["status"] == "ok"
    assert "expected deadbeef" in percodec("serve", "x=road", "--expect-digest", "deadbeef", cwd=tmp_path).stderr  # it was found
    (tmp_path / "road").mkdir()
    assert "manifest.json cannot be opened" in percodec("replay", "a.mcap", "--bundle", "road", cwd=tmp_path).stderr
