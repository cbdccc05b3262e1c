"""`Source` over NATS JetStream: one durable pull consumer, which all ingests share."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from percodec.runtime.uplink.credentials import VEHICLE, Credentials
from percodec.runtime.uplink.ingest import Delivery
from percodec.runtime.uplink.link import Unreachable, live_subject, log_subject, stored_subject
from percodec.runtime.uplink.nats_link import open_nats
from percodec.sdk.errors import UplinkError

STREAM, CONSUMER = "PK_LOG", "ingest"
_BATCH = 64


class NatsSource:
    """See `Source`. Makes stream and consumer where the broker has none, as after it forgot everything."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.said: list[Exception] = []  # by the broker
        self._connection: Any = None
        self._pull: Any = None

    async def open(self, url: str, credentials: Credentials | None, stream_bytes: int, ack_wait_s: float) -> None:
        from nats.js import api

        self._connection = await open_nats(url, credentials, "percodec ingest", "_INBOX.ingest", self.lost.set, self.said)
        context = self._connection.jetstream(timeout=5)
        stream = api.StreamConfig(
            name=STREAM, subjects=[log_subject("*")], retention=api.RetentionPolicy.WORK_QUEUE, discard=api.DiscardPolicy.NEW,
            max_bytes=stream_bytes, storage=api.StorageType.FILE, duplicate_window=1, republish=told_again(),
        )  # fmt: skip
        consumer = api.ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_ack_pending=4096,
            filter_subject=log_subject("*"),
        )
        try:
            await context.stream_info(STREAM)
        except Exception:
            await context.add_stream(stream)
        await context.add_consumer(STREAM, consumer)
        self._pull = await context.pull_subscribe_bind(consumer=CONSUMER, stream=STREAM)

    async def take(self, seconds: float) -> list[Delivery]:
        import nats.errors
        import nats.js.errors

        try:
            return [_Delivery(message) for message in await self._pull.fetch(_BATCH, timeout=seconds)]
        except (nats.errors.TimeoutError, asyncio.TimeoutError):
            return []
        except (nats.errors.Error, nats.js.errors.Error):
            self.lost.set()  # the connection, or what it was about, is gone
            return []

    async def tell(self, vehicle: str, data: bytes) -> None:
        import nats.errors

        try:
            await self._connection.publish(stored_subject(vehicle), data)
        except nats.errors.Error:
            self.lost.set()

    async def close(self) -> None:
        self.lost.set()
        if self._connection is not None and not self._connection.is_closed:
            await self._connection.close()


class _Delivery:
    def __init__(self, message: Any) -> None:
        self._message = message
        self.data: bytes = message.data
        vehicle = message.subject.split(".")[1]
        self.vehicle = vehicle if VEHICLE.fullmatch(vehicle) else "unknown"

    async def acknowledge(self) -> None:
        import nats.errors

        with contextlib.suppress(nats.errors.Error):  # it comes again, and the archive has it
            await self._message.ack()


async def nats_source(url: str, credentials: Credentials | None, stream_bytes: int, ack_wait_s: float = 30.0) -> NatsSource:
    """Raises `Unreachable`, `UplinkError`."""
    import nats.errors
    import nats.js.errors

    source = NatsSource()
    try:
        await source.open(url, credentials, stream_bytes, ack_wait_s)
    except nats.js.errors.APIError as error:
        await source.close()
        raise UplinkError(f"{url}: the broker cannot keep the stream {STREAM} ({error.description}); see nats-server.conf") from error
    except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
        await source.close()
        if any("permissions" in str(one).lower() for one in source.said):
            raise UplinkError(f"{url}: this certificate may not keep the stream {STREAM}; see users.conf.example") from error
        raise Unreachable(f"{url}: no answer about the stream {STREAM} ({error or type(error).__name__})") from error
    return source


def told_again() -> Any:
    """Messages of the stream come once more on `live_subject`, for whoever predicts from them; nobody there costs nothing."""
    from nats.js import api

    return api.RePublish(src=log_subject("*"), dest=live_subject("{{wildcard(1)}}"))


__all__ = ["CONSUMER", "STREAM", "NatsSource", "nats_source", "told_again"]
