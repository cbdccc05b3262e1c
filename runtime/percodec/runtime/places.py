"""Where files are: a folder, a bucket (s3://, gs://), or what else fsspec knows. One opener for archives and for data sets of them."""

from __future__ import annotations

from typing import Any


def opened_place(where: str) -> tuple[Any, str]:
    """A file system as fsspec has them, and the place in it. Buckets go through pyarrow, which is there anyway, and need no driver.

    Raises ImportError, and what the file system raises.
    """
    import fsspec

    if where.startswith(("s3://", "gs://")):
        import pyarrow.fs
        from fsspec.implementations.arrow import ArrowFSWrapper

        files, root = pyarrow.fs.FileSystem.from_uri(where)
        return ArrowFSWrapper(files), root
    opened: tuple[Any, str] = fsspec.core.url_to_fs(where)
    return opened


__all__ = ["opened_place"]
