"""The real command line, in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Percodec = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]


def percodec(*args: object, cwd: Path, limit_bytes: int | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `percodec ARGS`; no file it writes may become longer than `limit_bytes`."""

    def limit() -> None:
        assert limit_bytes is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        percodec_command(*args), cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout, env=quiet_environment(),
        preexec_fn=limit if limit_bytes is not None else None,
    )  # fmt: skip


def percodec_command(*args: object) -> list[str]:
    return [*COMMAND, *map(str, args)]


def quiet_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PERCODEC_DEBUG"} | {"PYTHONDONTWRITEBYTECODE": "1"}


__all__ = ["COMMAND", "Percodec", "percodec", "percodec_command", "quiet_environment"]
