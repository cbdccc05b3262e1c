"""Sources: identity and time of every frame, and each way one can be missing, damaged, or gone."""

from __future__ import annotations

import re
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.fakes import FakeCapture
from support.video import write_video

from percodec.runtime.capture.camera import Camera
from percodec.runtime.capture.container import container_is_cut
from percodec.runtime.capture.images import ImageFiles, natural_key, read_image, write_image
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.source import FrameSource, Paced
from percodec.sdk.camera import CameraFormat
from percodec.sdk.errors import SourceError
from percodec.sdk.types import Frame, PixelFormat


def drain(source: FrameSource) -> tuple[list[Frame], str | None]:
    """Every frame (copied) and the message of the error it ended with."""
    frames: list[Frame] = []
    try:
        while (frame := source.read()) is not None:
            frames.append(Frame(frame.image.copy(), frame.frame_id, frame.timestamp_ns, frame.pixel_format))
    except SourceError as error:
        return frames, str(error)
    return frames, None


def picture(value: int = 100, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * 3 + value) % 256, (y * 4) % 256, np.full_like(x, value)], axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in (10, 9, 1, 2):
        write_image(tmp_path / f"frame_{k}.png", picture(k * 10))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_is_read_in_natural_order(folder: Path) -> None:
    frames, error = drain(open_source(str(folder)))
    assert error is None
    assert [int(frame.image[0, 0, 2]) for frame in frames] == [10, 20, 90, 100]
    assert [frame.frame_id for frame in frames] == [0, 1, 2, 3]
    assert [frame.timestamp_ns for frame in frames] == [k * 40_000_000 for k in range(4)]
    assert all(frame.pixel_format is PixelFormat.RGB8 for frame in frames)


def test_natural_key() -> None:
    assert sorted(["b2", "b10", "a", "10", "9", "b2a"], key=natural_key) == ["9", "10", "a", "b2", "b2a", "b10"]


def test_single_image_equals_its_pixels(tmp_path: Path) -> None:
    write_image(tmp_path / "one.png", picture())
    source = open_source(str(tmp_path / "one.png"))
    frames, error = drain(source)
    assert error is None
    assert source.info.kind == "image"
    np.testing.assert_array_equal(frames[0].image, picture())


