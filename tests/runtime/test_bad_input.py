"""Bad input through the real command line: one clear line, a non-zero exit, no traceback, and nothing accepted is lost."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Percodec
from support.video import write_video

from percodec.sdk import Bundle, read_log


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode not in (0, 70, -9, -11), done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("percodec: error: ")
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(scope="session")
def log(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good log of 12 frames."""
    folder = tmp_path_factory.mktemp("log")
    done = percodec("encode", video, "-o", "good.mcap", "--bundle", bundle_folder, "--max-frames", 12, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "good.mcap"


def text_file(here: Path) -> str:
    (here / "notes.mp4").write_text("these are my notes\n" * 50)
    return "notes.mp4"


def zero_size(here: Path) -> str:
    (here / "zero.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(13))
    return "zero.png"


def empty_file(here: Path) -> str:
    (here / "empty.mp4").write_bytes(b"")
    return "empty.mp4"


def empty_folder(here: Path) -> str:
    (here / "folder").mkdir()
    return "folder"


def fifo(here: Path) -> str:
    os.mkfifo(here / "pipe.mp4")
    return "pipe.mp4"


SOURCES: list[tuple[str | Callable[[Path], str], str]] = [
    ("nowhere.mp4", "No such file"),
    (text_file, "notes.mp4"),
    (empty_file, "0 bytes"),
    (zero_size, "zero.png"),
    (empty_folder, "folder"),
    (fifo, "not a regular file"),
    ("/dev/video63", "/dev/video63"),
    ("v4l2://sixty", "v4l2://NUMBER"),
    ("http://example.invalid/x.mp4", "unknown kind of source 'http'"),
    ("synthetic://sea", "unknown scene 'sea'"),
    ("synthetic://road?frames=many", "frames"),
    ("synthetic://road?colour=red", "colour"),
    ("gstreamer://videotestsrc ! appsink", "GStreamer"),
]


@pytest.mark.parametrize(("source", "word"), SOURCES)
def test_sources(percodec: Percodec, bundle_folder: Path, tmp_path: Path, source: str | Callable[[Path], str], word: str) -> None:
    name = source if isinstance(source, str) else source(tmp_path)
    refused(percodec("run", name, "--bundle", bundle_folder, "--out", "out", cwd=tmp_path), word)
    if (tmp_path / "out").exists():  # it could be opened, but its first picture could not be read
        assert json.loads((tmp_path / "out/report.json").read_text())["frames"]["captured"] == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--policy", "fastest"], "fastest"),
        (["--max-frames", "-3"], "--max-frames -3"),
        (["--max-frames", "1e3"], "--max-frames"),
        (["--threads", "0"], "--threads"),
        (["--max-age-ms", "nan"], "--max-age-ms"),
        (["--backend", "tensorrt", "--no-isolate"], "tensorrt"),
        (["--backend", "abacus"], "abacus"),
        (["--colour"], "percodec run --help"),
    ],
)
def test_options(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path, options: list[str], word: str) -> None:
    refused(percodec("run", video, "--bundle", bundle_folder, "--out", "out", *options, cwd=tmp_path), word)


def unknown_version(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["version"] = [9, 0]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def altered(folder: Path) -> None:
    data = bytearray((folder / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "encoder.onnx").write_bytes(data)


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "word"), [(unknown_version, "9.0"), (altered, "encoder.onnx was altered"), (no_manifest, "manifest.json")]
)
def test_bundles(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path, damage: Callable[[Path], None], word: str) -> None:
    folder = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    damage(folder)
    refused(percodec("run", video, "--bundle", folder, "--out", "out", cwd=tmp_path), word)


def test_a_bundle_that_is_a_file_and_one_without_the_graph(percodec: Percodec, video: Path, tmp_path: Path) -> None:
    from support.tiny_bundle import make_bundle

    refused(percodec("run", video, "--bundle", video, "--out", "out", cwd=tmp_path), "not a folder")
    make_bundle(tmp_path / "headless", leave_out=("head_segmentation",))
    refused(percodec("run", video, "--bundle", "headless", "--out", "out", cwd=tmp_path), "has no head")


