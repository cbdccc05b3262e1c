"""`read_log`: one door for a log that is a file and one that is a folder of segments."""

from __future__ import annotations

import os
from pathlib import Path

from percodec.sdk.errors import LogError
from percodec.sdk.log.reader import LogReader, read_log_file
from percodec.sdk.log.segments import SegmentedLog, begun_paths


def read_log(path: str | os.PathLike[str], *, allow_damaged: bool = False) -> LogReader:
    """Open a log, complete or not: a file, or a folder with one or its segments. Raises `LogError` for anything that is no percodec log.

    `allow_damaged`: an iteration over a log with damaged records ends like any other, and `LogReader` says what was missing.
    """
    path = Path(path)
    if not path.is_dir():
        return read_log_file(path, allow_damaged=allow_damaged)
    found = begun_paths(path)
    if not found:
        raise LogError(f"{path} is a folder without logs (*.mcap); give a log written by percodec, or a folder of its segments")
    if len(found) == 1 and not (log := read_log_file(found[0], allow_damaged=allow_damaged)).metadata.get("recording"):
        return log  # as `percodec run` leaves it
    return SegmentedLog(path, [read_log_file(file, allow_damaged=True) for file in found], allow_damaged)


__all__ = ["read_log"]
