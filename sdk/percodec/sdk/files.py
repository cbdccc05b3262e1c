"""Files that are named from outside: read where they are regular ones, as a pipe or a device may never end; written all or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

MOST = 1 << 28


def read_file(path: Path | str, most: int = MOST) -> bytes:
    """The bytes of a regular file. Raises OSError that says why not, also for anything else and for more than `most` bytes."""
    with os.fdopen(opened(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size} bytes, at most {most} are read", str(path))
        return file.read(most)


def check_file(path: Path | str) -> None:
    """Raises OSError where `path` is no regular file that can be read."""
    os.close(opened(path))


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path`, replacing a file or link that is there; into a device as it is. Raises OSError, and leaves what was there."""
    if path.exists() and not (path.is_file() or path.is_symlink()):
        path.write_bytes(data)
        return
    beside = path.with_name(path.name + ".part")
    try:
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:  # never through a link that somebody put there
            file.write(data)
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def opened(path: Path | str) -> int:
    """A descriptor of a regular file, for reading; nobody waits for a pipe or a device. Raises OSError as `read_file`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a zero byte
        raise OSError(errno.EINVAL, "not a path", str(path)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        kind = "is a folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "not a regular file"
        os.close(fd)
        raise OSError(errno.EINVAL, kind, str(path))
    return fd


__all__ = ["MOST", "check_file", "opened", "read_file", "write_whole"]
