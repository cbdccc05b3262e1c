"""`Store`: a folder, s3://bucket/folder, or what fsspec opens. Files have names below it; what is written is whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from percodec.runtime.places import opened_place
from percodec.sdk.errors import BackendError, DataError
from percodec.sdk.files import read_file


class Store:
    """Of a folder or of one file in it. Travels to workers. Raises `DataError` where nothing can be opened there."""

    def __init__(self, where: str | os.PathLike[str], make: bool = False) -> None:
        self.where = os.fspath(where)
        try:
            self._files, self._root = opened_place(self.where)
            if make:
                self._files.makedirs(self._root, exist_ok=True)
            self.single = "" if make or not self._files.isfile(self._root) else self._root.rpartition("/")[2]
            there = bool(self.single) or self._files.isdir(self._root)
        except ModuleNotFoundError as error:
            if error.name not in ("fsspec", "pyarrow"):
                raise DataError(f"{self.where}: cannot be opened ({_short(error)})") from error
            raise BackendError(f"data of a fleet needs {error.name}; install with: pip install 'percodec[fleet]'") from error
        except Exception as error:  # each file system has its own
            raise DataError(f"{self.where}: cannot be opened ({_short(error)})") from error
        if not there:
            raise DataError(f"{self.where} does not exist; give a folder, a log, or an address that fsspec knows")
        if self.single:
            self._root = self._root.rpartition("/")[0]
        protocol: Any = self._files.protocol
        self.is_local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def sizes(self, *endings: str) -> dict[str, int]:
        """Bytes of the files with one of these endings, by name; hidden ones and those in hidden folders are left out."""
        try:
            self._files.invalidate_cache()
            place = self._path(self.single)
            found = {place: self._files.info(place)} if self.single else self._files.find(self._root, detail=True)
        except Exception as error:
            raise DataError(f"{self.where}: cannot be listed ({_short(error)})") from error
        named = {str(path)[len(self._root) :].lstrip("/"): int(info["size"] or 0) for path, info in found.items()}
        kept = (name for name in sorted(named) if name.endswith(endings) and not any(part.startswith(".") for part in name.split("/")))
        return {name: named[name] for name in kept}

    def names(self, *endings: str) -> list[str]:
        """The same files, sorted."""
        return list(self.sizes(*endings))

    def exists(self, name: str) -> bool:
        return bool(self._files.exists(self._path(name)))

    def read(self, name: str) -> bytes:
        """Raises `DataError`."""
        try:
            return read_file(self._path(name)) if self.is_local else bytes(self._files.cat_file(self._path(name)))
        except Exception as error:
            raise DataError(f"{self.shown(name)}: cannot be read ({_short(error)})") from error

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """The file itself, or a copy on this machine for as long as it is wanted. Raises `DataError`."""
        if self.is_local:
            yield Path(self._path(name))
            return
        with tempfile.TemporaryDirectory(prefix="percodec-") as folder:
            copy = Path(folder) / name.rpartition("/")[2]
            try:
                self._files.get_file(self._path(name), str(copy))
            except Exception as error:
                raise DataError(f"{self.shown(name)}: cannot be read ({_short(error)})") from error
            yield copy

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A file to fill on this machine; afterwards it is `name`, whole, unless an error came. Raises OSError, `DataError`."""
        if not self.is_local:
            with tempfile.TemporaryDirectory(prefix="percodec-") as folder:
                copy = Path(folder) / name.rpartition("/")[2]
                yield copy
                try:
                    self._files.put_file(str(copy), self._path(name))
                except Exception as error:
                    raise DataError(f"{self.shown(name)}: cannot be written ({_short(error)})") from error
            return
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Whole or not at all."""
        with self.writing(name) as path:
            path.write_bytes(data)

    def state_of(self, name: str) -> str:
        """What changes when the file does, without reading it: size, and time or tag. Raises `DataError`."""
        try:
            info = self._files.info(self._path(name))
        except Exception as error:
            raise DataError(f"{self.shown(name)}: cannot be read ({_short(error)})") from error
        mark = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or info.get("created")
        return f"{info['size']} {mark}"

    def shown(self, name: str) -> str:
        """For messages."""
        return self.where if self.single else f"{self.where.rstrip('/')}/{name}"

    def arrow(self, name: str) -> tuple[str, Any]:
        """Path and file system, as pyarrow takes them."""
        return self._path(name), self._files

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)


def _short(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).replace("\n", " ")[:200]


__all__ = ["Store"]
