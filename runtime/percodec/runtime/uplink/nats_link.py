"""`Link` over NATS JetStream. Publishing goes by the library's plain calls: one subscription takes all acknowledgements."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.link import Unreachable, log_subject, stored_subject
from percodec.sdk.errors import UplinkError

_PING_S, _PINGS = 2, 2  # a link without an answer is given up after about 6 s


async def open_nats(
    url: str, credentials: Credentials | None, name: str, inbox: str, on_closed: Callable[[], None], said: list[Exception]
) -> Any:
    """A connection that does not connect again. `said` gets what the broker complains of. Raises `Unreachable`, `UplinkError`."""
    import nats
    import nats.errors

    context = None if credentials is None else credentials.context()

    async def error_of(error: Exception) -> None:
        said.append(error)

    async def closed() -> None:
        on_closed()

    try:
        return await nats.connect(
            url, tls=context, tls_handshake_first=context is not None, name=name, inbox_prefix=inbox, allow_reconnect=False,
            max_reconnect_attempts=1, connect_timeout=5, ping_interval=_PING_S, max_outstanding_pings=_PINGS, pending_size=8 << 20,
            error_cb=error_of, closed_cb=closed,
        )  # fmt: skip
    except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
        raise _refusal(url, [error, *said], credentials) from error


def _refusal(url: str, errors: list[Any], credentials: Credentials | None) -> Exception:
    for error in errors:
        text = str(error)
        if credentials is None and isinstance(error, ssl.SSLError):
            return UplinkError(f"{url}: the broker demands TLS; give --ca, --cert and --key")
        if isinstance(error, ssl.SSLCertVerificationError):
            ca = credentials.ca if credentials else ""
            return UplinkError(
                f"{url}: the broker's certificate is not accepted ({error.verify_message}); check {ca} and the broker's name"
            )
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return UplinkError(f"{url}: the broker does not accept the certificate ({error.reason}); ask who runs the broker")
        if "uthorization" in text or "ermissions" in text:
            return UplinkError(f"{url}: the broker does not know this certificate's name ({text}); ask who runs the broker")
        if "TLS" in text or "tls" in text or "secure" in text.lower():
            return UplinkError(f"{url}: the broker demands TLS, or has none ({text}); give --ca, --cert and --key, or another address")
    if credentials is not None and isinstance(errors[0], asyncio.TimeoutError):
        return Unreachable(f"{url}: no TLS within 5 s; is it a broker, with handshake_first in its configuration?")
    return Unreachable(f"{url}: no answer ({str(errors[0])[:120] or type(errors[0]).__name__})")


class NatsLink:
    """See `Link`."""

    def __init__(self, vehicle: str) -> None:
        self.lost = asyncio.Event()
        self._subject = log_subject(vehicle)
        self._done: dict[str, Callable[[str], None]] = {}
        self._count = 0
        self._connection: Any = None
        self._inbox = ""

    async def open(self, url: str, credentials: Credentials | None, vehicle: str, on_stored: Callable[[bytes], None]) -> None:
        self._connection = await open_nats(url, credentials, f"percodec uplink {vehicle}", f"_INBOX.{vehicle}", self.lost.set, [])

        async def stored(message: Any) -> None:
            on_stored(message.data)

        self._inbox = self._connection.new_inbox()
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._acknowledged)
        await self._connection.subscribe(stored_subject(vehicle), cb=stored)
        await self._connection.flush(5)

    async def publish(self, body: bytes, done: Callable[[str], None]) -> None:
        self._count += 1
        token = str(self._count)
        self._done[token] = done
        try:
            await self._connection.publish(self._subject, body, reply=f"{self._inbox}.{token}")
        except Exception:  # the library has many for a connection that is going; all mean that it is
            self.lost.set()

    async def _acknowledged(self, message: Any) -> None:
        done = self._done.pop(message.subject.rpartition(".")[2], None)
        if done is None:
            return
        if message.headers and message.headers.get("Status") == "503":
            return done("nobody keeps messages: the broker has no stream for them yet")
        try:
            error = json.loads(message.data).get("error")
            done("" if error is None else f"the broker refuses: {error.get('description', error)}")
        except (ValueError, AttributeError):
            done("the broker acknowledges in a way that nobody understands")

    async def close(self) -> None:
        self.lost.set()
        if self._connection is not None and not self._connection.is_closed:
            await self._connection.close()


async def connect_nats(url: str, credentials: Credentials | None, vehicle: str, on_stored: Callable[[bytes], None]) -> NatsLink:
    """See `connect.connect`."""
    import nats.errors

    link = NatsLink(vehicle)
    try:
        await link.open(url, credentials, vehicle, on_stored)
    except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
        await link.close()
        raise Unreachable(f"{url}: the connection broke ({error or type(error).__name__})") from error
    return link


__all__ = ["NatsLink", "connect_nats", "open_nats"]
