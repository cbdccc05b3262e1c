"""A bucket: a server of S3's own protocol, over HTTP on loopback, that keeps everything in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest


@contextlib.contextmanager
def s3_bucket(monkeypatch: pytest.MonkeyPatch, folder: str = "archive") -> Iterator[str]:
    """The address of a folder in it. What is there stays as long as the process: take a folder of your own."""
    moto = pytest.importorskip("moto.server", reason="needs moto, a server of S3")
    for name, value in (("ACCESS_KEY_ID", "nobody"), ("SECRET_ACCESS_KEY", "nothing"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    server_at = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    urlopen(Request(f"{server_at}/fleet", method="PUT")).close()
    yield f"s3://fleet/{folder}?region=us-east-1&endpoint_override={quote(server_at, safe='')}"
    server.stop()


__all__ = ["s3_bucket"]
