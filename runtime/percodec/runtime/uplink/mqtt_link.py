"""`Link` over MQTT 5: QoS 1, with no session on the broker. The log is the queue, so paho keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.link import log_subject, stored_subject
from percodec.runtime.uplink.mqtt_client import MqttClient


class MqttLink:
    """See `Link`."""

    def __init__(self, vehicle: str, on_stored: Callable[[bytes], None]) -> None:
        def came(topic: str, body: bytes, acknowledge: Callable[[], None]) -> None:
            on_stored(body)

        self._topic = log_subject(vehicle).replace(".", "/")
        self.client = MqttClient(f"percodec-uplink-{vehicle}", came, keep=False)
        self.lost: asyncio.Event = self.client.lost

    async def publish(self, body: bytes, done: Callable[[str], None]) -> None:
        self.client.publish(self._topic, body, done)

    async def close(self) -> None:
        await self.client.close()


async def connect_mqtt(url: str, credentials: Credentials | None, vehicle: str, on_stored: Callable[[bytes], None]) -> MqttLink:
    """See `connect.connect`."""
    link = MqttLink(vehicle, on_stored)
    try:
        await link.client.open(url, credentials)
        await link.client.subscribe(stored_subject(vehicle).replace(".", "/"))
    except BaseException:
        await link.close()
        raise
    return link


__all__ = ["MqttLink", "connect_mqtt"]
