"""`Source` over MQTT 5: a shared subscription, which hands each message to one of the ingests. The broker keeps a session for each.

Of an ingest that does not come back the broker delivers what it holds only when it comes; what stays there, vehicles send again after
`--resend-after`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from percodec.runtime.uplink.credentials import VEHICLE, Credentials
from percodec.runtime.uplink.ingest import Delivery
from percodec.runtime.uplink.link import log_subject, stored_subject
from percodec.runtime.uplink.mqtt_client import MqttClient

_SHARED = "$share/ingest/" + log_subject("+").replace(".", "/")
_BATCH = 64


class _Delivery:
    def __init__(self, topic: str, data: bytes, done: Callable[[], None]) -> None:
        vehicle = topic.split("/")[1]
        self.vehicle = vehicle if VEHICLE.fullmatch(vehicle) else "unknown"
        self.data = data
        self._done = done

    async def acknowledge(self) -> None:
        self._done()


class MqttSource:
    """See `Source`."""

    def __init__(self, name: str) -> None:
        self.client = MqttClient(name, self._came, keep=True)
        self.lost: asyncio.Event = self.client.lost
        self._waiting: deque[Delivery] = deque()
        self._some = asyncio.Event()

    def _came(self, topic: str, data: bytes, acknowledge: Callable[[], None]) -> None:
        self._waiting.append(_Delivery(topic, data, acknowledge))
        self._some.set()

    async def take(self, seconds: float) -> list[Delivery]:
        if not self._waiting:
            self._some.clear()
            try:
                await asyncio.wait_for(self._some.wait(), seconds)
            except asyncio.TimeoutError:
                return []
        return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]

    async def tell(self, vehicle: str, data: bytes) -> None:
        self.client.publish(stored_subject(vehicle).replace(".", "/"), data, None)

    async def close(self) -> None:
        await self.client.close()


async def mqtt_source(url: str, credentials: Credentials | None, name: str = "") -> MqttSource:
    """`name`: another one for each ingest; by default the machine's. Raises `Unreachable`, `UplinkError`."""
    source = MqttSource(f"percodec-ingest-{name or socket.gethostname()}")
    try:
        await source.client.open(url, credentials)
        await source.client.subscribe(_SHARED)
    except BaseException:
        await source.close()
        raise
    return source


__all__ = ["MqttSource", "mqtt_source"]
