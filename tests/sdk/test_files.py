"""Files named from outside: what is none is refused at once, what is written is whole."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from pathlib import Path

import pytest

from percodec.sdk.files import check_file, read_file, write_whole


def test_only_regular_files_are_read_and_not_too_much_of_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "link", 5) == b"12345"
    check_file(tmp_path / "a")
    with pytest.raises(OSError, match="has 5 bytes, at most 4"):
        read_file(tmp_path / "a", 4)
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((tmp_path / "pipe", "not a regular file"), (Path("/dev/zero"), "not a regular file"), (tmp_path, "is a folder")):
        for use in (read_file, check_file):
            with pytest.raises(OSError, match=why):
                use(path)
    with pytest.raises(OSError, match="not a path"):
        read_file("a\0b")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "no")


def test_a_file_is_all_there_or_as_it_was(tmp_path: Path) -> None:
    path, precious = tmp_path / "a", tmp_path / "precious"
    precious.write_bytes(b"mine")
    path.symlink_to(precious)
    (tmp_path / "a.part").symlink_to(precious)
    write_whole(path, b"new")
    assert (path.read_bytes(), precious.read_bytes()) == (b"new", b"mine")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(OSError, match="a'"):
            write_whole(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a", "precious"]


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    with contextlib.suppress(PermissionError):
        os.mknod(tmp_path / "void", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        write_whole(tmp_path / "void", b"x")
        assert stat.S_ISCHR(os.stat(tmp_path / "void").st_mode)
