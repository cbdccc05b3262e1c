"""What vehicles sent, once more, for whoever predicts from it: the streams PK_LIVE and PK_PREDICTED beside PK_LOG.

PK_LOG belongs to ingest, which takes messages out of it. The broker tells each of them again on another subject, and PK_LIVE keeps them an
hour. Neither waits for the other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from percodec.runtime.uplink.link import Unreachable, live_subject, predicted_subject
from percodec.runtime.uplink.nats_source import STREAM, told_again
from percodec.sdk.errors import UplinkError

LIVE, PREDICTED, CONSUMER = "PK_LIVE", "PK_PREDICTED", "predict"
_HOUR_S, _LIVE_BYTES, _PREDICTED_BYTES = 3600, 1 << 29, 1 << 28
_ACK_WAIT_S = 60


async def live_consumer(connection: Any, url: str, said: list[Any]) -> Any:
    """A pull subscription to PK_LIVE. Raises `Unreachable`, `UplinkError`; `said` has what the broker complained of."""
    import nats.errors
    import nats.js.errors
    from nats.js import api

    context = connection.jetstream(timeout=5)
    try:
        await _tell_again(context)
        for name, subject, size in ((LIVE, live_subject("*"), _LIVE_BYTES), (PREDICTED, predicted_subject("*"), _PREDICTED_BYTES)):
            config = api.StreamConfig(name=name, subjects=[subject], max_age=_HOUR_S, max_bytes=size, duplicate_window=600)
            config.discard, config.storage = api.DiscardPolicy.OLD, api.StorageType.FILE
            await context.add_stream(config)
        consumer = api.ConsumerConfig(durable_name=CONSUMER, ack_policy=api.AckPolicy.EXPLICIT, ack_wait=_ACK_WAIT_S, max_ack_pending=256)
        await context.add_consumer(LIVE, consumer)
        return await context.pull_subscribe_bind(consumer=CONSUMER, stream=LIVE)
    except nats.js.errors.NotFoundError as error:
        raise Unreachable(f"{url}: there is no stream {STREAM} yet; percodec ingest makes it") from error
    except nats.js.errors.APIError as error:
        raise UplinkError(f"{url}: the broker cannot keep {LIVE} and {PREDICTED} ({error.description}); see nats-server.conf") from error
    except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
        if any("permissions" in str(one).lower() for one in said):
            raise UplinkError(f"{url}: this certificate may not predict; see CN=predict in users.conf.example") from error
        raise Unreachable(f"{url}: no answer about the stream {LIVE} ({error or type(error).__name__})") from error


async def _tell_again(context: Any) -> None:
    """Streams made by an earlier ingest do not yet."""
    config = (await context.stream_info(STREAM)).config
    if config.republish is None:
        config.republish = told_again()
        await context.update_stream(config)


__all__ = ["CONSUMER", "LIVE", "PREDICTED", "live_consumer"]
