"""Situations of public reports on comparable software, each as a user meets it."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.command import Percodec
from support.video import write_video

from percodec.runtime.capture.images import ImageFiles, read_image
from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.tiff_pages import has_more_pages
from percodec.sdk.cli import main
from percodec.sdk.errors import SourceError

BLUE = np.full((64, 96, 3), (200, 30, 10), np.uint8)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    data = cv2.imencode(".png", BLUE)[1].tobytes()
    more = b"".join(struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return data[:33] + more + data[33:]


def zeros(megabytes: int) -> bytes:
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(megabytes)) + packer.flush()


def test_texts_and_profiles_of_a_png_are_not_unpacked_and_not_talked_of(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    pictures = {
        "bomb": png_with((b"zTXt", b"Comment\0\0" + zeros(300))),
        "profile": png_with((b"iCCP", b"ICC\0\0" + zlib.compress(b"CMYK" * 200))),
        "nonsense": png_with((b"iCCP", b"ICC\0\7garbage"), (b"tEXt", b"no zero byte")),
    }
    for name, data in pictures.items():
        (tmp_path / f"{name}.png").write_bytes(data)
        assert (read_image(tmp_path / f"{name}.png") == BLUE[..., ::-1]).all()
    done = percodec("encode", "profile.png", "-o", "a.pcpk", "--bundle", bundle_folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_pictures_with_several_pages_say_so(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "two.tif"), [BLUE, BLUE])
    cv2.imwrite(str(tmp_path / "one.tif"), BLUE)
    notes: list[str] = []
    read_image(tmp_path / "one.tif", notes)
    assert notes == []
    read_image(tmp_path / "two.tif", notes)
    assert len(notes) == 1
    assert "several pages; the first is read" in notes[0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_twelve_bits_kept_in_sixteen_say_so(tmp_path: Path, suffix: str) -> None:
    grey = np.linspace(0, 4095, 64 * 96).reshape(64, 96).astype(np.uint16)
    said: dict[str, list[str]] = {}
    for name, picture in (("twelve", grey), ("sixteen", grey * 16), ("dark", (grey // 400).astype(np.uint8))):
        cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), picture)
        said[name] = []
        read_image(tmp_path / f"{name}.{suffix}", said[name])
    assert "none above 4095: it reads nearly black" in said.pop("twelve")[0]
    assert said == {"sixteen": [], "dark": []}


def test_a_smaller_copy_is_no_page_and_a_circle_ends() -> None:
    def tiff(kind: int, following: int) -> bytes:
        first = struct.pack("<HHHIII", 1, 254, 4, 1, 0, 26)
        second = struct.pack("<HHHIII", 1, 254, 4, 1, kind, following)
        return b"II*\0" + struct.pack("<I", 8) + first + second

    assert has_more_pages(tiff(0, 0))
    assert not has_more_pages(tiff(1, 0))
    assert not has_more_pages(tiff(1, 8))
    assert not has_more_pages(tiff(0, 0)[:20])
    assert not has_more_pages(b"hello")


def test_links_to_nothing_are_named_and_folders_of_a_pictures_name_are_none(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), BLUE)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert len(list(iter(ImageFiles.from_folder(tmp_path).read, None))) == 1
    (tmp_path / "dead.png").symlink_to("nowhere.png")
    with pytest.raises(SourceError, match=r"dead.png.*the 1 readable images were processed"):
        list(iter(ImageFiles.from_folder(tmp_path).read, None))


def test_empty_chunks_of_an_avi_are_pictures_that_stay(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 25)
    data = (tmp_path / "a.avi").read_bytes()
    at = data.index(b"movi") + 4
    made, count = bytearray(data[:at]), 0
    while count < 25:
        size = struct.unpack_from("<I", data, at + 4)[0]
        whole = 8 + size + size % 2
        if data[at + 2 : at + 4] in (b"dc", b"db"):
            made += data[at : at + 4] + bytes(4) if count % 5 == 4 else data[at : at + whole]
            count += 1
        at += whole
    movi = made.index(b"movi")
    struct.pack_into("<I", made, movi - 4, len(made) - movi)
    struct.pack_into("<I", made, 4, len(made) - 8)
    (tmp_path / "b.avi").write_bytes(made)
    source = open_source(str(tmp_path / "b.avi"))
    frames = list(iter(source.read, None))
    assert len(frames) == 20
    assert "20 frames, where the container's estimate was 25" in source.info.notes[0]
    (tmp_path / "cut.avi").write_bytes(made[: len(made) * 2 // 3])
    with pytest.raises(SourceError, match="cut off"):
        list(iter(open_source(str(tmp_path / "cut.avi")).read, None))


def test_a_full_disk_is_named_with_the_file_and_leaves_no_half_of_it(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8))
    assert percodec("encode", "a.png", "-o", "a.pcpk", "--bundle", bundle_folder, cwd=tmp_path).returncode == 0
    for words, name in ((("encode", "a.png", "-o", "b.pcpk"), "b.pcpk"), (("decode", "a.pcpk", "-o", "d"), "d/reconstruction.png")):
        done = percodec(*words, "--bundle", bundle_folder, cwd=tmp_path, limit_bytes=60)
        assert done.returncode == 1
        assert name in done.stderr
        assert not (tmp_path / name).exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "folder", "nowhere"])
def test_what_never_ends_is_no_file(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkdir("folder")
    write_video(tmp_path / "a.avi", 3)
    bundle = ["--bundle", str(bundle_folder)]
    assert main(["encode", "a.avi", "-o", "a.mcap", *bundle]) == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for words in (
        ["decode", name, "-o", "o", *bundle],
        ["decode", "a.mcap", "-o", "o", "--trust-policy", name, *bundle],
        ["replay", name, *bundle],
        ["inspect", name],
        ["replay", "a.mcap", "--against", name, *bundle],
        ["profile", str(bundle_folder), "a.avi", "--budget", name, "--out", "p"],
        ["profile", "compare", name, name],
        ["profile", str(bundle_folder), "a.avi", "--backends", "rgb", "--rgb", name, "--frames", "10", "--out", "p", "--overwrite"],
    ):
        assert main(words) in (1, 2), words
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_log_cut_before_its_first_packet_says_so(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 3)
    assert percodec("encode", "a.avi", "-o", "a.mcap", "--bundle", bundle_folder, cwd=tmp_path).returncode == 0
    data = (tmp_path / "a.mcap").read_bytes()
    (tmp_path / "a.mcap").write_bytes(data[: data.index(b"PC\x10") - 10])
    for words in (("inspect",), ("replay", "--bundle", bundle_folder), ("decode", "-o", "d", "--bundle", bundle_folder)):
        done = percodec(words[0], "a.mcap", *words[1:], cwd=tmp_path)
        assert done.returncode == 1
        assert "cut off" in done.stderr
        assert done.returncode == 1


def test_standard_output_that_is_full_and_one_that_nobody_reads(percodec: Percodec, bundle_folder: Path, tmp_path: Path) -> None:
    from support.command import percodec_command

    command = percodec_command("inspect", bundle_folder, "--json")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "percodec: error: No space left on device\n"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as piped:
        assert piped.stdout is not None
        assert piped.stderr is not None
        piped.stdout.close()
        assert piped.stderr.read() == ""
        assert piped.wait() in (0, 141)


def test_a_mark_at_the_beginning_of_a_text_file_is_no_part_of_it(tmp_path: Path) -> None:
    from percodec.runtime.measure.budget import read_budget

    (tmp_path / "b.yaml").write_bytes(b"\xef\xbb\xbfdrops_percent: 1\r\n")
    assert read_budget(tmp_path / "b.yaml")[""] == {"drops_percent": 1.0}