def test_grey_and_alpha_images_become_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), picture()[..., 0])
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([picture(), picture()[..., 0]]))
    assert [frame.image.shape for frame in drain(open_source(str(tmp_path)))[0]] == [(48, 64, 3)] * 2


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty", "zero"])
def test_unreadable_image_is_left_out_and_reported_last(folder: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = folder / "frame_2.png"
    data = path.read_bytes()
    bad = {
        "cut": data[: len(data) // 2],
        "flip": data[:60] + bytes([data[60] ^ 1]) + data[61:],
        "text": b"hello",
        "empty": b"",
        "zero": _zero_size_png(),
    }
    path.write_bytes(bad[damage])
    frames, error = drain(open_source(str(folder)))
    assert [frame.frame_id for frame in frames] == [0, 2, 3], "ids of the good frames must not move"
    assert error is not None
    assert "frame_2.png" in error
    assert "3 readable images" in error
    assert capfd.readouterr().err == "", "the image library spoke to the terminal"


def test_cut_jpeg_is_not_half_a_picture(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", picture(height=400, width=400))[1].tobytes()
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    assert read_image(tmp_path / "whole.jpg").shape == (400, 400, 3)
    with pytest.raises(SourceError, match="cut off"):
        read_image(tmp_path / "cut.jpg")


def test_huge_png_is_refused_before_decoding(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(_png_header(65_530, 65_530))
    with pytest.raises(SourceError, match="more than"):
        read_image(tmp_path / "bomb.png")


def test_video_frames_and_media_time(video: Path) -> None:
    source = open_source(str(video))
    frames, error = drain(source)
    assert error is None
    assert (source.info.frames, source.info.fps, source.info.width, source.info.height) == (40, 20.0, 128, 96)
    assert [frame.frame_id for frame in frames] == list(range(40))
    assert [frame.timestamp_ns for frame in frames] == [k * 50_000_000 for k in range(40)]
    assert all(frame.pixel_format is PixelFormat.BGR8 for frame in frames)
    source.close()
    assert source.read() is None


def test_truncated_avi_gives_its_good_frames_then_an_error(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    frames, error = drain(open_source(str(tmp_path / "cut.avi")))
    assert 10 <= len(frames) < 40
    assert error is not None
    assert f"after {len(frames)} of 40 frames" in error


def test_truncated_mp4(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 48))
    for k in range(30):
        writer.write(picture(k * 5))
    writer.release()
    whole = (tmp_path / "a.mp4").read_bytes()
    assert not container_is_cut(tmp_path / "a.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    assert container_is_cut(tmp_path / "cut.mp4")
    with pytest.raises(SourceError, match="cut off"):
        open_source(str(tmp_path / "cut.mp4"))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("nowhere.mp4", "No such file"),
        ("nowhere/", "No such file"),
        ("/dev/video97", "no such camera"),
        ("v4l2://97", "no such camera"),
        ("v4l2://front", "v4l2://NUMBER"),
        ("rtsp://camera/1", "unknown kind of source"),
        ("synthetic://sea", "unknown scene"),
        ("synthetic://road?frames=0", "frames must be a whole number"),
        ("synthetic://road?frames=1e3", "frames must be a whole number"),
        ("synthetic://road?seed=-1", "seed must be"),
        ("synthetic://road?height=99999", "height must be"),
        ("synthetic://road?speed=3", "unknown setting 'speed'"),
        ("synthetic://road?frames", "name=value"),
        ("gstreamer://videotestsrc", "must end in"),
        ("gstreamer://videotestsrc ! appsink", "GStreamer"),
        ("/dev/null", "/dev/null"),
        ("a\0b", "not a path"),
    ],
)
def test_what_cannot_be_opened_says_why(spec: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=match) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_a_source_is_text_or_a_path(video: Path) -> None:
    source = open_source(video)
    assert source.read() is not None
    source.close()
    with pytest.raises(SourceError, match="a camera is v4l2://NUMBER"):
        open_source(0)  # type: ignore[arg-type]
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(SourceError, match="timeout_s is above 0"):
            open_source(video, timeout_s=seconds)


@pytest.mark.parametrize(
    ("content", "match"), [(b"", "empty"), (b"hello\n" * 100, "not a video"), (b"RIFF\xff\xff\xff\x7fAVI ", "cut off")]
)
def test_files_that_are_no_video(tmp_path: Path, content: bytes, match: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=match):
        open_source(str(tmp_path / "x.mp4"))
    assert capfd.readouterr().err == ""


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images"):
        open_source(str(tmp_path))


def test_synthetic_road_is_seeded_and_sized() -> None:
    spec = "synthetic://road?frames=2&seed=3&height=64&width=96&fps=10"
    first, _ = drain(open_source(spec))
    again, _ = drain(open_source(spec))
    other, _ = drain(open_source(spec.replace("seed=3", "seed=4")))
    assert [frame.timestamp_ns for frame in first] == [0, 100_000_000]
    assert first[0].image.shape == (64, 96, 3)
    np.testing.assert_array_equal(first[1].image, again[1].image)
    assert not np.array_equal(first[1].image, other[1].image)
    assert drain(open_source("synthetic://road?frames=1", height=80, width=40))[0][0].image.shape == (80, 40, 3)


def test_realtime_paces_a_file(tmp_path: Path) -> None:
    source = open_source(str(write_video(tmp_path / "v.avi", 5)), realtime=True)
    begin = time.monotonic()
    frames, error = drain(source)
    assert (len(frames), error) == (5, None)
    assert time.monotonic() - begin >= 0.19


def test_closing_wakes_a_paced_source(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture())
    source = Paced(ImageFiles("x", [tmp_path / "a.png"] * 3, kind="folder"))
    assert source.read() is not None
    source.close()
    assert source.read() is None


def camera(script: list[Any], timeout_s: float = 0.6, **more: Any) -> Camera:
    return Camera("fake", "v4l2", lambda: FakeCapture(script, **more), timeout_s)


def test_camera_gives_new_frames_with_rising_ids_and_times() -> None:
    taken = threading.Semaphore(0)
    source = camera([picture(1), taken.acquire, picture(2), taken.acquire, picture(3), 20.0], timeout_s=10)
    frames = []
    for _ in range(3):
        frames.append(source.read())
        taken.release()
    assert [int(frame.image[0, 0, 2]) for frame in frames if frame] == [1, 2, 3]
    assert [frame.frame_id for frame in frames if frame] == [0, 1, 2]
    stamps = [frame.timestamp_ns for frame in frames if frame]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] <= time.monotonic_ns()
    source.close()


def test_slow_reader_gets_the_newest_frame_and_a_gap() -> None:
    shown = threading.Event()
    source = camera([picture(1), 0.01, picture(2), 0.01, picture(3), shown.set, 20.0])
    assert shown.wait(20)
    frame = source.read()
    assert frame is not None
    assert (frame.frame_id, int(frame.image[0, 0, 2])) == (2, 3)
    source.close()


@pytest.mark.parametrize("ending", ["hangs", "fails", "crashes"])
def test_vanished_camera_times_out_and_repeats_nothing(ending: str) -> None:
    script: list[Any] = [0.02, picture(1), 0.02, picture(2)]
    if ending == "hangs":
        script.append(30.0)
    elif ending == "crashes":
        script.append("not an array")
    source = camera(script)
    begin = time.monotonic()
    frames, error = drain(source)
    assert len(frames) <= 2
    assert len({frame.frame_id for frame in frames}) == len(frames), "a stale frame was repeated"
    assert error is not None
    assert "after 2 frames" in error
    source.close()
    assert time.monotonic() - begin < 15


def test_camera_that_does_not_open() -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        camera([], opened=False)


def test_camera_close_does_not_wait_for_the_driver() -> None:
    source = camera([picture(1), 30.0])
    begin = time.monotonic()
    source.close()
    assert time.monotonic() - begin < 15
    assert source.read() is None


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def _zero_size_png() -> bytes:
    return _png_header(0, 0) + b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@pytest.mark.parametrize(("text", "shape"), [("nv12:32x16", (24, 32)), ("yuyv:32x16", (16, 32, 2)), ("bgr:32x16", (16, 32, 3))])
def test_a_camera_gives_its_own_format_as_it_is(text: str, shape: tuple[int, ...]) -> None:
    """OpenCV hands raw pictures out as rows of bytes; they get the format's shape back."""
    camera = CameraFormat.from_text(text)
    picture = np.arange(int(np.prod(shape)), dtype=np.uint64).astype(np.uint8)
    source = Camera("fake", "fake", lambda: FakeCapture([picture.reshape(1, -1)], then=0.05), 0.5, camera)
    frame = source.read()
    assert frame is not None
    assert frame.pixel_format is camera.pixel_format
    assert np.array_equal(frame.image, picture.reshape(shape))
    source.close()
    with pytest.raises(SourceError, match=re.escape(f"which is not {text}")):
        Camera("fake", "fake", lambda: FakeCapture([picture[:-1]], then=0.05), 0.5, camera).read()


def test_a_file_has_no_camera_format(video: Path) -> None:
    with pytest.raises(SourceError, match="is no camera"):
        open_source(str(video), camera=CameraFormat.from_text("nv12:1920x1080"))
