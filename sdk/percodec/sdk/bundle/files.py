"""Files of a bundle: regular, inside its folder, not reached through a link, of a size that is known before it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class UnfitFileError(Exception):
    """Says what is wrong with a file; `absent` where there is none. Turned into the error of whoever asked."""

    def __init__(self, what: str, absent: bool = False) -> None:
        super().__init__(what)
        self.absent = absent


def read_file(folder: Path, name: str, most: int, exact: int | None = None) -> bytes:
    """The bytes of `name`, a path below `folder`, of `exact` bytes or else `most` at most.

    Nothing that is no regular file is opened for reading, so that a FIFO or a device makes nobody wait. Raises `UnfitFileError`.
    """
    here = folder
    try:
        for part in name.split("/"):
            here = here / part
            if here.is_symlink():
                raise UnfitFileError("is reached through a link; a bundle holds plain files only")
        handle = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise UnfitFileError(f"cannot be opened ({e.strerror})", absent=isinstance(e, FileNotFoundError)) from e
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode):
        os.close(handle)  # Python makes no file of a folder
        raise UnfitFileError("is not a plain file")
    with os.fdopen(handle, "rb") as f:
        if state.st_size != exact if exact is not None else state.st_size > most:
            limit = f"limit {most}" if exact is None else f"listed with {exact}"
            raise UnfitFileError(f"has {state.st_size} bytes, {limit}")
        try:
            return f.read(state.st_size + 1)  # and not `most`: that much would be allocated
        except OSError as e:
            raise UnfitFileError(f"cannot be read ({e.strerror})") from e


__all__ = ["UnfitFileError", "read_file"]
