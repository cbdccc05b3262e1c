"""Videos as cameras, phones and editors leave them: each frame's own time, whole files that look short, damaged ones that look whole."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from percodec.runtime.capture.container import container_is_cut
from percodec.runtime.capture.open import open_source
from percodec.sdk.errors import SourceError

av = pytest.importorskip("av")

EVEN = [40 * k for k in range(50)]
VARIABLE = [40 * k for k in range(10)] + [360 + 1000 * k for k in range(1, 11)]
GAP = [*range(0, 1000, 40), *range(61_000, 62_000, 40)]


def made(path: Path, times_ms: list[int], *, codec: str = "mpeg4", b_frames: int = 0, sound_s: int = 0, start_ms: int = 0) -> Path:
    """A video of noise whose frame k is shown at `times_ms[k]`."""
    noise = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.gop_size, video.max_b_frames = 100, b_frames
        video.codec_context.time_base = video.time_base = Fraction(1, 25 if path.suffix in (".avi", ".ts") else 1000)
        sound = container.add_stream("mp2" if path.suffix == ".ts" else "aac", rate=48_000) if sound_s else None
        for t in times_ms:
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (48, 64, 3), np.uint8), "rgb24")
            frame.time_base = video.codec_context.time_base
            frame.pts = round(Fraction(t + start_ms, 1000) / frame.time_base)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for k in range(sound_s * 48_000 // 1152 if sound else 0):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32 if path.suffix != ".ts" else np.int16).reshape(2, -1), **(
                {"format": "fltp"} if path.suffix != ".ts" else {"format": "s16p"}), layout="stereo")  # fmt: skip
            frame.sample_rate, frame.pts, frame.time_base = 48_000, k * 1152, Fraction(1, 48_000)
            container.mux(sound.encode(frame))
        if sound:
            container.mux(sound.encode(None))
    return path


def times(path: Path) -> list[float]:
    """Milliseconds of every frame; raises what the source raises."""
    source = open_source(str(path))
    try:
        return [frame.timestamp_ns / 1e6 for frame in iter(source.read, None)]
    finally:
        source.close()


def container_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        found = [1000 * float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    return [t - found[0] for t in found]


@pytest.mark.parametrize("wanted", [VARIABLE, GAP], ids=["variable", "gap"])
@pytest.mark.parametrize(
    ("suffix", "b_frames", "start_ms"), [(".mp4", 0, 0), (".mp4", 2, 0), (".mkv", 2, 5000), (".mov", 0, 5000), (".mkv", 0, 0)]
)
def test_each_frame_has_its_own_time(tmp_path: Path, wanted: list[int], suffix: str, b_frames: int, start_ms: int) -> None:
    path = made(tmp_path / f"v{suffix}", wanted, b_frames=b_frames, start_ms=start_ms)
    np.testing.assert_allclose(times(path), wanted, atol=2)
    np.testing.assert_allclose(times(path), container_times(path), atol=2)


def test_a_stream_without_times_goes_by_its_rate(tmp_path: Path) -> None:
    path = made(tmp_path / "raw.m4v", EVEN)
    found = times(path)
    assert len(found) == 50
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], atol=0.01)
    assert steps[0] > 0


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "mpeg4"), (".ts", "mpeg2video")])
def test_sound_that_goes_on_is_no_damage(tmp_path: Path, suffix: str, codec: str) -> None:
    path = made(tmp_path / f"long{suffix}", EVEN[:25], codec=codec, sound_s=4)
    source = open_source(str(path))
    assert source.info.frames is not None
    assert source.info.frames > 50, "the container's estimate must be wrong for this to show anything"
    assert len(list(iter(source.read, None))) == 25
    assert "25 frames" in source.info.notes[0]


@pytest.mark.parametrize("after", [b"GPSDATA:52.5,13.4\n", b"\0\0\0", bytes(64), b"\xff" * 9])
def test_bytes_after_the_last_box_are_no_damage(tmp_path: Path, after: bytes) -> None:
    path = made(tmp_path / "a.mp4", EVEN)
    path.write_bytes(path.read_bytes() + after)
    assert len(times(path)) == 50
    path.write_bytes(path.read_bytes()[: -2000 - len(after)])
    with pytest.raises(SourceError, match="cut off"):
        times(path)


def test_an_avi_from_a_pipe(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "a.avi", EVEN, codec="mjpeg").read_bytes())
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    at = data.index(b"strh") + 8 + 32
    struct.pack_into("<I", data, at, 1 << 30)
    (tmp_path / "piped.avi").write_bytes(data[: data.index(b"idx1")])
    assert len(times(tmp_path / "piped.avi")) == 50


def test_a_trimmed_mp4_shows_what_its_edit_list_shows(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "a.mp4", EVEN).read_bytes())
    at, half = data.index(b"elst") + 12, 1000
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    struct.pack_into(">II", data, at, half, scale)
    struct.pack_into(">I", data, data.index(b"tkhd") + 24, half)
    (tmp_path / "trim.mp4").write_bytes(data)
    found = times(tmp_path / "trim.mp4")
    assert 20 <= len(found) <= 30
    np.testing.assert_allclose(np.diff(found), 40, atol=2)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "mpeg4"), (".mkv", "mpeg4"), (".ts", "mpeg2video"), (".avi", "mjpeg"), (".flv", "flv1"), (".ogv", "libvpx")],
)
@pytest.mark.parametrize("damage", ["cut", "hole", "overwritten"])
def test_real_damage_stays_an_error(tmp_path: Path, suffix: str, codec: str, damage: str) -> None:
    data = made(tmp_path / f"whole{suffix}", EVEN, codec=codec).read_bytes()
    assert len(times(tmp_path / f"whole{suffix}")) == 50
    a, b = (len(data) * 3 // 10 // 188 * 188, len(data) * 6 // 10 // 188 * 188)
    hurt = {"cut": data[: b + 100], "hole": data[:a] + data[b:], "overwritten": data[:a] + bytes(b - a) + data[b:]}[damage]
    path = tmp_path / f"hurt{suffix}"
    path.write_bytes(hurt)
    with pytest.raises(SourceError, match=r"cut off|damaged"):
        times(path)


def test_cut_matroska_and_transport_stream(tmp_path: Path) -> None:
    for path in (made(tmp_path / "a.mkv", EVEN), made(tmp_path / "a.ts", EVEN, codec="mpeg2video")):
        assert not container_is_cut(path)
        path.write_bytes(path.read_bytes()[:-150])
        assert container_is_cut(path)


@pytest.mark.parametrize(("suffix", "codec"), [(".flv", "flv1"), (".ogv", "libvpx")])
def test_chains_of_tags_and_pages(tmp_path: Path, suffix: str, codec: str) -> None:
    path = made(tmp_path / f"a{suffix}", EVEN, codec=codec)
    whole = path.read_bytes()
    assert not container_is_cut(path)
    path.write_bytes(whole + b"GPSDATA:52.5,13.4\n")
    assert not container_is_cut(path)
    assert len(times(path)) == 50
    for less in (1, 5, 150, len(whole) // 2):
        path.write_bytes(whole[:-less])
        assert container_is_cut(path), less


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_second_camera_in_the_file_is_told_of(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"two{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((64, 48), (96, 64)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width, 3), 20 * k, np.uint8), "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    source = open_source(str(path))
    assert len(list(iter(source.read, None))) == 5
    assert source.info.notes == ["2 tracks of pictures; one of them is read"]
    assert open_source(str(made(tmp_path / f"one{suffix}", EVEN[:3], sound_s=1))).info.notes == []
