"""One run at a time in a folder: a lock on a file in it, held for the run's life and given up by the kernel when its process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from percodec.sdk.errors import UsageError

NAME = ".percodec-lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class FolderLock:
    """Taken by the constructor, given up by `close` or at the end of a `with`. Where a file system has no locks, none.

    The constructor raises `UsageError` naming the process that holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        while True:
            self._fd = _locked(folder, self._path)
            if self._is_there():
                break
            os.close(self._fd)  # its holder took it away between our opening and our locking
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        return False

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others in. Idempotent."""
        if self._fd >= 0:
            if self._is_there():
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _locked(folder: Path, path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened ({error.strerror}); choose another folder") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            holder = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise UsageError(f"{folder}: in use by another run (process {holder or 'unknown'}); end it or choose another folder") from None
        if error.errno not in _NO_LOCKS_HERE:
            os.close(fd)
            raise
    return fd


__all__ = ["NAME", "FolderLock"]