def test_output_places(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    arguments = ("run", video, "--bundle", bundle_folder, "--max-frames", 2, "--no-overlay", "--no-sheet", "--out")
    refused(percodec(*arguments, "file", cwd=tmp_path), "is a file")
    assert (tmp_path / "file").read_text() == "mine"
    refused(percodec(*arguments, "/proc/nowhere", cwd=tmp_path), "/proc/nowhere")
    assert percodec(*arguments, "out", cwd=tmp_path).returncode == 0
    before = (tmp_path / "out/packets.mcap").read_bytes()
    refused(percodec(*arguments, "out", cwd=tmp_path), "already holds a run")
    assert (tmp_path / "out/packets.mcap").read_bytes() == before


def test_a_truncated_video_keeps_its_good_frames(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    refused(percodec("run", path, "--bundle", bundle_folder, "--out", "out", "--no-sheet", cwd=tmp_path), "drive.avi")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert 5 < report["frames"]["captured"] < 40
    assert report["frames"]["captured"] == report["frames"]["predicted"] == sum(1 for _ in read_log(tmp_path / "out/packets.mcap"))


def test_a_bad_picture_in_a_folder_costs_itself_only(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    import cv2
    from support.tiny_bundle import frames

    (tmp_path / "pictures").mkdir()
    for k, image in enumerate(frames(4)):
        cv2.imwrite(str(tmp_path / f"pictures/{k}.png"), image)
    (tmp_path / "pictures/2.png").write_bytes((tmp_path / "pictures/2.png").read_bytes()[:200])
    refused(percodec("run", "pictures", "--bundle", bundle_folder, "--out", "out", "--no-sheet", cwd=tmp_path), "2.png")
    assert [r.frame_id for r in read_log(tmp_path / "out/packets.mcap")] == [0, 1, 3]


def test_a_full_disk_keeps_every_acknowledged_frame(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    source = "synthetic://road?frames=400&height=64&width=96"
    done = percodec(
        "run",
        source,
        "--bundle",
        bundle_folder,
        "--out",
        "out",
        "--no-overlay",
        "--no-sheet",
        "--no-isolate",
        cwd=tmp_path,
        limit_bytes=20_000,
    )  # isolation needs more than that for what it shares
    refused(done, "packets.mcap", "free disk space")
    lines = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_bytes().split(b"\n")[:-1]]
    logged = {record.frame_id for record in read_log(tmp_path / "out/packets.mcap")}
    assert lines
    assert {line["frame_id"] for line in lines if line["logged"]} <= logged


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda data: data[:20], "packet.pcpk"),
        (lambda data: data[:-1], "packet.pcpk"),
        (lambda data: data + b"\0", "packet.pcpk"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "packet.pcpk"),
        (lambda data: data[:50] + bytes([data[50] ^ 8]) + data[51:], "packet.pcpk"),
        (lambda data: b"", "packet.pcpk"),
    ],
    ids=["header only", "cut", "longer", "magic", "bit flip", "empty"],
)
def test_packets(percodec: Percodec, bundle_folder: Path, log: Path, tmp_path: Path, damage: Callable[[bytes], bytes], word: str) -> None:
    packet = next(iter(read_log(log))).packet
    (tmp_path / "packet.pcpk").write_bytes(damage(packet))
    refused(percodec("decode", "packet.pcpk", "-o", "out", "--bundle", bundle_folder, cwd=tmp_path), word)


def test_packets_and_logs_of_another_bundle(percodec: Percodec, log: Path, tmp_path: Path) -> None:
    from support.tiny_bundle import make_bundle

    make_bundle(tmp_path / "other", gain=0.5)
    (tmp_path / "packet.pcpk").write_bytes(next(iter(read_log(log))).packet)
    refused(percodec("decode", "packet.pcpk", "-o", "out", "--bundle", "other", cwd=tmp_path), "tables")
    refused(percodec("replay", log, "--bundle", "other", cwd=tmp_path), "was logged with bundle")


def test_a_truncated_log_is_replayed_as_far_as_it_goes(percodec: Percodec, bundle_folder: Path, log: Path, tmp_path: Path) -> None:
    data = log.read_bytes()
    (tmp_path / "cut.mcap").write_bytes(data[: len(data) * 2 // 3])
    done = percodec("replay", "cut.mcap", "--bundle", bundle_folder, cwd=tmp_path)
    refused(done, "cut off", "complete frames")
    assert "replayed" in done.stdout
    (tmp_path / "text.mcap").write_text("no log")
    refused(percodec("replay", "text.mcap", "--bundle", bundle_folder, cwd=tmp_path), "text.mcap")


def test_an_unreadable_file(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(video, tmp_path / "secret.avi"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        path.symlink_to(path)  # root reads everything; nobody reads a link to itself
    refused(percodec("run", path, "--bundle", bundle_folder, "--out", "out", cwd=tmp_path), "secret.avi")
    if not path.is_symlink():
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)


def test_encode_refuses_the_wrong_kind_of_file(percodec: Percodec, bundle_folder: Path, video: Path, tmp_path: Path) -> None:
    refused(percodec("encode", video, "-o", "a.pcpk", "--bundle", bundle_folder, cwd=tmp_path), "NAME.mcap")
    refused(percodec("encode", video, "-o", "no/a.mcap", "--bundle", bundle_folder, cwd=tmp_path), "no such folder")


def test_the_bundle_stays_openable_through_all_of_this(bundle_folder: Path) -> None:
    assert Bundle.open(bundle_folder).name == "tiny"
