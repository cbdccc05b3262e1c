"""`Server`: both fronts over one desk, from the first request to the last."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass

from percodec.runtime.serve.desk import Desk
from percodec.runtime.serve.engine import Engine
from percodec.runtime.serve.grpc_front import GrpcFront
from percodec.runtime.serve.http_front import HttpFront
from percodec.runtime.serve.requests import Limits
from percodec.runtime.serve.tls import Tls
from percodec.sdk.errors import UsageError


@dataclass(frozen=True)
class Addresses:
    """HOST:PORT of each protocol, None for without it; port 0 takes a free one."""

    grpc: str | None
    http: str | None


class Server:
    """`start`, then `drain`. Addresses are the ones that were bound."""

    def __init__(self, engine: Engine, limits: Limits, addresses: Addresses, tls: Tls | None) -> None:
        self.desk = Desk(engine, limits)
        self._wanted, self._tls = addresses, tls
        self._fronts: list[GrpcFront | HttpFront] = []

    async def start(self) -> Addresses:
        """Raises `UsageError` where an address cannot be had; nothing listens then."""
        grpc: GrpcFront | None = None
        http: HttpFront | None = None
        try:
            if self._wanted.http is not None:
                http = HttpFront(self.desk, self._wanted.http, self._tls)
                await http.start()
                self._fronts.append(http)
            if self._wanted.grpc is not None:
                grpc = GrpcFront(self.desk, self._wanted.grpc, self._tls)
                self._fronts.append(grpc)
                await grpc.start()
        except BaseException:
            await self.drain()
            raise
        return Addresses(None if grpc is None else grpc.address, None if http is None else http.address)

    async def drain(self) -> None:
        """Not ready any more; what has begun gets its answer, up to `drain_s`. Idempotent."""
        self.desk.closing.set()
        fronts, self._fronts = self._fronts, []
        await asyncio.gather(*(front.stop() for front in fronts))


def checked_address(text: str, option: str, tls: bool) -> str:
    """HOST:PORT. Raises `UsageError` for anything else, and without `tls` for what others can reach."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s\[\]/]+):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"{option} {text!r}: write HOST:PORT, as 127.0.0.1:8001; port 0 takes a free one")
    try:
        loopback = ipaddress.ip_address(match[1].strip("[]")).is_loopback
    except ValueError:
        loopback = match[1] == "localhost"
    if not loopback and not tls:
        raise UsageError(
            f"{option} {text}: others can reach it; give --tls-cert and --tls-key, or --plaintext behind something that does TLS"
        )
    return text


__all__ = ["Addresses", "Server", "checked_address"]
